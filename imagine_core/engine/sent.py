"""Reads the pictures that a request came with: to start from, masks and hints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagine_core.engine.masking import Box, Canvas, canvas_of, repaint_of
from imagine_core.engine.passes import passes
from imagine_core.engine.plugged import hint_of
from imagine_core.errors import FieldError, RequestError, UnknownName
from imagine_core.kinds import SMALLEST_SIDE
from imagine_core.pictures.images import blamed, distorted, load_init_image, load_rgb, resized

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.engine.guarded import Guard
    from imagine_core.engine.masking import Repaint
    from imagine_core.interfaces import Preprocessor
    from imagine_core.registry import Registry
    from imagine_core.types import ControlUse, ResolvedRequest

NO_PREPROCESSOR = "none"
SIZES = frozenset({"width", "height", "extend", "hires_scale"})
IDLE = "the mask repaints nothing: the picture stays as it is"


@dataclass(frozen=True, slots=True)
class SentPictures:
    """The decoded pictures of a request; see `Admitted`."""

    init_image: Image.Image | None = None
    repaint: Repaint | None = None
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
        init_image, repaint, canvas = _start(request, found, warnings)
    except RequestError as error:
        found |= {each.field: each for each in error.fields}
        init_image, repaint, canvas = None, None, None
    part = None if canvas is None or repaint is None else (canvas, repaint)
    hints: list[Image.Image] = []
    for use in request.controls if "controls" not in found else ():
        try:
            preprocessor = _preprocessor(use, preprocessors)
            if found.keys() & SIZES:  # it is still looked at
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
    return SentPictures(init_image, repaint, tuple(hints), tuple(warnings))


def _start(
    request: ResolvedRequest, found: dict[str, FieldError], warnings: list[str]
) -> tuple[Image.Image | None, Repaint | None, Canvas | None]:
    """The picture to start from, or what is repainted of it."""
    if request.init_image is None:
        return None, None, None
    if found.keys() & SIZES:  # it is still looked at
        load_init_image(request.init_image, SMALLEST_SIDE, SMALLEST_SIDE)
        return None, None, None
    if request.mask is None and not any(request.extend):
        image, remark = load_init_image(request.init_image, request.width, request.height)
        warnings += [] if remark is None else [remark]
        return image, None, None
    canvas, remarks = canvas_of(request)
    repaint = repaint_of(request, canvas)
    warnings += [*remarks, *([IDLE] if repaint.is_idle else [])]
    return None, repaint, canvas


def _hint(
    use: ControlUse,
    request: ResolvedRequest,
    part: tuple[Canvas, Repaint] | None,
) -> tuple[Image.Image, str | None]:
    """The picture of a ControlNet for the largest pass, and a remark if it is distorted."""
    picture = _picture(use)
    if part is not None and (box := part[1].box) is not None:
        picture = _cropped(picture, box, part[0].picture.size)
    remark = distorted(picture.size, request.drawn_size, f"the hint of {use.name[:80]!r}")
    return resized(picture, passes(request)[-1].size), remark


def _picture(use: ControlUse) -> Image.Image:
    with blamed("controls"):
        try:
            return load_rgb(use.image)
        except ValueError as error:
            raise ValueError(f"the picture of {use.name[:80]!r} {error}") from error


def _cropped(picture: Image.Image, box: Box, size: tuple[int, int]) -> Image.Image:
    """The part of a hint for a part of a picture of `size`."""
    across, down = (ours / theirs for ours, theirs in zip(picture.size, size, strict=True))
    left, top, right, bottom = box
    return picture.crop(
        (round(left * across), round(top * down), round(right * across), round(bottom * down))
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
