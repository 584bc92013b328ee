"""The rules of loaders of upscalers, each with the check that raises if it is broken."""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import numpy as np

from imagine_core.testing.live_tensors import alive, born
from imagine_core.testing.picture_rules import SIZES, noise, unchanged

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.testing.loader_under_test import LoadedUpscaler

LARGE = (300, 40)
PART, EDGE = 150, 40
"""Columns of the large picture that are enlarged alone, and those at their end that may differ."""

ALIKE = 30.0
"""Decibels between what a part of a picture becomes alone and in the whole."""


def finished(steps: Generator[float, None, Image.Image]) -> tuple[Image.Image, list[float]]:
    """What an upscaler returns, and all that it yielded."""
    told = []
    while True:
        try:
            told.append(next(steps))
        except StopIteration as stop:
            return stop.value, told


def described(loaded: LoadedUpscaler) -> None:
    """It is of the kind "upscaler", with its factor, and JSON can hold what it says."""
    info = loaded.info
    assert info.kind == "upscaler", f"it says that its kind is {info.kind!r}, not 'upscaler'"
    json.dumps(dict(info.details), allow_nan=False)
    factor, said = loaded.upscaler.factor, info.details.get("factor")
    assert isinstance(factor, int), f"`factor` is {factor!r}, not a whole number"
    assert factor >= 1, f"`factor` is {factor}"
    assert said == factor, f"`details` say the factor {said!r}; the upscaler has {factor}"


def hashed(loaded: LoadedUpscaler) -> None:
    """Its hash is 10 hex digits, or unknown."""
    value = loaded.upscaler.hash
    known = value is None or re.fullmatch("[0-9a-f]{10}", value)
    assert known, f"`hash` is {value!r}, not 10 hex digits or None"


def sizes(loaded: LoadedUpscaler) -> None:
    """A picture of any size becomes an RGB picture that is `factor` times as large."""
    factor = loaded.upscaler.factor
    for size in SIZES:
        image = noise(*size)
        with unchanged(image):
            given, told = finished(loaded.upscaler.enlarge(image))
        wanted = (size[0] * factor, size[1] * factor)
        assert given.size == wanted, f"of {size} it makes {given.size}, not {wanted}"
        assert given.mode == "RGB", f"it makes a picture of mode {given.mode}"
        assert all(0 <= each <= 1 for each in told), f"it says that it is at {told}"
        assert told == sorted(told), f"it goes back: {told}"


def repeats(loaded: LoadedUpscaler) -> None:
    """The same picture becomes the same, whatever was enlarged or cancelled meanwhile."""
    image = noise(33, 20)
    first, _ = finished(loaded.upscaler.enlarge(image))
    cancelled = loaded.upscaler.enlarge(noise(*LARGE))
    next(cancelled, None)
    cancelled.close()
    second, _ = finished(loaded.upscaler.enlarge(image))
    assert first.tobytes() == second.tobytes(), "the same picture becomes another the second time"


def seams(loaded: LoadedUpscaler) -> None:
    """A part of a picture becomes what it becomes in the whole, but for its edge."""
    image, factor = noise(*LARGE), loaded.upscaler.factor
    part = image.crop((0, 0, PART, image.height))
    kept = (PART - EDGE) * factor
    whole, alone = (
        np.asarray(finished(loaded.upscaler.enlarge(each))[0], np.float64)[:, :kept]
        for each in (image, part)
    )
    error = float(((whole - alone) ** 2).mean())
    decibels = math.inf if error == 0 else 10 * math.log10(255**2 / error)
    assert decibels >= ALIKE, f"a part alone is {decibels:.0f} dB from the same part of the whole"


def closing(loaded: LoadedUpscaler) -> None:
    """Closing it, even twice, gives its memory back, though the object itself lives on."""
    before = alive()
    upscaler = loaded.load(loaded.info)
    finished(upscaler.enlarge(noise(8, 8)))
    upscaler.close()
    upscaler.close()
    gc.collect()
    left = len(born(before))
    assert not left, f"{left} tensors are still there after `close`"


UPSCALER_RULES: tuple[tuple[str, Callable[[LoadedUpscaler], None]], ...] = (
    ("upscaler-described", described),
    ("upscaler-hash", hashed),
    ("upscaler-sizes", sizes),
    ("upscaler-repeats", repeats),
    ("upscaler-seams", seams),
    ("upscaler-closing", closing),
)
