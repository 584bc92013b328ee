"""What works on pictures without a model of its own: upscalers and preprocessors."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "Preprocessor",
    "UpscalerSpec",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscalerSpec:
    """An upscaler that needs no file; one that does is a `ModelLoader` of the kind "upscaler".

    Attributes:
        name: What requests ask for, lower case: "lanczos".
        label: A1111's spelling, for people and for infotext: "Lanczos".
        enlarge: The RGB picture at a size of (width, height) pixels. It is called on the device's
            thread; where it may take more than a second, a generator, which yields how much is
            done, 0 .. 1, and returns the picture: other requests' work is done between two steps.
        aliases: Other names for it.
    """

    name: str
    label: str
    enlarge: Callable[
        [Image.Image, tuple[int, int]], Image.Image | Generator[float, None, Image.Image]
    ]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessor:
    """Makes the hint of a ControlNet of a picture, without a network.

    Attributes:
        name: What requests ask for, lower case: "canny".
        label: What people read: "Canny edges".
        prepare: The RGB hint of an RGB picture, of the same size. Called on a thread
            of its own, which is given up where it does not return in time.
        aliases: Other names for it, those of A1111's ControlNet extension among them.
        unavailable: Why it cannot be used here (a package that is not installed), or None.
    """

    name: str
    label: str
    prepare: Callable[[Image.Image], Image.Image]
    aliases: tuple[str, ...] = ()
    unavailable: Callable[[], str | None] = lambda: None
