"""Puts a launcher and a tree into one executable: `python pack.py LAUNCHER TREE FILE [LEVEL]`.

The file is the launcher, a zstd stream and a footer. The stream is one record for each entry of
the tree, folders first: a letter (d, f, x for a file that can be run, l for a link, e for the end),
the lengths of its path and of its content, and both. launcher.c reads this format.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

MAGIC = b"IMAGINE1"
RECORD = struct.Struct("<cHQ")
FOOTER = struct.Struct("<8sQQQ64s")
CHUNK = 2**20


class Sink(Protocol):
    """Takes bytes."""

    def write(self, data: bytes, /) -> object:
        """Take some."""


class Counted:
    """Writes to a compressor, and knows the size and the hash of what it wrote."""

    def __init__(self, target: Sink) -> None:
        self.size, self.hash, self._target = 0, hashlib.sha256(), target

    def write(self, data: bytes) -> None:
        """Write `data`."""
        self.size += len(data)
        self.hash.update(data)
        self._target.write(data)


def pack(launcher: Path, tree: Path, file: BinaryIO, *, level: int) -> str:
    """Write the executable to `file`; the name of the tree in caches."""
    offset = file.write(launcher.read_bytes())
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, threads=-1)
    with compressor.stream_writer(file, closefd=False) as stream:
        counted = Counted(stream)
        for path in entries(tree):
            write_entry(counted, path, path.relative_to(tree))
        counted.write(RECORD.pack(b"e", 0, 0))
    packed = file.tell() - offset
    name = counted.hash.hexdigest()
    file.write(FOOTER.pack(MAGIC, offset, packed, counted.size, name.encode()))
    return name


def entries(tree: Path) -> Iterator[Path]:
    """Everything in `tree`, in an order that is the same each time; folders before what they hold.

    Files of one kind side by side pack better.
    """
    folders, files = [], []
    for folder, inner, names in os.walk(tree):
        here = Path(folder)
        links = [name for name in inner if (here / name).is_symlink()]
        folders += [here / name for name in inner if name not in links]
        files += [here / name for name in (*names, *links)]
    yield from sorted(folders)
    yield from sorted(files, key=lambda path: (path.suffix, path))


def write_entry(stream: Counted, path: Path, name: Path) -> None:
    """Write the record of one entry."""
    encoded = os.fsencode(name)
    if path.is_symlink():
        target = os.fsencode(path.readlink())
        stream.write(RECORD.pack(b"l", len(encoded), len(target)) + encoded + target)
    elif path.is_dir():
        stream.write(RECORD.pack(b"d", len(encoded), 0) + encoded)
    else:
        status = path.stat()
        kind = b"x" if status.st_mode & 0o100 else b"f"
        stream.write(RECORD.pack(kind, len(encoded), status.st_size) + encoded)
        with path.open("rb") as content:
            while block := content.read(CHUNK):
                stream.write(block)


def main(launcher: str, tree: str, target: str, level: str = "12") -> None:
    """Pack, and say what came of it."""
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".part")
    with new.open("wb") as file:
        name = pack(Path(launcher), Path(tree), file, level=int(level))
    new.chmod(0o755)
    new.replace(path)
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB, tree {name[:12]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
