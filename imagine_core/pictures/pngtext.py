"""Text chunks of PNG files, read and replaced without decoding the picture.

PNG (third edition, W3C 2025), sections 5 and 11.3.3: a signature, then chunks of length, type,
data and CRC. Pillow would do, but it takes as long to import as everything else that
`imagine info` does, and it cannot replace a text without compressing the picture again.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from typing import BinaryIO, NamedTuple

from imagine_core.errors import InvalidFile
from imagine_core.pictures.exif import utf8_or_latin1

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT = 64 * 2**20
"""Bytes of the largest text that is read: an input picture may be part of the metadata."""

_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_KEYWORD = 80  # bytes: at most 79 of the keyword, and the NUL that ends it


class _Chunk(NamedTuple):
    kind: bytes
    start: int  # offset of the chunk, which begins with its length
    data: int  # offset of its data
    length: int  # of its data

    @property
    def end(self) -> int:
        return self.data + self.length + 4


def is_png(start: bytes) -> bool:
    """Whether a file that begins with `start` is a PNG."""
    return start.startswith(SIGNATURE)


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG of ours, from its header (PNG, 3rd edition, 11.2.1)."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def read_texts(
    file: BinaryIO, keywords: Collection[str], *, most: int | None = None
) -> dict[str, str]:
    """The texts of `file` under `keywords`; of several with one keyword, the last.

    Nothing else of the file is held in memory. A text has at most `most` bytes; None is `MAX_TEXT`.

    Raises:
        InvalidFile: A wanted text is damaged or too large, or the file ends too early and holds
            none.
    """
    found: dict[str, str] = {}
    try:
        for chunk in _chunks(file):
            if chunk.kind in _TEXTS and (keyword := _keyword(file, chunk)) in keywords:
                found[keyword] = _text(file, chunk, keyword, most or MAX_TEXT)
    except _CutOff:
        if not found:
            raise
    return found


def read_exif(file: BinaryIO) -> bytes | None:
    """The Exif data of `file`, or None if it has none that is whole.

    Raises:
        InvalidFile: It is damaged, or the file ends too early and holds none.
    """
    for chunk in _chunks(file):
        if chunk.kind == b"eXIf" and chunk.length <= MAX_TEXT:
            file.seek(chunk.start)
            return _check(file.read(chunk.end - chunk.start))
    return None


def replace_texts(png: bytes, texts: Mapping[str, str]) -> bytes:
    """`png` with its texts under these keywords replaced; the pixels are unchanged.

    Raises:
        InvalidFile: It is not a whole PNG.
    """
    file = io.BytesIO(png)
    kept = [SIGNATURE]
    for index, chunk in enumerate(_chunks(file)):
        if not (chunk.kind in _TEXTS and _keyword(file, chunk) in texts):
            _check(png[chunk.start : chunk.end])
            kept.append(png[chunk.start : chunk.end])
        if index == 0:  # the header has to come first
            kept += [_text_chunk(keyword, text) for keyword, text in texts.items()]
    return b"".join(kept)


def kept_chunks(file: BinaryIO, kinds: Collection[bytes], *, exif: bytes = b"") -> bytes:
    """The PNG in `file` with its critical chunks, those of these kinds, and with this Exif data.

    Raises:
        InvalidFile: It is not a whole PNG.
    """
    kept = [SIGNATURE]
    for index, chunk in enumerate(_chunks(file)):
        if chunk.kind[:1].isupper() or chunk.kind in kinds:
            file.seek(chunk.start)
            kept.append(file.read(chunk.end - chunk.start))
        if index == 0 and exif:
            kept.append(_chunk(b"eXIf", exif))
    return b"".join(kept)


def check_png(png: bytes) -> None:
    """Raise `InvalidFile` unless `png` is a whole PNG with no damaged chunk."""
    replace_texts(png, {})


class _CutOff(InvalidFile):
    def __init__(self) -> None:
        super().__init__("the PNG is cut off: its end is missing")


def _chunks(file: BinaryIO) -> Iterator[_Chunk]:
    """The chunks of a PNG up to its end chunk, by position."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise InvalidFile("it is not a PNG")
    position, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        file.seek(position)
        head = file.read(8)
        length, kind = int.from_bytes(head[:4]), head[4:]
        chunk = _Chunk(kind, position, position + 8, length)
        if len(head) < 8 or chunk.end > size:
            raise _CutOff
        if position == len(SIGNATURE) and kind != b"IHDR":
            raise InvalidFile("the PNG is damaged: it does not begin with its header")
        yield chunk
        position = chunk.end


def _keyword(file: BinaryIO, chunk: _Chunk) -> str:
    file.seek(chunk.data)
    return file.read(min(chunk.length, _KEYWORD)).partition(b"\0")[0].decode("latin-1")


def _text(file: BinaryIO, chunk: _Chunk, keyword: str, most: int) -> str:
    if chunk.length > most:
        raise _too_large(keyword, most)
    file.seek(chunk.start)
    data = _check(file.read(chunk.end - chunk.start))
    try:
        return _decode(chunk.kind, data, keyword, most)
    except (ValueError, zlib.error) as error:
        raise InvalidFile(f"the PNG is damaged: its text {keyword!r} cannot be read") from error


def _decode(kind: bytes, data: bytes, keyword: str, most: int) -> str:
    rest = data[data.index(b"\0") + 1 :]
    if kind == b"tEXt":
        return utf8_or_latin1(rest)
    if kind == b"zTXt":
        return utf8_or_latin1(_inflate(rest[1:], keyword, most))
    compressed, method = rest[0:1], rest[1:2]
    _language, _translated, text = rest[2:].split(b"\0", 2)
    if compressed == b"\1" and method == b"\0":
        text = _inflate(text, keyword, most)
    return text.decode("utf-8")


def _inflate(data: bytes, keyword: str, most: int) -> bytes:
    """Decompress up to the bound: a text of a few kB can claim gigabytes."""
    inflater = zlib.decompressobj()
    text = inflater.decompress(data, most)
    if inflater.unconsumed_tail:
        raise _too_large(keyword, most)
    if not inflater.eof:
        raise ValueError
    return text


def _too_large(keyword: str, most: int) -> InvalidFile:
    return InvalidFile(f"the text {keyword!r} of the PNG is too large: over {most:,} bytes")


def _check(chunk: bytes) -> bytes:
    """The data of a whole chunk; raises `InvalidFile` if its checksum is wrong."""
    if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
        kind = chunk[4:8].decode("latin-1")
        raise InvalidFile(f"the PNG is damaged: the checksum of its part {kind!r} is wrong")
    return chunk[8:-4]


def _text_chunk(keyword: str, text: str) -> bytes:
    """The chunk of a text: in Latin-1 where it is read back alike, else in UTF-8."""
    key = keyword.encode("latin-1")
    text = text.replace("\0", " ")  # NUL would end it
    latin1 = text.encode("latin-1", "replace")
    if utf8_or_latin1(latin1) == text:
        return _chunk(b"tEXt", key + b"\0" + latin1)
    return _chunk(b"iTXt", key + b"\0\0\0\0\0" + text.encode("utf-8", "replace"))


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return len(data).to_bytes(4) + kind + data + checksum.to_bytes(4)
