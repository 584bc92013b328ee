"""Encodes pictures in the formats of the web, with the infotext where other tools look for it."""

from __future__ import annotations

import base64
from io import BytesIO
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from imagine_core.pictures.exif import COMMENT, EXIF_IFD
from imagine_core.pictures.metadata import infotext_of

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "MEDIA_TYPES",
    "base64_of",
    "converted",
    "encoded",
]

MEDIA_TYPES = MappingProxyType({"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"})
"""The formats, and the media type of each."""

LONGEST_EXIF = 2**16 - 64
"""Bytes of Exif data that a JPEG's segment holds, with some to spare for its head."""

FULL_COLOUR = 90
"""From this quality on, a JPEG keeps the colour of each pixel."""


def encoded(
    image: Image.Image, to: str, *, quality: int | None = None, infotext: str | None = None
) -> bytes:
    """`image` in a format.

    Args:
        image: The picture.
        to: A key of `MEDIA_TYPES`.
        quality: Of JPEG and WebP, 0 (smallest) .. 100; None is 100. PNG loses nothing.
        infotext: What JPEG and WebP get as their Exif comment; a JPEG has no room for more than
            some 32,000 characters, and goes without then.
    """
    quality = 100 if quality is None else quality
    options: dict[str, Any] = {"compress_level": 1} if to == "png" else {"quality": quality}
    if to == "jpeg" and quality >= FULL_COLOUR:
        options["subsampling"] = 0
    exif = _exif(infotext) if infotext and to != "png" else b""
    if exif and (to == "webp" or len(exif) <= LONGEST_EXIF):
        options["exif"] = exif
    buffer = BytesIO()
    image.save(buffer, to, **options)
    return buffer.getvalue()


def converted(png: bytes, to: str, *, quality: int | None = None) -> bytes:
    """A PNG in another format, with its infotext; see `encoded`."""
    from PIL import Image

    if to == "png":
        return png
    with Image.open(BytesIO(png), formats=["PNG"]) as image:
        return encoded(image, to, quality=quality, infotext=infotext_of(png))


def base64_of(data: bytes) -> str:
    """`data` in base64."""
    return base64.b64encode(data).decode("ascii")


def _exif(infotext: str) -> bytes:
    """Exif data with a user comment, in UTF-16 as A1111 writes it."""
    from PIL import Image

    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[COMMENT] = b"UNICODE\0" + infotext.encode("utf-16-be", "replace")
    return exif.tobytes()
