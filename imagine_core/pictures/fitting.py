"""Fits pictures into sizes of other proportions, and into a number of pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from imagine_core.pictures.images import load_rgb, resized

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "fitted",
    "load_bounded",
]


def fitted(image: Image.Image, size: tuple[int, int], *, crop: bool) -> Image.Image:
    """The picture at a size of (width, height) pixels, without distortion, in the middle.

    Args:
        image: Of any mode that NumPy reads.
        size: The size.
        crop: Whether it fills the size and loses what is too much; else it is there as a whole, and
            the pixels of its edges are repeated where something is missing.
    """
    import numpy as np
    from PIL import Image

    scales = [after / before for after, before in zip(size, image.size, strict=True)]
    if crop:
        kept = [max(1, round(after / max(scales))) for after in size]
        sides = [min(side, most) for side, most in zip(kept, image.size, strict=True)]
        left, top = ((most - side) // 2 for side, most in zip(sides, image.size, strict=True))
        part = image.crop((left, top, left + sides[0], top + sides[1]))
        return resized(part, size)
    inner = [
        min(after, max(1, round(before * min(scales))))
        for after, before in zip(size, image.size, strict=True)
    ]
    pixels = np.asarray(resized(image, (inner[0], inner[1])))
    before = [(after - side) // 2 for after, side in zip(size, inner, strict=True)]
    beyond = [after - side - b for after, side, b in zip(size, inner, before, strict=True)]
    around = [(before[1], beyond[1]), (before[0], beyond[0])] + [(0, 0)] * (pixels.ndim - 2)
    return Image.fromarray(np.pad(pixels, around, mode="edge"))


def load_bounded(data: bytes, most: int) -> Image.Image:
    """The picture in `data`, in RGB, scaled down to `most` pixels if it has more.

    Raises:
        ValueError: `data` is no picture, or one that is too large, with a reason for people.
    """
    image = load_rgb(data)
    scale = math.sqrt(most / (image.width * image.height))
    if scale >= 1:
        return image
    return resized(image, (max(1, int(image.width * scale)), max(1, int(image.height * scale))))
