"""Enlarges pictures over HTTP: `POST /upscale` and `GET /upscalers`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from imagine_core import GenerationRequest, UpscaleRequest, UpscaleResult, strict_json
from imagine_core.errors import FieldError, RequestError
from imagine_core.fields import renamed
from imagine_core.listing import upscaler_details
from imagine_core.pictures.enlarged import enlarged_png
from imagine_core.pictures.formats import base64_of
from imagine_core.types import PhaseEvent, StepEvent
from imagine_core.version import version
from imagine_core.web.app import json_line
from imagine_core.web.callers import caller_of
from imagine_core.web.dialect import LINES, Order
from imagine_core.web.exchange import Exchange, Output
from imagine_core.web.reading import ignored
from imagine_plugins.dialects.native.lines import phase_line
from imagine_plugins.dialects.native.picture_schemas import LONGEST_SIDE

if TYPE_CHECKING:
    from starlette.requests import Request

    from imagine_core.service import Service
    from imagine_core.types import UpscaleEvent

log = logging.getLogger("imagine")

FIELDS: dict[str, Callable[[object], Any]] = {
    "img": strict_json.picture,
    "upscaler": strict_json.name,
    "scale": strict_json.number,
    "width": strict_json.integer,
    "height": strict_json.integer,
    "progress": strict_json.flag,
}
"""The fields of `POST /upscale`; null is as good as none for all but the picture."""

READING = 2
"""Bodies that are parsed at once: each may be JSON of some 64 MB."""

PERCENT = 100
"""Steps of an enlarging."""

WIRE_NAMES = {"image": "img", "size": "width"}
ONE_SIZE = "say how large by scale, or by width and height, not by both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The body of `POST /upscale`."""

    request: UpscaleRequest
    progress: bool
    warnings: tuple[str, ...] = ()


def upscale_endpoint(service: Service) -> Callable[[Request], Coroutine[Any, Any, UpscaleExchange]]:
    """`POST /upscale`: a larger picture, or a stream that ends with one."""
    reading = asyncio.Semaphore(READING)

    async def endpoint(request: Request) -> UpscaleExchange:
        body = await request.body()
        async with reading:
            wish = await asyncio.to_thread(read_wish, body)
        return UpscaleExchange(service, wish, caller=caller_of(request))

    return endpoint


def upscalers(service: Service) -> dict[str, Any]:
    """`GET /upscalers`: the names, and details of each, broken files among them."""
    details = upscaler_details(service.plugins, service.engine.catalogue)
    usable = [each["name"] for each in details if each["problem"] is None]
    return {"upscalers": usable, "details": details}


class UpscaleExchange(Exchange):
    """The answer to `POST /upscale`; the work ends with its client."""

    def __init__(self, service: Service, wish: Wish, *, caller: str) -> None:
        order = Order(request=GenerationRequest(prompt="", steps=PERCENT))
        self._record = service.jobs.open(order, caller=caller)
        super().__init__(
            framing=LINES if wish.progress else None,
            heartbeat=service.settings.heartbeat,
            headers=[(b"x-job-id", self._record.id.encode())],
        )
        self._service = service
        self._wish = wish

    async def work(self, out: Output) -> None:
        """Enlarge the picture."""
        async with self._service.jobs.at_work(self._record):
            await self._enlarge(out)

    async def _enlarge(self, out: Output) -> None:
        engine, own = self._service.engine, self._record.id
        try:
            task = await engine.admit_upscale(self._wish.request)
        except RequestError as error:
            raise renamed(error, WIRE_NAMES) from error
        with self.holding(task.held):
            async with aclosing(engine.upscale(task, id=own)) as events:
                async for event in events:
                    self.logged = True  # from here on, observers report how it ends
                    if isinstance(event, PhaseEvent):
                        self._record.take(event)
                    line = await self._line(event)
                    if line is not None:
                        last = isinstance(event, UpscaleResult)
                        await out.send(json_line({"id": own, **line}), last=last)

    async def _line(self, event: UpscaleEvent) -> dict[str, Any] | None:
        match event:
            case UpscaleResult():
                return await asyncio.to_thread(self._final, event)
            case PhaseEvent() if self._wish.progress:
                return phase_line(event)
            case StepEvent(step=step, steps=steps) if self._wish.progress:
                return {"status": "progress", "step": step, "steps": steps}
        return None

    def _final(self, result: UpscaleResult) -> dict[str, Any]:
        name = result.request.upscaler
        known = self._service.plugins.upscalers
        label = known.get(name).label if name in known.names() else name
        png = enlarged_png(result.image, result.request, label=label)
        return {
            "img": base64_of(png),
            "status": "final",
            "upscaler": name,
            "width": result.image.width,
            "height": result.image.height,
            "warnings": [*self._wish.warnings, *result.warnings],
            "timings": {phase: round(taken, 4) for phase, taken in result.timings.items()},
            "version": version(),
        }


def read_wish(body: bytes) -> Wish:
    """The wish in the body of `POST /upscale`.

    Raises:
        MalformedBody: The body is not a JSON object.
        RequestError: All fields that cannot be served.
    """
    given = strict_json.parse_object(body)
    values: dict[str, Any] = {}
    errors: list[FieldError] = []
    for name, read in FIELDS.items():
        value = given.pop(name, None)
        if value is None:
            continue
        try:
            values[name] = read(value)
        except strict_json.Refused as error:
            errors.append(FieldError(name, str(error)))
    refused = {error.field for error in errors}
    errors += [error for error in _problems(values, refused) if error.field not in refused]
    if errors:
        places = list(FIELDS)
        raise RequestError(sorted(errors, key=lambda error: places.index(error.field)))
    return Wish(
        request=_request(values),
        progress=values.get("progress", False),
        warnings=tuple(ignored(given)),
    )


def _request(values: dict[str, Any]) -> UpscaleRequest:
    request = UpscaleRequest(image=values["img"])
    if "upscaler" in values:
        request = replace(request, upscaler=values["upscaler"])
    if "width" in values:
        return replace(request, scale=None, size=(values["width"], values["height"]))
    return replace(request, scale=values["scale"]) if "scale" in values else request


def _problems(values: dict[str, Any], refused: set[str]) -> Iterator[FieldError]:
    if "img" not in values:
        yield FieldError("img", "is required: the picture in base64")
    for one, other in (("width", "height"), ("height", "width")):
        if one in values and other not in values and other not in refused:
            yield FieldError(other, f"is required beside {one}")
        if one in values and not 1 <= values[one] <= LONGEST_SIDE:
            yield FieldError(one, f"must be from 1 to {LONGEST_SIDE}")
    if "scale" in values and ("width" in values or "height" in values):
        yield FieldError("scale", ONE_SIZE)
