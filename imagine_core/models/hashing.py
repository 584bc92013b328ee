"""A checkpoint's sha256, computed in the background and remembered on disk."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

__all__ = [
    "FileHash",
    "file_hash",
    "known_hash",
]

BLOCK = 2**22
REMEMBERED = 1000
SHOWN_DIGITS = 10


def cache_file() -> Path:
    """Where hashes are remembered."""
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("imagine")) / "hashes.json"


class FileHash:
    """The first digits of a file's sha256: `value` is None until they are known.

    Args:
        path: The file.
        cache: Where hashes are remembered by path, size and time of change.
    """

    def __init__(self, path: Path, *, cache: Path | None = None) -> None:
        self._path = path
        self._cache = cache_file() if cache is None else cache
        self._stopped = threading.Event()
        self.value: str | None = None
        self._thread = threading.Thread(target=self._run, name="imagine-hash", daemon=True)

    def start(self) -> FileHash:
        """Begin in the background."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Give up; returns at once."""
        self._stopped.set()

    def wait(self, timeout: float | None = None) -> str | None:
        """The value, after waiting for it."""
        self._thread.join(timeout)
        return self.value

    def _run(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own: pictures come first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        with suppress(OSError):  # a file that was deleted has no hash
            key = _identity(self._path)
            known = _remembered(self._cache).get(key)
            self.value = known or self._compute(key)

    def _compute(self, key: str) -> str | None:
        digest = hashlib.sha256()
        with self._path.open("rb") as file:
            while block := file.read(BLOCK):
                if self._stopped.is_set():
                    return None
                digest.update(block)
        if _identity(self._path) != key:  # replaced while it was read
            return None
        value = digest.hexdigest()[:SHOWN_DIGITS]
        _remember(self._cache, key, value)
        return value


def file_hash(path: Path) -> str | None:
    """The first digits of the sha256 of the file at `path`, waited for; None for a folder."""
    return FileHash(path).start().wait() if path.is_file() else None


def known_hash(path: Path) -> str | None:
    """`file_hash` where it is remembered; None otherwise, at once."""
    with suppress(OSError):
        return _remembered(cache_file()).get(_identity(path)) if path.is_file() else None
    return None


def _identity(path: Path) -> str:
    status = path.stat()
    times = f"{status.st_mtime_ns}|{status.st_ctime_ns}"  # tools can keep the one, not the other
    return f"{path.resolve()}|{status.st_ino}|{status.st_size}|{times}"


def _remembered(cache: Path) -> dict[str, str]:
    try:
        entries = json.loads(cache.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {key: value for key, value in entries.items() if isinstance(value, str)}


def _remember(cache: Path, key: str, value: str) -> None:
    """Add to the cache file."""
    entries = {**_remembered(cache), key: value}
    save_json(cache, dict(list(entries.items())[-REMEMBERED:]))


def save_json(file: Path, value: object) -> None:
    """Write a cache file atomically; one that cannot be written is done without."""
    text = json.dumps(value)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem}-")
        with os.fdopen(handle, "w", encoding="utf-8") as written:
            written.write(text)
        Path(name).replace(file)
