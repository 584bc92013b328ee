"""Reads the pictures that a request came with: to start from, masks and hints."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagine_core.engine.masking import HALF, Box, Canvas, canvas_of, repaints_of
from imagine_core.engine.passes import passes
from imagine_core.engine.plugged import hint_of
from imagine_core.errors import FieldError, RequestError, UnknownName
from imagine_core.kinds import SMALLEST_SIDE
from imagine_core.pictures.images import (
    MAX_PIXELS,
    TOO_LARGE,
    blamed,
    distorted,
    load_init_image,
    load_mask,
    load_rgb,
    resized,
)

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.engine.guarded import Guard
    from imagine_core.engine.masking import Repaint
    from imagine_core.interfaces import Preprocessor
    from imagine_core.registry import Registry
    from imagine_core.types import ControlUse, ResolvedRequest

NO_PREPROCESSOR = "none"
OPAQUE = 255
SHAPES = frozenset(
    {"width", "height", "extend", "hires_scale", "images", "mask_blur", "mask_fill", "mask_padding"}
)
"""Fields that what is drawn depends on."""

IDLE = "the mask repaints nothing: the picture stays as it is"


@dataclass(frozen=True, slots=True)
class SentPictures:
    """The decoded pictures of a request; see `Admitted`."""

    init_image: Image.Image | None = None
    repaints: tuple[Repaint, ...] = ()
    hints: tuple[Image.Image, ...] = ()
    warnings: tuple[str, ...] = ()


def read_pictures(
    request: ResolvedRequest,
    preprocessors: Registry[Preprocessor],
    found: dict[str, FieldError],
    *,
    guard: Guard,
) -> SentPictures:
    """Decode what `request` came with; what cannot be read is added to the errors `found`.

    Pictures are looked at even if another field has an error, so that all errors are told at once.
    """
    warnings: list[str] = []
    try:
        init_image, repaints, canvas = _start(request, found, warnings)
    except RequestError as error:
        found |= {each.field: each for each in error.fields}
        init_image, repaints, canvas = None, (), None
    box = None if canvas is None else repaints[0].box
    part = None if canvas is None or box is None else (canvas.picture.size, box)
    hints: list[Image.Image] = []
    for use in request.controls if "controls" not in found else ():
        try:
            preprocessor = _preprocessor(use, preprocessors)
            if found.keys() & SHAPES:  # it is still looked at
                _picture(use)
                continue
            hint, remark = _hint(use, request, part)
            if preprocessor is not None:
                hint = hint_of(preprocessor, hint, guard=guard)
            hints.append(hint)
            warnings += [] if remark is None else [remark]
        except RequestError as error:
            found |= {each.field: each for each in error.fields}
            break
    return SentPictures(init_image, repaints, tuple(hints), tuple(warnings))


def _start(
    request: ResolvedRequest, found: dict[str, FieldError], warnings: list[str]
) -> tuple[Image.Image | None, tuple[Repaint, ...], Canvas | None]:
    """The picture to start from, what each pass repaints of it, and the whole of it."""
    if request.init_image is None:
        return None, (), None
    if found.keys() & SHAPES:  # they are still looked at
        load_init_image(request.init_image, SMALLEST_SIDE, SMALLEST_SIDE)
        if request.mask is not None:
            with blamed("mask"):
                load_mask(request.mask)
        return None, (), None
    if request.mask is None and not any(request.extend):
        image, remark = load_init_image(request.init_image, request.width, request.height)
        warnings += [] if remark is None else [remark]
        return image, (), None
    canvas, remarks = canvas_of(request)
    _require_room(request, canvas.picture.size)
    repaints = repaints_of(request, canvas)
    first = repaints[0]
    warnings += [*remarks, *_of_what_shows(request, first)]
    return first.picture if first.is_idle else first.filled(request.mask_fill), repaints, canvas


def _require_room(request: ResolvedRequest, size: tuple[int, int]) -> None:
    """Refuse pictures of `size` that are larger together than the largest picture."""
    if request.mask_padding is not None and request.images * math.prod(size) > MAX_PIXELS:
        message = f"makes {size[0]} x {size[1]} pixels of each; together they {TOO_LARGE}"
        raise RequestError([FieldError("images", message)])


def _of_what_shows(request: ResolvedRequest, repaint: Repaint) -> list[str]:
    """What to say of a mask that shows nothing of the result, or little."""
    if repaint.mask.getbbox() is None:
        return [IDLE]
    if (most := repaint.most_shown) >= HALF:
        return []
    blur = f"mask_blur {request.mask_blur:g} is too wide for the mask"
    shows = f"at most {most / OPAQUE:.0%} of the result shows" if most else IDLE
    return [f"{blur}: {shows}"]


def _hint(
    use: ControlUse,
    request: ResolvedRequest,
    part: tuple[tuple[int, int], Box] | None,
) -> tuple[Image.Image, str | None]:
    """The picture of a ControlNet for the largest pass, and a remark if it is distorted.

    Of a `part` of a larger picture: its size, and the place of the part.
    """
    picture = _picture(use)
    picture = picture if part is None else _cropped(picture, *part)
    remark = distorted(picture.size, request.drawn_size, f"the hint of {use.name[:80]!r}")
    return resized(picture, passes(request)[-1].size), remark


def _picture(use: ControlUse) -> Image.Image:
    with blamed("controls"):
        try:
            return load_rgb(use.image)
        except ValueError as error:
            raise ValueError(f"the picture of {use.name[:80]!r} {error}") from error


def _cropped(picture: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    """The pixels of a hint, one at least, for a part of a picture of `size`."""
    (width, height), (across, down) = picture.size, size
    left, top, right, bottom = box
    return picture.crop(
        (
            left * width // across,
            top * height // down,
            -(-right * width // across),
            -(-bottom * height // down),
        )
    )


def _preprocessor(use: ControlUse, preprocessors: Registry[Preprocessor]) -> Preprocessor | None:
    if use.preprocessor is None or use.preprocessor.casefold() == NO_PREPROCESSOR:
        return None
    try:
        preprocessor = preprocessors.get(use.preprocessor)
    except UnknownName as error:
        raise RequestError([FieldError("controls", str(error))]) from error
    problem = preprocessor.unavailable()
    if problem is not None:
        message = f"preprocessor {preprocessor.name!r} cannot be used: {problem}"
        raise RequestError([FieldError("controls", message)])
    return preprocessor
