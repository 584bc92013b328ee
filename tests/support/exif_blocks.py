"""Writes Exif data by hand as other tools do: Pillow's writer knows one form."""

from __future__ import annotations

import io
import struct

from PIL import Image

# Half of the bytes of Japanese spaces are zero, and so are half of those of ASCII.
PROMPT = "猫\u3000" * 100 + ", a cat"
INFOTEXT = f"{PROMPT}\nNegative prompt: ugly\nSteps: 20, Sampler: Euler a, Seed: 42, Size: 64x64"


def block(comment: bytes, order: str = ">", kind: int = 7, *, nested: bool = True) -> bytes:
    """A TIFF whose comment is in the Exif directory, or in the first one."""
    start = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, 8)
    after = 44 if nested else 26
    entry = struct.pack(order + "HHHIII", 1, 0x9286, kind, len(comment), after, 0)
    to_exif = struct.pack(order + "HHHIII", 1, 0x8769, 4, 1, 26, 0)
    return start + (to_exif if nested else b"") + entry + comment


BIG, LITTLE = INFOTEXT.encode("utf-16-be"), INFOTEXT.encode("utf-16-le")
SPELLINGS = {
    "A1111, SD.Next": block(b"UNICODE\0" + BIG),
    "A1111, saved again by Pillow": block(b"UNICODE\0" + BIG, kind=1),
    "Civitai": block(b"UNICODE\0" + BIG, "<"),
    "SwarmUI": block(b"UNICODE\0" + LITTLE, "<"),
    "SwarmUI, saved again": block(b"UNICODE\0" + LITTLE),
    "with a byte order mark": block(b"UNICODE\0" + INFOTEXT.encode("utf-16")),
    "UTF-8 that calls itself Unicode": block(b"UNICODE\0" + INFOTEXT.encode()),
    "UTF-8 that calls itself ASCII": block(b"ASCII\0\0\0" + INFOTEXT.encode()),
    "UTF-8 with an undefined code": block(b"\0" * 8 + INFOTEXT.encode()),
    "Fooocus": block(INFOTEXT.encode() + b"\0", kind=2, nested=False),
    "bytes in the first directory": block(b"UNICODE\0" + BIG, kind=1, nested=False),
}


def picture_with(exif: bytes, form: str) -> bytes:
    """A small picture in the format `form`, "PNG", "JPEG" or "WEBP", with this Exif data."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, form, exif=b"Exif\0\0" + exif)
    return buffer.getvalue()
