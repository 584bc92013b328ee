"""What a request repaints of its picture: the mask, the part that is drawn, and its way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagine_core.engine.passes import passes
from imagine_core.errors import FieldError, RequestError
from imagine_core.pictures.images import (
    MAX_PIXELS,
    MAX_SIDE,
    TOO_LARGE,
    blamed,
    distorted,
    load_init_image,
    load_mask,
    load_rgb,
    resized,
)

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from imagine_core.types import MaskFill, ResolvedRequest

Box = tuple[int, int, int, int]

HALF = 128
"""Masks of latents know no grey: from here on, a pixel repaints."""

BLUR_REACH = 3
"""Pillow's Gaussian is three boxes, none of which reaches further than its deviation rounded up."""

FILL_BLURS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2))
"""Standard deviations of the blurs that carry colours into the masked part, as A1111 has them, and
how often each is laid over the wider ones."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Canvas:
    """The picture of a request with all that is repainted of it.

    Attributes:
        picture: RGB, extended where the request says so.
        mask: 255 repaints, 0 keeps, nothing between; of the same size.
    """

    picture: Image.Image
    mask: Image.Image

    def pasted(self, drawn: Image.Image, box: Box, blur: float) -> Image.Image:
        """The picture with `drawn` in `box`, which has room for the feather, as the mask shows."""
        whole = self.picture.copy()
        shown = _feathered(self.mask.crop(box), blur)
        whole.paste(resized(drawn, shown.size), box[:2], shown)
        return whole


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Repaint:
    """The part of a picture that is drawn, at the size of a pass.

    Attributes:
        picture: RGB, what is there.
        mask: 255 repaints, 0 keeps, nothing between.
        shown: How much of the result shows.
        box: The place of this part in the canvas; None where it is all of it.
    """

    picture: Image.Image
    mask: Image.Image
    shown: Image.Image
    box: Box | None = None

    @property
    def most_shown(self) -> int:
        """How much of the result shows where most of it does, 0 .. 255."""
        return max(map(int, self.shown.getextrema()))  # type: ignore[arg-type]

    @property
    def is_idle(self) -> bool:
        """Whether nothing of the result would show."""
        return self.mask.getbbox() is None or not self.most_shown

    def filled(self, fill: MaskFill) -> Image.Image:
        """The picture that the latent to start from is encoded of."""
        return _averaged(self.picture, self.mask) if fill == "average" else self.picture

    def over(self, drawn: Image.Image) -> Image.Image:
        """The picture with what was drawn, as far as the mask shows it."""
        from PIL import Image

        return Image.composite(drawn, self.picture, self.shown)

    def kept_cells(self, cells: tuple[int, int], downsampling: int) -> torch.Tensor:
        """Whether the mask keeps a latent cell as a whole: booleans, [1, 1, height, width].

        A cell that is repainted in part is repainted: a stroke may be thinner than a cell.

        Args:
            cells: Height and width of the latent.
            downsampling: Pixels per cell along each side.
        """
        import numpy as np
        import torch

        height, width = (cell * downsampling for cell in cells)
        pixels = np.asarray(self.mask)
        beyond = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]))
        padded = torch.from_numpy(np.pad(pixels, beyond, mode="edge").astype(np.float32))
        most = torch.nn.functional.max_pool2d(padded[None, None], downsampling)
        return most == 0


def canvas_of(request: ResolvedRequest) -> tuple[Canvas, list[str]]:
    """The picture of `request` and its mask, and remarks for the caller.

    Raises:
        RequestError: One of them cannot be read.
    """
    assert request.init_image is not None
    remarks = []
    if request.mask_padding is None:
        picture, remark = load_init_image(request.init_image, request.width, request.height)
        remarks += [] if remark is None else [remark]
    else:
        with blamed("init_image"):
            picture = load_rgb(request.init_image)
    mask, remark = _mask(request, picture.size)
    remarks += [] if remark is None else [remark]
    return _extended(picture, mask, request.extend), remarks


def repaints_of(request: ResolvedRequest, canvas: Canvas) -> tuple[Repaint, ...]:
    """What each pass of `request` draws of its canvas."""
    box, picture, mask = None, canvas.picture, canvas.mask
    if request.mask_padding is not None and (around := mask.getbbox()) is not None:
        margin = request.mask_padding + BLUR_REACH * math.ceil(request.mask_blur)
        box = _surroundings(around, margin, request.drawn_size, within=picture.size)
        picture, mask = picture.crop(box), mask.crop(box)
    shown = _feathered(mask, request.mask_blur)
    return tuple(
        Repaint(
            picture=_at(picture, each.size),
            mask=_hard(_at(mask, each.size)),
            shown=_at(shown, each.size),
            box=box,
        )
        for each in passes(request)
    )


def finished(
    request: ResolvedRequest, repaints: Sequence[Repaint], drawn: Sequence[Image.Image]
) -> list[Image.Image]:
    """The whole pictures of `request`, from what was drawn of each."""
    first, last = repaints[0], repaints[-1]
    if request.mask_padding is None:
        repaint = last if request.hires_keeps and not first.is_idle else first
        return [repaint.over(_at(each, repaint.picture.size)) for each in drawn]
    canvas, _ = canvas_of(request)  # decoded again: it may be far larger than what is drawn
    box = first.box
    if box is None:
        return [canvas.picture] * len(drawn)
    return [canvas.pasted(each, box, request.mask_blur) for each in drawn]


def _mask(request: ResolvedRequest, size: tuple[int, int]) -> tuple[Image.Image, str | None]:
    """The mask of `request` at `size`; without one, nothing is repainted but what is added."""
    from PIL import Image, ImageOps

    if request.mask is None:
        return Image.new("L", size, 0), None
    with blamed("mask"):
        mask = load_mask(request.mask)
    remark = distorted(mask.size, size, "the mask")
    mask = _hard(_at(mask, size))
    return ImageOps.invert(mask) if request.mask_invert else mask, remark


def _extended(picture: Image.Image, mask: Image.Image, extend: Box) -> Canvas:
    """The canvas with borders, which are painted, and start as the nearest pixels.

    Raises:
        RequestError: It would be larger than the largest picture.
    """
    import numpy as np
    from PIL import Image

    if not any(extend):
        return Canvas(picture=picture, mask=mask)
    left, top, right, bottom = extend
    size = picture.width + left + right, picture.height + top + bottom
    if math.prod(size) > MAX_PIXELS or max(size) > MAX_SIDE:
        message = f"makes {size[0]} x {size[1]} pixels of it; the largest picture {TOO_LARGE}"
        raise RequestError([FieldError("extend", message)])
    pixels = np.pad(np.asarray(picture), ((top, bottom), (left, right), (0, 0)), mode="edge")
    around = np.pad(np.asarray(mask), ((top, bottom), (left, right)), constant_values=255)
    return Canvas(picture=Image.fromarray(pixels), mask=Image.fromarray(around))


def _surroundings(
    around: Box, padding: int, size: tuple[int, int], *, within: tuple[int, int]
) -> Box:
    """The least box in a picture around a mask, padded, with the proportions of `size`.

    Where the picture is too small for the proportions, the box is as large as it can be.
    """
    spans = [
        (max(0, around[axis] - padding), min(within[axis], around[axis + 2] + padding))
        for axis in (0, 1)
    ]
    sides = [end - start for start, end in spans]
    scale = max(side / wanted for side, wanted in zip(sides, size, strict=True))
    placed = []
    for axis, (start, end) in enumerate(spans):
        side = min(max(round(size[axis] * scale), end - start), within[axis])
        first = start - (side - (end - start)) // 2
        first = min(max(first, 0), within[axis] - side)
        placed.append((first, first + side))
    (left, right), (top, bottom) = placed
    return left, top, right, bottom


def _feathered(mask: Image.Image, blur: float) -> Image.Image:
    """The mask with a soft edge: how much of the result shows."""
    from PIL import ImageFilter

    return mask.filter(ImageFilter.GaussianBlur(blur)) if blur else mask


def _averaged(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with the colours around the masked part carried into it."""
    from PIL import Image, ImageFilter, ImageOps

    clear = Image.new("RGBA", picture.size)
    clear.paste(picture, mask=ImageOps.invert(mask))
    premultiplied = clear.convert("RGBa")
    canvas = Image.new("RGBA", picture.size, (127, 127, 127, 255))
    for deviation, times in FILL_BLURS:
        blurred = premultiplied.filter(ImageFilter.GaussianBlur(deviation)).convert("RGBA")
        for _ in range(times):
            canvas.alpha_composite(blurred)
    canvas.alpha_composite(clear)
    return canvas.convert("RGB")


def _hard(mask: Image.Image) -> Image.Image:
    return mask.point([255 if value >= HALF else 0 for value in range(256)])


def _at(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else resized(image, size)
