"""A1111's `extra-single-image` and `extra-batch-images`: pictures are enlarged."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from imagine_core import UpscaleRequest, UpscaleResult
from imagine_core.errors import FieldError, RequestError
from imagine_core.fields import renamed
from imagine_core.kinds import Decimal, Flag, Json, Picture, Text
from imagine_core.pictures.enlarged import enlarged_png, picture_png
from imagine_core.pictures.fitting import fitted
from imagine_core.pictures.formats import base64_of
from imagine_core.pictures.images import blamed, load_rgb
from imagine_core.rows import Row, read_rows, rows_schema
from imagine_core.strict_json import Refused, parse_object, picture
from imagine_core.types import new_id
from imagine_core.web.app import json_line
from imagine_core.web.exchange import Exchange, Output
from imagine_plugins.dialects.a1111.fields import Listed, Pixels
from imagine_plugins.dialects.a1111.hires import find_upscaler

if TYPE_CHECKING:
    from starlette.requests import Request

    from imagine_core.service import Service
    from imagine_core.settings import Limits

READING = 2
"""Bodies that are parsed at once: each may be JSON of some 64 MB."""

# fmt: off
ROWS = (
    Row("resize_mode",                  Listed(("by upscaling_resize", "to a size")), 0),
    Row("show_extras_results",          Flag(),                default=True),
    Row("upscaling_resize",             Decimal(0, 64, above=True), 2.0),
    Row("upscaling_resize_w",           Pixels(1),             512),
    Row("upscaling_resize_h",           Pixels(1),             512),
    Row("upscaling_crop",               Flag(),                default=True),
    Row("upscaler_1",                   Text(),                "None"),
    Row("upscaler_2",                   Text(),                "None"),
    Row("extras_upscaler_2_visibility", Decimal(0.0, 1.0),     0.0),
    Row("gfpgan_visibility",            Decimal(0.0, 1.0),     0.0),
    Row("codeformer_visibility",        Decimal(0.0, 1.0),     0.0),
)
NAMES = {"scale": "upscaling_resize", "size": "upscaling_resize_w"}
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A body.

    Attributes:
        pictures: The pictures, encoded.
        upscalers: The name and the label of each: none, one, or two that are blended.
        share: How much of the second is seen.
        scale: The factor; None with a `size`.
        size: What is covered, or cut out.
        crop: Whether it is cut out.
        shows: Whether the answer has the pictures.
        warnings: What the client should know.
    """

    pictures: tuple[bytes, ...]
    upscalers: tuple[tuple[str, str], ...]
    share: float
    scale: float | None
    size: tuple[int, int]
    crop: bool
    shows: bool
    warnings: tuple[str, ...]


def extras_endpoint(
    service: Service, *, batch: bool
) -> Callable[[Request], Coroutine[Any, Any, ExtrasExchange]]:
    """The endpoint for one picture, or for several."""
    reading = asyncio.Semaphore(READING)

    async def endpoint(request: Request) -> ExtrasExchange:
        """Enlarge pictures."""
        body = await request.body()
        async with reading:
            wish = await asyncio.to_thread(read_wish, body, service, batch=batch)
        return ExtrasExchange(service, wish, batch=batch)

    return endpoint


class ExtrasExchange(Exchange):
    """The answer; the work ends with its client."""

    def __init__(self, service: Service, wish: Wish, *, batch: bool) -> None:
        super().__init__(framing=None)
        self._service, self._wish, self._batch = service, wish, batch
        self._warnings = list(wish.warnings)

    async def work(self, out: Output) -> None:
        """Enlarge the pictures, one after the other."""
        done = [await self._picture(data) for data in self._wish.pictures]
        images = [base64_of(png) for png in done] if self._wish.shows else []
        told = [label for _, label in self._wish.upscalers] or ["None"]
        paragraphs = [f"Postprocess upscaler: {', '.join(told)}", *self._warnings]
        answer: dict[str, Any] = {
            "html_info": "".join(f"<p>{html.escape(each)}</p>" for each in paragraphs),
            "warnings": self._warnings,
        }
        if self._batch:
            answer["images"] = images
        else:
            answer["image"] = images[0] if images else None
        await out.send(json_line(answer), last=True)

    async def _picture(self, data: bytes) -> bytes:
        field = "imageList" if self._batch else "image"
        if not self._wish.upscalers:
            with blamed(field):
                return await asyncio.to_thread(picture_png, data)
        request = UpscaleRequest(image=data, scale=self._wish.scale)
        if self._wish.scale is None:
            with blamed(field):
                size = (await asyncio.to_thread(load_rgb, data)).size
            request = replace(request, size=covering(size, self._wish.size))
        try:
            made = [
                await self._enlarged(replace(request, upscaler=name))
                for name, _ in self._wish.upscalers
            ]
        except RequestError as error:
            raise renamed(error, {**NAMES, "image": field}) from error
        return await asyncio.to_thread(self._finished, made)

    async def _enlarged(self, request: UpscaleRequest) -> UpscaleResult:
        engine = self._service.engine
        task = await engine.admit_upscale(request)
        with self.holding(task.held):
            async with aclosing(engine.upscale(task, id=new_id())) as events:
                async for event in events:
                    self.logged = True  # from here on, observers report how it ends
                    if isinstance(event, UpscaleResult):
                        self._warnings += [w for w in event.warnings if w not in self._warnings]
                        return event
        raise AssertionError  # the last event is the result

    def _finished(self, made: list[UpscaleResult]) -> bytes:
        from PIL import Image

        image, request = made[0].image, made[0].request
        for other in made[1:]:
            image = Image.blend(image, other.image, self._wish.share)
        if self._wish.scale is None:
            image = fitted(image, self._wish.size, crop=True) if self._wish.crop else image
            request = replace(request, scale=None, size=image.size)
        labels = [label for _, label in self._wish.upscalers]
        return enlarged_png(image, request, label=labels[0], second=dict(enumerate(labels)).get(1))


def read_wish(body: bytes, service: Service, *, batch: bool) -> Wish:
    """The wish in a body.

    Raises:
        MalformedBody: The body is not a JSON object.
        RequestError: All fields that cannot be served.
        UnknownName, UnusableModel: There is no such upscaler, or it is broken.
    """
    given = parse_object(body)
    values, errors = read_rows(ROWS, given, service.engine.settings.limits)
    pictures: list[bytes] = []
    try:
        most = service.engine.settings.limits.images
        pictures = list(_batch(given, most)) if batch else [picture(given.get("image"))]
    except Refused as error:
        errors.append(FieldError("imageList" if batch else "image", str(error)))
    if errors:
        raise RequestError(errors)
    asked = [values["upscaler_1"]]
    asked += [values["upscaler_2"]] if values["extras_upscaler_2_visibility"] else []
    upscalers = [None if _is_none(name) else find_upscaler(service, name) for name in asked]
    if upscalers[0] is None:  # nothing is enlarged, as in A1111
        upscalers = []
    faces = [name for name in ("gfpgan_visibility", "codeformer_visibility") if values[name]]
    return Wish(
        pictures=tuple(pictures),
        upscalers=tuple(each for each in upscalers if each is not None),
        share=values["extras_upscaler_2_visibility"],
        scale=None if values["resize_mode"] else values["upscaling_resize"],
        size=(values["upscaling_resize_w"], values["upscaling_resize_h"]),
        crop=values["upscaling_crop"],
        shows=values["show_extras_results"],
        warnings=tuple(f"{name} has no effect here" for name in faces),
    )


def covering(before: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The least size with the proportions of `before` that covers `size`."""
    scale = max(after / side for after, side in zip(size, before, strict=True))
    width, height = (
        max(after, round(side * scale)) for after, side in zip(size, before, strict=True)
    )
    return width, height


def extras_schema(limits: Limits, *, batch: bool) -> Json:
    """The JSON Schema of a body."""
    whole = rows_schema(ROWS, limits)
    one = Picture().schema(limits)
    file = {
        "type": "object",
        "required": ["data"],
        "properties": {"data": one, "name": {"type": "string"}},
    }
    files = {"type": "array", "items": file, "minItems": 1, "maxItems": limits.images}
    sent = {"imageList": files} if batch else {"image": one}
    return {**whole, "properties": sent | whole["properties"], "required": list(sent)}


def _batch(given: dict[str, Any], most: int) -> Iterator[bytes]:
    files = given.get("imageList")
    if not isinstance(files, list) or not 0 < len(files) <= most:
        raise Refused(f'must be a list of 1 to {most} objects like {{"data": "iVBORw0..."}}')
    for file in files:
        yield picture(file.get("data") if isinstance(file, dict) else file)


def _is_none(name: str) -> bool:
    return name.strip().casefold() in ("", "none")
