"""Writes files whole or not at all, and reads them within bounds."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from imagine_core.errors import InvalidFile

__all__ = [
    "check_writable",
    "is_outlet",
    "read_all",
    "reading",
    "write_file",
]

NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EACCES, errno.EMLINK}
"""Errors of file systems without hard links (FAT, some network and Android file systems)."""

NO_UNNAMED = NO_LINKS | {errno.EISDIR, errno.ENOENT, errno.EXDEV}
"""Errors of file systems and kernels without unnamed files, and of systems without /proc."""


def write_file(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write `data` to `path`, which shows either the old content or all of the new.

    Args:
        path: Where to; a symbolic link is followed. Pipes and devices get `data` as they are.
        data: All of the content.
        replace: Whether to replace an existing file; else `FileExistsError` is raised,
            even where another process takes the name at the same moment.

    Raises:
        OSError: It cannot be written; the error names `path`, and nothing is left beside it.
    """
    if is_outlet(path):
        with _naming(path):
            path.write_bytes(data)
        return
    target = Path(os.path.realpath(path))
    with _naming(path), _temporary(target) as temporary:
        _write(temporary, data)
        if replace:
            temporary.replace(target)
        else:
            _claim(temporary, target)


def is_outlet(path: Path) -> bool:
    """Whether `path` is a pipe or a device such as /dev/null: written to, never replaced.

    Disks are devices of another kind, which must not be written over.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def check_writable(place: Path) -> None:
    """Raise `OSError` if no file can be made in `place`: before the work, not after it.

    A folder is probed with a file, since permission bits say nothing of read-only file systems.
    Pipes and devices are not, since their reader would get the probe.
    """
    with _naming(place):
        if is_outlet(place):
            if not os.access(place, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        else:
            _probe(place)


def _probe(folder: Path) -> None:
    with _temporary(folder / "probe") as temporary:
        _write(temporary, b"")


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """`path`, open; every `InvalidFile`, from opening it or from the block, names it."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InvalidFile(f"{path}: cannot be read: {error.strerror or error}") from error
    except InvalidFile as error:
        raise InvalidFile(f"{path}: {error}") from error


def read_all(file: BinaryIO, *, limit: int) -> bytes:
    """The rest of `file`; raises `InvalidFile` where that is more than `limit` bytes."""
    data = file.read(limit + 1)
    if len(data) > limit:
        raise InvalidFile(f"it is too large: more than {limit // 2**20:,} MiB")
    return data


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A hidden name beside `target`, on the same file system; gone at the end of the block."""
    # Short, so that a file with the longest possible name still has a temporary one.
    temporary = target.with_name(f".imagine-{os.urandom(6).hex()}.part")
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink()


def _write(path: Path, data: bytes) -> None:
    """Make a file; where the system can, it has no name before it is whole, even in a crash."""
    if hasattr(os, "O_TMPFILE"):
        try:
            with _open(path.parent, os.O_TMPFILE) as file:
                _fill(file, data)
                # Following the link in /proc needs linkat(2), which Python calls only where a
                # folder is given; the path is absolute, so any will do.
                os.link(f"/proc/self/fd/{file.fileno()}", path, src_dir_fd=file.fileno())
        except OSError as error:
            if error.errno not in NO_UNNAMED:
                raise
        else:
            return
    with _open(path, os.O_CREAT | os.O_EXCL) as file:
        _fill(file, data)


def _open(path: Path, flags: int) -> BinaryIO:
    # Not `tempfile`: its files are private, and a picture has the permissions of the umask.
    return os.fdopen(os.open(path, os.O_WRONLY | flags | getattr(os, "O_BINARY", 0), 0o666), "wb")


def _fill(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _claim(temporary: Path, target: Path) -> None:
    """Give the file its name unless that is taken: a link, unlike a rename, never replaces."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        target.touch(exist_ok=False)
        temporary.replace(target)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make errors name the user's file, not the temporary one."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot be written: {reason}", str(path)) from error
