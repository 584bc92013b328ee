"""Takes pictures with transparency apart into colours and alpha."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagine_core.pictures.images import OPAQUE, alpha_of

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "colours_and_alpha",
]


def colours_and_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours of a picture in RGB, and how opaque it is; None if it is so everywhere.

    Pixels that cannot be seen get the colours around: their own may be any, and would show at the
    edges of the enlarged picture.

    Args:
        image: In RGB or RGBA.
    """
    alpha = alpha_of(image)
    return (image.convert("RGB"), None) if alpha is None else (_filled(image, alpha), alpha)


def _filled(image: Image.Image, alpha: Image.Image) -> Image.Image:
    """Fill from ever smaller copies, whose pixels are means of those that can be seen."""
    from PIL import Image

    layers = [_stencilled(image, alpha)]
    while max(layers[-1].size) > 1:
        half = (max(1, layers[-1].width // 2), max(1, layers[-1].height // 2))
        smaller = layers[-1].resize(half, Image.Resampling.BOX)  # weighted by alpha
        layers.append(_stencilled(smaller, smaller.getchannel("A")))
    canvas = layers.pop()
    while layers:
        layer = layers.pop()
        around = canvas.resize(layer.size, Image.Resampling.BILINEAR)
        canvas = Image.alpha_composite(around, layer)
    return canvas.convert("RGB")


def _stencilled(image: Image.Image, alpha: Image.Image) -> Image.Image:
    """`image`, wholly opaque where it can be seen at all."""
    stencilled = image.copy()
    stencilled.putalpha(alpha.point(lambda value: OPAQUE if value else 0))
    return stencilled
