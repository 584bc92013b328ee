"""The routes of OpenAI's Images API, and their description."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Route

from imagine_core.fields import FIELDS
from imagine_core.pictures.formats import MEDIA_TYPES
from imagine_core.web.app import AsciiJSONResponse
from imagine_core.web.dialect import speaking
from imagine_core.web.generation import generation
from imagine_core.web.kept import kept_pictures
from imagine_core.web.openapi import described, json_content
from imagine_core.web.security import open_to_files
from imagine_plugins.dialects.openai.dialect import Images
from imagine_plugins.dialects.openai.wire import BACKGROUNDS, FIDELITIES, QUALITIES, SHOWN

if TYPE_CHECKING:
    from starlette.requests import Request

    from imagine_core import ModelInfo
    from imagine_core.service import Service

OBJECT = {"type": "object"}
PICTURE = {"type": "string", "contentMediaType": "application/octet-stream"}
CONTRACT = {
    "size": {"type": ["string", "null"], "pattern": "^(auto|[0-9]{1,9}x[0-9]{1,9})$"},
    "output_compression": {"type": ["integer", "null"], "minimum": 0, "maximum": 100},
    "partial_images": {"type": ["integer", "null"], "minimum": 0, "maximum": 3},
    "stream": {"type": ["boolean", "null"]},
    "quality": {"enum": [*QUALITIES, None]},
    "background": {"enum": [*BACKGROUNDS, None]},
    "input_fidelity": {"enum": [*FIDELITIES, None]},
    "output_format": {"enum": [*MEDIA_TYPES, None]},
    "response_format": {"enum": [*SHOWN, None]},
}
ERROR = {**OBJECT, "required": ["error"], "properties": {"error": OBJECT}}
REPLIES = {
    status: {"description": said, "content": json_content(schema)}
    for status, said, schema in (
        ("200", "The answer.", OBJECT),
        ("4XX", "What is wrong.", ERROR),
        ("5XX", "What failed.", ERROR),
    )
}

DRAWN = {
    "description": "The pictures, or events where a stream is asked for.",
    "content": {**json_content(OBJECT), "text/event-stream": {"schema": {"type": "string"}}},
}


def openai_routes(service: Service) -> Iterator[Route]:
    """The routes over `service`."""
    catalogue, images = service.engine.catalogue, Images(service)

    def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(info) for info in catalogue.usable()]}

    def model(name: str) -> dict[str, Any]:
        return _model(catalogue.find(name, "model"))

    async def listed(_: Request) -> Response:
        return AsciiJSONResponse(await asyncio.to_thread(models))

    async def one(request: Request) -> Response:
        return AsciiJSONResponse(await asyncio.to_thread(model, request.path_params["name"]))

    limits = service.engine.settings.limits
    own = {field.name: field.schema(limits) for field in FIELDS}
    asks = {**OBJECT, "required": ["prompt"], "properties": own | CONTRACT}
    taken = {**OBJECT, "properties": own | CONTRACT | {"image": PICTURE, "mask": PICTURE}}
    varied, edited = ({**taken, "required": names} for names in (["image"], ["image", "prompt"]))
    for path, endpoint, summary, content in (
        ("/v1/images/generations", generation(service, images), "Draw", json_content(asks)),
        ("/v1/images/edits", generation(service, images), "Draw over a picture", form(edited)),
        ("/v1/images/variations", generation(service, images), "Vary a picture", form(varied)),
        ("/v1/models", listed, "The models", None),
        ("/v1/models/{name:path}", one, "One model", None),
    ):
        operation: dict[str, Any] = {"summary": summary, "responses": REPLIES}
        if content is not None:
            operation["responses"] = REPLIES | {"200": DRAWN}
            operation["requestBody"] = {"required": True, "content": content}
        route = Route(path, endpoint, methods=["GET" if content is None else "POST"])
        yield open_to_files(speaking(described(route, operation), images, error=ERROR))
    yield speaking(kept_pictures(service, "/v1/images"), images, prefix="/v1/", error=ERROR)


def form(schema: dict[str, Any]) -> dict[str, Any]:
    """The content of a body that is a form, or JSON with the picture in base64."""
    return {"multipart/form-data": {"schema": schema}, **json_content(schema)}


def _model(info: ModelInfo) -> dict[str, Any]:
    created = int(info.path.stat().st_mtime) if info.path.exists() else 0
    return {"id": info.name, "object": "model", "created": created, "owned_by": "imagine"}
