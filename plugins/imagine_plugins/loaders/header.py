"""Reads the header of a safetensors file: what tensors it holds, and what it says of itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders.problems import ProblemError, explained

HEADER_LIMIT = 100_000_000  # the format's own limit
STRUCTURE_LIMIT = 2_000_000  # brackets, commas and escapes: what parsing costs time and memory for
RANK_LIMIT = 16
DIMENSION_LIMIT = 2**48
SPEC = "modelspec."
SHOWN_METADATA = 1000  # characters; thumbnails are larger

BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
}


def recognised(
    path: Path, *, kind: str, loader: str, look: Callable[[Path, str], ModelInfo | None]
) -> ModelInfo | None:
    """What `look` finds at `path` under its name; what keeps it from being used is its problem.

    None for hidden files and for broken safetensors files, of which the loader of checkpoints says
    what is wrong with them.
    """
    if path.name.startswith("."):
        return None
    name = path.name if path.is_dir() else path.stem
    try:
        with explained():
            return look(path, name)
    except ProblemError as error:
        is_file, is_safetensors = path.is_file(), path.suffix.lower() == ".safetensors"
        if isinstance(error, HeaderError) and is_file and is_safetensors:
            return None
        # Under its whole name, lest it hide the usable one of the same stem.
        shown = name if is_safetensors else path.name
        return replace(error.info(path, name=shown, loader=loader), kind=kind)


def first_tensor(header: Header) -> str:
    """What a file of no known layout begins with, as the end of a sentence."""
    first = next(iter(header.tensors), None)
    return " (it holds no tensors)" if first is None else f" (its first tensor is {first[:80]!r})"


class HeaderError(ProblemError):
    """The file is no complete safetensors file; the text says what it is and what to do."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, family="broken")


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies: `start` and `end` count bytes from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a safetensors file says before its first tensor.

    Attributes:
        tensors: The tensors by name, in the order of the file's header.
        metadata: The `__metadata__` map.
        start: Bytes before the first tensor.
        size: Bytes of the whole file.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    start: int
    size: int


def modelspec(header: Header) -> dict[str, str]:
    """The modelspec entries by their short names: title, author, licence, ..."""
    return {
        name.removeprefix(SPEC): text
        for name, text in header.metadata.items()
        if name.startswith(SPEC) and len(text) <= SHOWN_METADATA
    }


_last: tuple[tuple[Path, int, int, int, int], Header] | None = None


def read_header(path: Path) -> Header:
    """Read the header of `path`; raises `HeaderError` for any other file.

    Takes milliseconds, and memory for the header alone, whatever the file's first bytes claim. The
    last one is remembered: every loader asks for it in turn.
    """
    global _last  # noqa: PLW0603 - one header, for whichever loader is asked next
    try:
        if not path.is_file():  # opening a named pipe would wait for a writer
            raise HeaderError("this is not a regular file")
        with path.open("rb") as file:
            s = os.fstat(file.fileno())
            key = (path, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
            last = _last
            if last is None or last[0] != key:
                _last = last = (key, parse_header(file, s.st_size))
            return last[1]
    except OSError as error:
        raise HeaderError(f"the file cannot be read: {error.strerror or error}") from error


def parse_header(file: BinaryIO, size: int) -> Header:
    """Read the header of an open file of `size` bytes; raises `HeaderError` as `read_header`."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= length <= min(HEADER_LIMIT, size - 8):
        _explain(start + file.read(512), size, length)
    text = file.read(length)
    if len(text) < length:
        raise HeaderError("the file became shorter while it was read; copy it again")
    if not text.startswith(b"{"):
        _explain(start + text[:512], size, length)
    entries = _parse(text)
    metadata = _metadata(entries.pop("__metadata__", None))
    tensors = {name: _tensor(name, entry, 8 + length) for name, entry in entries.items()}
    _check_layout(tensors, 8 + length, size)
    return Header(tensors=tensors, metadata=metadata, start=8 + length, size=size)


def _explain(beginning: bytes, size: int, length: int) -> NoReturn:
    """Raise `HeaderError` with what the file is instead of a safetensors file."""
    text = beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if size == 0:
        raise HeaderError("the file is empty; download it again")
    if not beginning.strip(b"\0"):
        raise HeaderError(
            "the file holds only zeros, as an unfinished download does; download it again"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        raise HeaderError(
            "the file is a web page, not a model: the download needs a login or another address"
        )
    if text.startswith(b"version https://git-lfs"):
        raise HeaderError(
            "the file is a Git LFS pointer, not the model; fetch it with git lfs pull"
        )
    if beginning.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise HeaderError(
            "the file is a pickle under another name, and loading one runs whatever code it"
            " holds; convert it to safetensors"
        )
    if beginning.startswith(b"GGUF"):
        raise HeaderError("the file is a GGUF model under another name, which is not supported")
    if text.startswith((b'{"error', b"{")):
        raise HeaderError("the file is a JSON text, not a model; download it again")
    if 2 <= length <= HEADER_LIMIT and size > 8 and beginning[8:9] == b"{":
        raise HeaderError(
            f"the download is incomplete: the header alone has {length + 8:,} bytes, the file"
            f" {size:,}; download it again"
        )
    raise HeaderError("the file is not a safetensors file; download it again")


def _parse(text: bytes) -> dict[str, Any]:
    if sum(map(text.count, (b"{", b"[", b",", b"\\"))) > STRUCTURE_LIMIT:
        raise HeaderError("the header is far larger than a model's; the file is damaged")
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        reason = "it nests too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise HeaderError(f"the header is damaged ({reason}); download the file again") from error
    if not isinstance(entries, dict):
        raise HeaderError("the header is damaged (no JSON object); download the file again")
    return entries


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("it names a tensor twice")
    return entries


def _metadata(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise HeaderError("the header is damaged (its metadata is no map); download it again")
    return {key: text for key, text in value.items() if isinstance(text, str)}


def _tensor(name: str, entry: object, data: int) -> Tensor:
    """Check one entry of the header; `data` is where the tensors' bytes begin."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise HeaderError(f"the header is damaged (tensor {_short(name)}); download it again")
    if dtype not in BITS:
        raise HeaderError(f"tensor {_short(name)} has the unknown type {_short(dtype)}")
    if len(shape) > RANK_LIMIT or not all(_is_dimension(dim) for dim in shape):
        raise HeaderError(f"the header is damaged (shape of {_short(name)}); download it again")
    if (end - start) * 8 != prod(shape) * BITS[dtype]:
        raise HeaderError(f"the header is damaged (size of {_short(name)}); download it again")
    return Tensor(dtype, tuple(shape), data + start, data + end)


def _is_dimension(value: object) -> bool:
    return type(value) is int and 0 <= value <= DIMENSION_LIMIT


def _check_layout(tensors: Mapping[str, Tensor], data: int, size: int) -> None:
    """Require what the format does: tensors end to end, and the last one ends the file."""
    at = data
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != at:
            raise HeaderError("the header is damaged (tensors overlap or leave gaps)")
        at = tensor.end
    if size < at:
        raise HeaderError(
            f"the download is incomplete: {size:,} of {at:,} bytes; download the file again"
        )
    if size > at:
        raise HeaderError(f"the file has {size - at:,} bytes too many; download it again")


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
