"""What a request repaints of its picture: the mask, the part that is drawn, and its way back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from imagine_core.pictures.images import (
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

    def feathered(self, blur: float) -> Image.Image:
        """The mask with a soft edge: how much of the result shows."""
        from PIL import ImageFilter

        return self.mask.filter(ImageFilter.GaussianBlur(blur)) if blur else self.mask

    def pasted(self, drawn: Image.Image, box: Box, blur: float) -> Image.Image:
        """The picture with `drawn` in `box`, as far as the mask shows it."""
        whole = self.picture.copy()
        part = self.picture.crop(box)
        fitting = resized(drawn, part.size)
        whole.paste(_over(part, fitting, self.feathered(blur).crop(box)), box[:2])
        return whole


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Repaint:
    """The part of a picture that is drawn, at the size of a pass.

    Attributes:
        picture: RGB, what is there.
        mask: 255 repaints, 0 keeps, nothing between.
        shown: How much of the result shows.
        fill: What the repainted part starts from.
        box: The place of this part in the canvas; None where it is all of it.
    """

    picture: Image.Image
    mask: Image.Image
    shown: Image.Image
    fill: MaskFill
    box: Box | None = None

    @property
    def is_idle(self) -> bool:
        """Whether the mask keeps everything."""
        return self.mask.getbbox() is None

    @property
    def start(self) -> Image.Image:
        """The picture that the latent to start from is encoded of."""
        return _filled(self.picture, self.mask) if self.fill == "average" else self.picture

    def at(self, size: tuple[int, int]) -> Repaint:
        """The same at the size of another pass."""
        if size == self.picture.size:
            return self
        return replace(
            self,
            picture=resized(self.picture, size),
            mask=_hard(resized(self.mask, size)),
            shown=resized(self.shown, size),
        )

    def over(self, drawn: Image.Image) -> Image.Image:
        """The picture with what was drawn, as far as the mask shows it."""
        return _over(self.picture, drawn, self.shown)

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


def repaint_of(request: ResolvedRequest, canvas: Canvas) -> Repaint:
    """What `request` draws of its canvas."""
    box = None
    picture, mask, shown = canvas.picture, canvas.mask, canvas.feathered(request.mask_blur)
    size = request.drawn_size
    if request.mask_padding is not None and (around := mask.getbbox()) is not None:
        box = _surroundings(around, request.mask_padding, size, within=picture.size)
        picture, mask, shown = (each.crop(box) for each in (picture, mask, shown))
    whole = Repaint(picture=picture, mask=mask, shown=shown, fill=request.mask_fill, box=box)
    return whole if box is None else whole.at(size)


def _mask(request: ResolvedRequest, size: tuple[int, int]) -> tuple[Image.Image, str | None]:
    """The mask of `request` at `size`; without one, nothing is repainted but what is added."""
    from PIL import Image, ImageOps

    if request.mask is None:
        return Image.new("L", size, 0), None
    with blamed("mask"):
        mask = load_mask(request.mask)
    remark = distorted(mask.size, size, "the mask")
    mask = _hard(mask if mask.size == size else resized(mask, size))
    return ImageOps.invert(mask) if request.mask_invert else mask, remark


def _extended(picture: Image.Image, mask: Image.Image, extend: Box) -> Canvas:
    """The canvas with borders, which are painted, and start as the nearest pixels."""
    import numpy as np
    from PIL import Image

    if not any(extend):
        return Canvas(picture=picture, mask=mask)
    left, top, right, bottom = extend
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


def _filled(picture: Image.Image, mask: Image.Image) -> Image.Image:
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


def _over(picture: Image.Image, drawn: Image.Image, shown: Any) -> Image.Image:
    from PIL import Image

    return Image.composite(drawn, picture, shown)
