"""Writes the answers of OpenAI's Images API: one JSON object, or Server-Sent Events."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from imagine_core import StepEvent
from imagine_core.errors import (
    Cancelled,
    GenerationFailed,
    OutOfMemory,
    RequestError,
    Unauthorized,
    UnknownName,
)
from imagine_core.fields import renamed
from imagine_core.pictures.formats import base64_of, converted, encoded
from imagine_core.web.app import explain, json_line
from imagine_core.web.dialect import EVENTS, Event, Failure, Finished, Order, Record
from imagine_plugins.dialects.openai.wire import read_order

if TYPE_CHECKING:
    from starlette.requests import Request

    from imagine_core.service import Service

PARAMETERS = {"init_image": "image", "images": "n", "width": "size", "height": "size"}
"""What the API calls fields of the core; the others have the core's names."""

STATUS = {422: 400, 502: 503, 507: 500}
"""The statuses that its clients do not know."""

FINAL = (Cancelled, GenerationFailed, OutOfMemory)
"""Errors against which another try does not help."""

USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}
"""Clients expect it; nothing is counted here."""


class Images:
    """Translates between the API and the core."""

    framing = EVENTS

    def __init__(self, service: Service) -> None:
        self._service = service

    def read(self, body: bytes, request: Request) -> Order:
        """The order in a body."""
        return read_order(body, request, self._service)

    def say(self, event: Event, record: Record) -> bytes | None:
        """All pictures; in a stream an event for each partial and each finished one."""
        if isinstance(event, StepEvent):
            return _partial(event, record)
        if not isinstance(event, Finished):
            return None
        said = [*record.order.warnings, *event.result.warnings]
        about = {**_look(record), "usage": USAGE, "model": record.request.model, "warnings": said}
        pictures = _pictures(event, record)
        if record.order.streams:
            return b"".join(_event(record, "completed", each | about) for each in pictures)
        return json_line({"created": _now(), "data": pictures, **about})

    def fail(self, error: Exception, *, begun: bool = False) -> Failure:
        """An error as the SDKs read it; inside a stream it is an event."""
        if isinstance(error, RequestError):
            error = RequestError(dict.fromkeys(renamed(error, PARAMETERS).fields))
        status, body = explain(error)
        said = body["error"]
        code = "invalid_api_key" if isinstance(error, Unauthorized) else said["type"]
        if isinstance(error, UnknownName) and error.kind == "model":
            code = "model_not_found"
        told = {
            "message": said["message"],
            "type": "invalid_request_error" if status < 500 else "server_error",
            "param": said["fields"][0]["field"] if said["fields"] else None,
            "code": code,
        }
        answer = json_line({"error": told})
        headers = {"X-Should-Retry": "false"} if isinstance(error, FINAL) else {}
        return STATUS.get(status, status), b"data: " + answer + b"\n" if begun else answer, headers


def _partial(event: StepEvent, record: Record) -> bytes | None:
    request, look = record.request, _look(record)
    index = event.step // max(request.preview_every, 1) - 1
    most = record.order.details["partial_images"] or 0
    if event.preview is None or index >= most or event.step == event.steps:
        return None
    picture = event.preview.resize(request.drawn_size)
    quality = record.order.details["output_compression"]
    data = encoded(picture, look["output_format"], quality=quality)
    item = {"partial_image_index": index, "b64_json": base64_of(data), "seed": str(event.seed)}
    return _event(record, "partial_image", item | look)


def _pictures(made: Finished, record: Record) -> list[dict[str, Any]]:
    details, to, pictures = record.order.details, _look(record)["output_format"], []
    for index, (png, seed) in enumerate(zip(made.pngs, made.seeds, strict=True)):
        item = {"seed": str(seed)}
        if record.request.original_prompt is not None:
            item["revised_prompt"] = record.request.prompt
        if "url" in details["shown"]:
            item["url"] = f"{details['base']}v1/images/{record.id}/{index}.{to}"
        if "b64_json" in details["shown"]:
            picture = converted(png, to, quality=details["output_compression"])
            item["b64_json"] = base64_of(picture)
        pictures.append(item)
    return pictures


def _event(record: Record, kind: str, item: dict[str, Any]) -> bytes:
    edits = record.order.details["route"] == "edits"
    name = f"{'image_edit' if edits else 'image_generation'}.{kind}"
    data = json.dumps({"type": name, "created_at": _now(), **item})
    return f"event: {name}\ndata: {data}\n\n".encode()


def _now() -> int:
    return int(datetime.now(UTC).timestamp())


def _look(record: Record) -> dict[str, Any]:
    details = record.order.details
    return {
        "background": "opaque",
        "output_format": details["output_format"] or "png",
        "quality": details["quality"] or "auto",
        "size": f"{record.request.width}x{record.request.height}",
    }
