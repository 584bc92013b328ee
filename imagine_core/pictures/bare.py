"""Takes out of encoded pictures what says nothing of their pixels, without decoding them."""

from __future__ import annotations

import re
from io import BytesIO

from imagine_core.errors import InvalidFile
from imagine_core.pictures.exif import exif_block, is_jpeg, is_webp
from imagine_core.pictures.images import orientation
from imagine_core.pictures.pngtext import is_png, kept_chunks

PNG_KEPT = frozenset(
    (b"tRNS", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"acTL", b"fcTL", b"fdAT")
)
"""Chunks beside the critical ones that pixels depend on."""

JPEG_KEPT = ((0xE0, b"JFIF\0"), (0xE2, b"ICC_PROFILE\0"), (0xEE, b"Adobe"))
"""Application segments that pixels depend on, and how they begin."""

COMMENT, SCAN, END = 0xFE, 0xDA, 0xD9
AFTER_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker behind entropy-coded data, in which a byte FF is followed by 00 or a restart."""

WEBP_DROPPED = (b"EXIF", b"XMP ")
WEBP_EXIF, WEBP_XMP = 0x08, 0x04  # flags of the extended header


def bare(data: bytes) -> bytes:
    """The PNG, JPEG or WebP in `data` without comments and other metadata.

    Its pixels are the same: what turns it upright and its colour profile stay. What is broken, or
    of another format, comes back as it is.
    """
    if is_png(data):
        strip = _bare_png
    elif is_jpeg(data):
        strip = _bare_jpeg
    elif is_webp(data):
        strip = _bare_webp
    else:
        return data
    try:
        found = strip(data, b"")
        if len(found) == len(data):
            return data
        turn = orientation(data)
        return found if turn == 1 else strip(data, exif_block(turn))
    except (InvalidFile, IndexError):
        return data


def _bare_png(data: bytes, exif: bytes) -> bytes:
    return kept_chunks(BytesIO(data), PNG_KEPT, exif=exif)


def _bare_jpeg(data: bytes, exif: bytes) -> bytes:
    """ITU-T T.81, B.1.1: markers and segments up to the first end of image."""
    kept = [data[:2]]
    if exif:
        segment = b"Exif\0\0" + exif
        kept.append(b"\xff\xe1" + (len(segment) + 2).to_bytes(2) + segment)
    at = 2
    while (marker := data[at + 1]) != END:
        if data[at] != 0xFF:
            raise InvalidFile("the JPEG is damaged: a marker is missing")
        if marker == 0xFF:  # fills
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == SCAN:
            following = AFTER_SCAN.search(data, end)
            if following is None:
                raise InvalidFile("the JPEG is cut off")
            end = following.start()
        if _is_kept(marker, data[at + 4 : end]):
            kept.append(data[at:end])
        at = end
    return b"".join((*kept, data[at : at + 2]))


def _is_kept(marker: int, content: bytes) -> bool:
    if 0xE0 <= marker <= 0xEF:
        return any(marker == kind and content.startswith(head) for kind, head in JPEG_KEPT)
    return marker != COMMENT


def _bare_webp(data: bytes, exif: bytes) -> bytes:
    """RIFF: chunks of a name, a length and data, padded to an even number of bytes."""
    kept = []
    at, whole = 12, 8 + int.from_bytes(data[4:8], "little")
    if whole > len(data):
        raise InvalidFile("the WebP is cut off")
    while at + 8 <= whole:
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        chunk = data[at : at + 8 + length + length % 2]
        if name == b"VP8X":
            flags = chunk[8] & ~(WEBP_EXIF | WEBP_XMP) | (WEBP_EXIF if exif else 0)
            chunk = chunk[:8] + bytes([flags]) + chunk[9:]
        if name not in WEBP_DROPPED:
            kept.append(chunk)
        at += 8 + length + length % 2
    if exif:
        kept.append(b"EXIF" + len(exif).to_bytes(4, "little") + exif + b"\0" * (len(exif) % 2))
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + len(body).to_bytes(4, "little") + body
