"""Enlarges pictures with any upscaler, to any size, a tile at a time."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from imagine_core.interfaces import UpscalerSpec
from imagine_core.pictures.hints import enlarged_by
from imagine_core.pictures.images import resized

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.parts import Upscaler

LANCZOS = UpscalerSpec(name="lanczos", label="Lanczos", enlarge=resized)
"""The upscaler of requests that name none."""

MOST_TURNS = 8
"""How often a network may be applied: a factor of 2 makes 256 of it."""


def enlarge(
    upscaler: UpscalerSpec | Upscaler,
    image: Image.Image,
    size: tuple[int, int],
    *,
    alpha: Image.Image | None = None,
) -> Generator[float, None, Image.Image]:
    """Enlarge `image` to exactly `size`; yields how much is done, 0 .. 1, and returns the picture.

    A network is applied until its picture is no smaller than `size`, and at least once; Lanczos
    scales what it made to the size.

    Args:
        upscaler: What enlarges.
        image: The picture, RGB.
        size: Width and height in pixels.
        alpha: How opaque it is, in 8 bits of grey; the result is RGBA then. Lanczos enlarges it
            where a network, which knows colours alone, enlarges the picture.
    """
    larger = yield from _enlarge_colours(upscaler, image, size)
    if alpha is not None:
        spec = upscaler if isinstance(upscaler, UpscalerSpec) else LANCZOS
        larger.putalpha(enlarged_by(spec, alpha.convert("RGB"), size).convert("L"))
    return larger


def _enlarge_colours(
    upscaler: UpscalerSpec | Upscaler, image: Image.Image, size: tuple[int, int]
) -> Generator[float, None, Image.Image]:
    if isinstance(upscaler, UpscalerSpec):
        return enlarged_by(upscaler, image, size)
    turns = _turns(upscaler.factor, image.size, size)
    for turn in range(turns):
        tiles = upscaler.enlarge(image)
        try:
            while True:
                yield (turn + next(tiles)) / turns
        except StopIteration as stop:
            image = stop.value
        finally:
            tiles.close()
    return image if image.size == size else resized(image, size)


def _turns(factor: int, before: tuple[int, int], after: tuple[int, int]) -> int:
    scale = max(large / small for small, large in zip(before, after, strict=True))
    turns, reached = 1, factor
    while factor > 1 and reached < scale and turns < MOST_TURNS:
        turns, reached = turns + 1, reached * factor
    return turns
