"""Registers the preprocessors that come with Imagine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from imagine_core import Preprocessor, hookimpl
from imagine_plugins.preprocessors.canny import canny

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

ROWS = 256
"""Rows of a picture that are computed at once, which bounds the memory."""


def invert(image: Image.Image) -> Image.Image:
    """Black for white, for drawings on paper: hints of lines are white on black."""
    from PIL import ImageOps

    return ImageOps.invert(image)


def tile(image: Image.Image) -> Image.Image:
    """The picture itself: ControlNets for tiles add detail to what they are shown."""
    return image.copy()


def luma(image: Image.Image) -> Image.Image:
    """The lightness L* of CIELAB in grey, 0..100 as 0..255: hints for colouring a picture."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image)
    lightness = np.empty(pixels.shape[:2], np.uint8)
    for top in range(0, len(pixels), ROWS):
        lightness[top : top + ROWS] = _lightness(pixels[top : top + ROWS])
    return Image.fromarray(lightness).convert("RGB")


def _lightness(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """L* of sRGB pixels [rows, columns, 3] (IEC 61966-2-1, CIE 15)."""
    import numpy as np

    values = np.arange(256, dtype=np.float32) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    weights = np.array([0.2126, 0.7152, 0.0722], np.float32)
    y = linear.astype(np.float32)[pixels] @ weights
    star = np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, (29 / 3) ** 3 * y)
    return (star * 2.55).round().clip(0, 255).astype(np.uint8)


PREPROCESSORS = (
    Preprocessor(name="canny", label="Canny edges", prepare=canny),
    Preprocessor(
        name="invert",
        label="Invert",
        prepare=invert,
        aliases=("invert (from white bg & black line)",),
    ),
    Preprocessor(name="tile", label="Tile", prepare=tile, aliases=("tile_resample",)),
    Preprocessor(name="luma", label="Luminance", prepare=luma, aliases=("recolor_luminance",)),
)


@hookimpl
def register_preprocessors(register: Callable[[Preprocessor], None]) -> None:
    """Register all."""
    for preprocessor in PREPROCESSORS:
        register(preprocessor)
