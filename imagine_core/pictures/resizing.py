"""Resizes pictures a strip at a time, so that other work may be done between two of them."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "resizing",
]

STRIP = 2**23
"""Pixels that are read or made at once, whichever are more: a tenth of a second's work."""


def resizing(
    image: Image.Image, size: tuple[int, int], *, kernel: str = "LANCZOS"
) -> Generator[float, None, Image.Image]:
    """Resize an RGB picture exactly as `images.resized` does, in bounded memory.

    Yields between two strips how much is done, 0 .. 1, and returns the picture. Pillow resizes
    sideways, rounds to bytes, and resizes upwards. So each row is resized sideways as if it were
    alone, and each column upwards.

    Args:
        image: The picture.
        size: Width and height of the result.
        kernel: The name of one of Pillow's kernels.
    """
    from PIL import Image

    least = (min(image.width, size[0]), min(image.height, size[1]))
    passes = ((least[0], image.height), least, (size[0], least[1]), size)
    for number, wanted in enumerate(passes):
        if image.size == wanted:
            continue
        result = Image.new(image.mode, wanted)
        across = int(image.width != wanted[0])  # the axis along which strips follow one another
        length = wanted[across]
        step = max(1, STRIP // max(image.size[1 - across], wanted[1 - across]))
        for start in range(0, length, step):
            if start:
                yield (number + start / length) / len(passes)
            stop = min(length, start + step)
            box = (0, start, image.width, stop) if across else (start, 0, stop, image.height)
            part = (wanted[0], stop - start) if across else (stop - start, wanted[1])
            strip = image.crop(box).resize(part, Image.Resampling[kernel])
            result.paste(strip, box[:2])
        image = result
    return image
