"""Upscalers that resample: each pixel is a weighted mean of those around it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING

from imagine_core import UpscalerSpec, hookimpl

if TYPE_CHECKING:
    from PIL import Image


def resample(
    image: Image.Image, size: tuple[int, int], *, kernel: str
) -> Generator[float, None, Image.Image]:
    """The picture at a size, by one of Pillow's kernels, a strip at a time."""
    from imagine_core.pictures.resizing import resizing

    return resizing(image, size, kernel=kernel)


def row(name: str, label: str, kernel: str) -> UpscalerSpec:
    """An upscaler with one of Pillow's kernels."""
    return UpscalerSpec(name=name, label=label, enlarge=partial(resample, kernel=kernel))


UPSCALERS = (
    row("lanczos", "Lanczos", "LANCZOS"),
    row("bicubic", "Bicubic", "BICUBIC"),
    row("nearest", "Nearest", "NEAREST"),
)


@hookimpl
def register_upscalers(register: Callable[[UpscalerSpec], None]) -> None:
    """Register all."""
    for spec in UPSCALERS:
        register(spec)
