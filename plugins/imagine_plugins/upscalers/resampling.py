"""Upscalers that resample: each pixel is a weighted mean of those around it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from imagine_core import UpscalerSpec, hookimpl

if TYPE_CHECKING:
    from PIL import Image


def resample(image: Image.Image, size: tuple[int, int], *, kernel: str) -> Image.Image:
    """The picture at a size of (width, height) pixels.

    Pillow resizes sideways first: shrinking before growing bounds the memory by the larger of the
    two pictures, whatever their proportions.

    Args:
        image: The picture.
        size: Width and height in pixels.
        kernel: The name of one of Pillow's resampling filters.
    """
    from PIL.Image import Resampling

    least = (min(image.width, size[0]), min(image.height, size[1]))
    return image.resize(least, Resampling[kernel]).resize(size, Resampling[kernel])


def row(name: str, label: str, kernel: str, *, aliases: tuple[str, ...] = ()) -> UpscalerSpec:
    """An upscaler with one of Pillow's kernels."""
    enlarge = partial(resample, kernel=kernel)
    return UpscalerSpec(name=name, label=label, enlarge=enlarge, aliases=aliases)


UPSCALERS = (
    row("lanczos", "Lanczos", "LANCZOS"),
    row("bicubic", "Bicubic", "BICUBIC"),
    row("nearest", "Nearest", "NEAREST", aliases=("nearest-exact",)),
)


@hookimpl
def register_upscalers(register: Callable[[UpscalerSpec], None]) -> None:
    """Register all."""
    for spec in UPSCALERS:
        register(spec)
