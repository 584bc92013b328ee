"""Enlarges pictures with any upscaler, to any size, a tile at a time."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import TYPE_CHECKING

from imagine_core.engine.plugged import enlarged_by
from imagine_core.interfaces import UpscalerSpec
from imagine_core.pictures.images import MAX_PIXELS, resized
from imagine_core.pictures.resizing import resizing

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.engine.guarded import Guard
    from imagine_core.parts import Upscaler

LANCZOS = UpscalerSpec(name="lanczos", label="Lanczos", enlarge=resizing)
"""The upscaler of requests that name none."""

MOST_TURNS = 8
"""How often a network may be applied: a factor of 2 makes 256 of it."""

MOST_MADE = 2 * MAX_PIXELS
"""Pixels of a picture that a network makes; Pillow takes 4 bytes for each."""


def enlarge(
    upscaler: UpscalerSpec | Upscaler,
    image: Image.Image,
    size: tuple[int, int],
    *,
    guard: Guard,
    alpha: Image.Image | None = None,
) -> Generator[float, None, Image.Image]:
    """Enlarge `image` to exactly `size`; yields how much is done, 0 .. 1, and returns the picture.

    A network is applied until its picture is no smaller than `size`, and at least once; Lanczos
    scales what it made to the size. It never makes more than `MOST_MADE` pixels: what it would
    make more of is scaled down before.

    Args:
        upscaler: What enlarges.
        image: The picture, RGB.
        size: Width and height in pixels.
        guard: Runs upscalers of plugins that are no networks.
        alpha: How opaque it is, in 8 bits of grey; the result is RGBA then. Lanczos enlarges it
            where a network, which knows colours alone, enlarges the picture.
    """
    larger = yield from _enlarge_colours(upscaler, image, size, guard=guard)
    if alpha is not None:
        spec = upscaler if isinstance(upscaler, UpscalerSpec) else LANCZOS
        grey = yield from enlarged_by(spec, alpha.convert("RGB"), size, guard=guard)
        larger.putalpha(grey.convert("L"))
    return larger


def _enlarge_colours(
    upscaler: UpscalerSpec | Upscaler, image: Image.Image, size: tuple[int, int], *, guard: Guard
) -> Generator[float, None, Image.Image]:
    if isinstance(upscaler, UpscalerSpec):
        return (yield from enlarged_by(upscaler, image, size, guard=guard))
    turns = _turns(upscaler.factor, image.size, size)
    for turn in range(turns):
        sides = image.size if turn == 0 else _within(image.size, size)
        sides = _bounded(sides, upscaler.factor)
        image = image if image.size == sides else resized(image, sides)
        tiles = upscaler.enlarge(image)
        try:
            while True:
                yield (turn + next(tiles)) / turns
        except StopIteration as stop:
            image = stop.value
        finally:
            tiles.close()
    return (yield from resizing(image, size))


def _turns(factor: int, before: tuple[int, int], after: tuple[int, int]) -> int:
    scale = max(large / small for small, large in zip(before, after, strict=True))
    turns, reached = 1, factor
    while factor > 1 and reached < scale and turns < MOST_TURNS:
        turns, reached = turns + 1, reached * factor
    return turns


def _within(sides: tuple[int, int], most: tuple[int, int]) -> tuple[int, int]:
    """`sides`, of which one that is long enough grows no more while the other does."""
    return min(sides[0], most[0]), min(sides[1], most[1])


def _bounded(sides: tuple[int, int], factor: int) -> tuple[int, int]:
    """`sides`, made smaller where `factor` times as long ones had more than `MOST_MADE` pixels."""
    share = math.sqrt(MOST_MADE / math.prod(sides)) / factor
    if share >= 1:
        return sides
    return max(1, int(sides[0] * share)), max(1, int(sides[1] * share))
