"""The comment in a picture's Exif data, where A1111 and others put infotext into JPEG and WebP.

Exif 2.32 (CIPA DC-008-2019), section 4.6, on TIFF 6.0. As in pngtext, nothing is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

Order = Literal["little", "big"]

COMMENT, EXIF_IFD = 0x9286, 0x8769
LABEL = "Steps:"
"""Every infotext has it."""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}  # bytes of BYTE, ASCII, SHORT, LONG, UNDEFINED
_PREFIX = b"Exif\0\0"
_CODES = (b"ASCII\0\0\0", b"UNICODE\0", b"JIS\0\0\0\0\0", b"\0" * 8)


def is_jpeg(start: bytes) -> bool:
    """Whether a file that begins with `start` is a JPEG."""
    return start.startswith(b"\xff\xd8\xff")


def is_webp(start: bytes) -> bool:
    """Whether a file that begins with `start`, of at least 12 bytes, is a WebP."""
    return start.startswith(b"RIFF") and start[8:12] == b"WEBP"


def picture_comment(data: bytes) -> str | None:
    """The comment in a JPEG or WebP; None where it has none, or where its Exif data is broken."""
    blocks = _jpeg_exif(data) if is_jpeg(data) else _webp_exif(data) if is_webp(data) else ()
    return next((comment for block in blocks if (comment := exif_comment(block))), None)


def exif_comment(block: bytes) -> str | None:
    """The user's comment in Exif data, which is a TIFF; likewise."""
    block = block.removeprefix(_PREFIX)
    if block[:2] not in (b"II", b"MM"):
        return None
    order: Order = "little" if block[:2] == b"II" else "big"
    first = dict(_entries(block, _number(block, 4, 4, order), order))
    nested = first.get(EXIF_IFD)
    # The standard has the comment in the nested directory; several tools write it into the first.
    inner = dict(_entries(block, int.from_bytes(nested, order), order)) if nested else {}
    raw = inner.get(COMMENT) or first.get(COMMENT)
    return _decode(raw) if raw else None


def exif_block(orientation: int) -> bytes:
    """Exif data that says how the picture is turned, and nothing else."""
    entry = b"\x12\x01\x03\0\x01\0\0\0" + orientation.to_bytes(4, "little")  # tag 0x0112, SHORT
    return b"II*\0\x08\0\0\0\x01\0" + entry + b"\0\0\0\0"


def _entries(block: bytes, start: int, order: Order) -> Iterator[tuple[int, bytes]]:
    """The entries of a directory: tag and value, as far as they are inside the data."""
    for at in range(start + 2, start + 2 + 12 * _number(block, start, 2, order), 12):
        if at + 12 > len(block):
            return
        kind, count = _number(block, at + 2, 2, order), _number(block, at + 4, 4, order)
        size = _SIZES.get(kind, 0) * count
        value = at + 8 if size <= 4 else _number(block, at + 8, 4, order)
        if 0 < size <= len(block) - value:
            yield _number(block, at, 2, order), block[value : value + size]


def _number(block: bytes, at: int, size: int, order: Order) -> int:
    """The whole number at `at`; 0 beyond the end."""
    return int.from_bytes(block[at : at + size], order)


def _decode(raw: bytes) -> str:
    """The text of a comment.

    The code in front tells little: UTF-16 has no mark, and its byte order need not be that of the
    data around it, but the label of an infotext tells it, else the zero bytes of ASCII characters,
    which Japanese spaces have too, on the other side; UTF-8 stands under any code.
    """
    code = next((code for code in _CODES if raw.startswith(code)), b"")
    text = raw.removeprefix(code)
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        return text.decode("utf-16", "replace")
    if code == b"UNICODE\0":
        big, little = (text.decode(f"utf-16-{order}", "replace") for order in ("be", "le"))
        high, low = text[::2].count(0), text[1::2].count(0)
        labelled = next((each for each in (big, little) if LABEL in each), None)
        if labelled is not None or high != low:
            return labelled or (big if high > low else little)
    return utf8_or_latin1(text)


def utf8_or_latin1(text: bytes) -> str:
    """Text of a program that writes UTF-8, or of one that keeps to Latin-1."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _jpeg_exif(data: bytes) -> Iterator[bytes]:
    """The Exif blocks of a JPEG: of its segments (ITU-T T.81, B.1.1.4) those before the scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fills
            at += 1
            continue
        if marker == 0xDA:  # the scan
            return
        length = int.from_bytes(data[at + 2 : at + 4])
        segment = data[at + 4 : at + 2 + length]
        if marker == 0xE1 and segment.startswith(_PREFIX):
            yield segment
        at += 2 + length


def _webp_exif(data: bytes) -> Iterator[bytes]:
    """The Exif blocks of a WebP: of its chunks, which have an even number of bytes."""
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            yield data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
