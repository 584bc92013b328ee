"""Reads the header of a file of `torch.save`: which tensors it holds, and where their numbers lie.

The numbers are then read as those of a safetensors file, so that a pickle is never loaded.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from math import prod
from pathlib import Path
from typing import Any

from imagine_plugins.loaders.header import BITS, DIMENSION_LIMIT, RANK_LIMIT, Header, Tensor
from imagine_plugins.loaders.header import HeaderError as TorchFileError
from imagine_plugins.loaders.pickled import PickleError, Storage, StoredTensor, read_pickle

__all__ = [
    "TORCH_FILES",
    "TorchFileError",
    "read_torch_file",
]

TORCH_FILES = frozenset((".pth", ".pt"))
"""The endings of files that are read here."""

PICKLE_LIMIT = 4 * 2**20
"""Bytes of a description: that of a thousand tensors has a hundred thousand."""

DIRECTORY_LIMIT = 16 * 2**20
MOST_TENSORS = 100_000
NAMES_LIMIT = 8 * 2**20
"""Characters of all names together: a hundred for each of most tensors."""

DEEPEST = 3
ZIP = b"PK\x03\x04"
MAGIC = 0x1950A86A20F9469CFC6C
"""The first number of files from before torch 1.6, which are no zip archives."""

KINDS = {
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "DoubleStorage": "F64",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
"""The dtypes of a safetensors file by torch's names of storages."""

BROKEN = (
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)
"""What `zipfile` raises for archives that are damaged or unusual."""

BIG_ENDIAN = "its numbers are stored big-endian, as few machines have them; convert it"
DAMAGED = "the file is damaged; download it again"


def read_torch_file(path: Path) -> Header:
    """The tensors of `path`; those of a dictionary in it are called "params.conv_first.weight".

    Takes milliseconds, and bounded memory whatever the file says. Nothing that the file names is
    imported or called.

    Raises:
        TorchFileError: It is no whole file of `torch.save`.
    """
    try:
        if not path.is_file():  # opening a named pipe would wait for a writer
            raise TorchFileError("this is not a regular file")
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            found, places = _zipped(file) if file.read(4) == ZIP else _plain(file, size)
            tensors = {name: _tensor(name, each, places) for name, each in _named(found)}
    except (PickleError, *BROKEN) as error:
        is_pickle = isinstance(error, PickleError)
        detail = f" ({error})" if is_pickle else "; download it again"
        raise TorchFileError(f"it is no file of weights that can be read here{detail}") from error
    except OSError as error:
        raise TorchFileError(f"the file cannot be read: {error.strerror or error}") from error
    return Header(tensors=tensors, metadata={}, start=0, size=size)


# ---------------------------------------------------------------------------- the two containers


def _zipped(file: FileIO) -> tuple[Any, Mapping[str, tuple[int, int]]]:
    """What a zip archive of torch 1.6 or later holds, and where each storage begins and ends."""
    with zipfile.ZipFile(_Bounded(file)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        name = next((name for name in entries if name.endswith("/data.pkl")), None)
        if name is None:
            raise TorchFileError("it is a zip archive without weights of torch in it")
        root = name.removesuffix("data.pkl")
        order = entries.get(f"{root}byteorder")
        if order is not None and _content(file, order, limit=10) == b"big":
            raise TorchFileError(BIG_ENDIAN)
        found, _ = read_pickle(_content(file, entries[name], limit=PICKLE_LIMIT))
    places = {}
    for path, entry in entries.items():
        if path.startswith(f"{root}data/"):
            start = _start(file, entry)
            places[path.removeprefix(f"{root}data/")] = (start, start + entry.file_size)
    return found, places


class _Bounded:
    """A file for `zipfile`, which reads a directory as long as the archive says it is."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, count: int = -1) -> bytes:
        """At most `DIRECTORY_LIMIT` bytes."""
        if count > DIRECTORY_LIMIT:
            raise TorchFileError(DAMAGED)
        return self._file.read(DIRECTORY_LIMIT if count < 0 else count)

    def seekable(self) -> bool:
        """Whether `seek` works."""
        return True


def _start(file: FileIO, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry begin; torch pads them by a field of the entry's own header."""
    file.seek(entry.header_offset)
    header = file.read(30)
    if len(header) < 30 or not header.startswith(ZIP) or entry.flag_bits & 1:
        raise TorchFileError(DAMAGED)
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise TorchFileError("its weights are compressed; save it again with torch.save")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return entry.header_offset + 30 + lengths


def _content(file: FileIO, entry: zipfile.ZipInfo, *, limit: int) -> bytes:
    if entry.file_size > limit:
        raise TorchFileError("the description of its weights is far too large; it is damaged")
    file.seek(_start(file, entry))
    return file.read(entry.file_size)


def _plain(file: FileIO, size: int) -> tuple[Any, Mapping[str, tuple[int, int]]]:
    """What a file from before torch 1.6 holds, and where each storage begins and ends."""
    file.seek(0)
    data = file.read(PICKLE_LIMIT)
    magic, at = read_pickle(data)
    if magic != MAGIC:
        raise TorchFileError("it is a pickle, but not one of torch")
    _, at = read_pickle(data, at)  # the version
    system, at = read_pickle(data, at)
    if not isinstance(system, dict) or system.get("little_endian") is False:
        raise TorchFileError(BIG_ENDIAN)
    found, at = read_pickle(data, at)
    keys, at = read_pickle(data, at)
    storages = {each.storage.key: each.storage for _, each in _named(found)}
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise TorchFileError(DAMAGED)
    if not set(storages) <= set(keys):
        raise TorchFileError(DAMAGED)
    return found, dict(_in_order(file, keys, storages, at, size))


def _in_order(
    file: FileIO, keys: list[Any], storages: Mapping[str, Storage], at: int, size: int
) -> Iterator[tuple[str, tuple[int, int]]]:
    """Where storages lie that follow one another, each with its count before it."""
    wanted = set(storages)
    for key in keys:
        if not wanted:
            return
        storage = storages.get(key)
        if storage is None or storage.kind not in KINDS:
            raise TorchFileError("it holds more than weights; save them alone with torch.save")
        file.seek(at)
        length = storage.count * BITS[KINDS[storage.kind]] // 8
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise TorchFileError(DAMAGED)
        yield key, (at + 8, min(size, at + 8 + length))
        at += 8 + length
        wanted.discard(key)


# ---------------------------------------------------------------------------------- the tensors


def _named(found: object) -> Iterator[tuple[str, StoredTensor]]:
    """The tensors in dictionaries in dictionaries, each with the path to it."""
    return _within(found, "", 0, _Left())


@dataclass(slots=True)
class _Left:
    """What names may still take: a dictionary may be in many others, and its names with it."""

    tensors: int = MOST_TENSORS
    characters: int = NAMES_LIMIT

    def named(self, prefix: str, key: object) -> str:
        """The name of `key` in the dictionary called `prefix`."""
        name = str(key)
        self.tensors -= 1
        self.characters -= len(prefix) + len(name)
        if min(self.tensors, self.characters) < 0:
            raise TorchFileError(
                "it holds far more tensors, or far longer names, than a network has"
            )
        return prefix + name


def _within(
    found: object, prefix: str, depth: int, left: _Left
) -> Iterator[tuple[str, StoredTensor]]:
    if not isinstance(found, dict):
        return
    for key, value in found.items():
        name = left.named(prefix, key)
        if isinstance(value, StoredTensor):
            yield name, value
        elif depth < DEEPEST:
            yield from _within(value, f"{name}.", depth + 1, left)


def _tensor(name: str, stored: StoredTensor, places: Mapping[str, tuple[int, int]]) -> Tensor:
    dtype = KINDS.get(stored.storage.kind)
    if dtype is None:
        raise TorchFileError(f"tensor {name[:80]!r} has the unknown type {stored.storage.kind:.80}")
    shape = stored.shape
    sizes = (stored.offset, stored.storage.count, *shape)
    if len(shape) > RANK_LIMIT or not all(0 <= each <= DIMENSION_LIMIT for each in sizes):
        raise TorchFileError(DAMAGED)
    if stored.storage.is_view or not _in_a_row(shape, stored.stride):
        raise TorchFileError(
            f"tensor {name[:80]!r} is not stored in a row; save it again, made contiguous"
        )
    if stored.storage.key not in places:
        raise TorchFileError(f"the numbers of tensor {name[:80]!r} are missing; download it again")
    begin, stop = places[stored.storage.key]
    start = begin + stored.offset * BITS[dtype] // 8
    end = start + prod(shape) * BITS[dtype] // 8
    if end > stop:
        raise TorchFileError("the download is incomplete; download the file again")
    return Tensor(dtype, shape, start, end)


def _in_a_row(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether each number follows the one before, as rows of rows."""
    expected = 1
    if len(shape) != len(stride):
        return False
    for length, step in zip(reversed(shape), reversed(stride), strict=True):
        if length > 1 and step != expected:
            return False
        expected *= length
    return True
