"""Downloads one file: resumes it, verifies it, and leaves the right bytes or none."""

from __future__ import annotations

import hashlib
import http
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from imagine_core.errors import ServerFailed
from imagine_plugins.loaders.header import HEADER_LIMIT
from imagine_plugins.pulling.retries import Lost, Retries
from imagine_plugins.pulling.web import Response, Web, require_good, shown

RANGE_NOT_SATISFIABLE = http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
BLOCK = 2**22
PREFIX = 8
FEW = 512
"""Bytes that suffice to see that a file is no model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file on a server.

    Attributes:
        url: Its address.
        name: Its local name, a path with slashes.
        size: Bytes of the file, if known.
        sha256: Hash of the file, if known.
    """

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None


class Watcher(Protocol):
    """Follows a download."""

    def advance(self, size: int) -> None:
        """Count `size` more bytes; negative if a download starts again."""

    def say(self, text: str) -> None:
        """Show `text` to the user."""


class Downloader:
    """Downloads files.

    Args:
        web: Sends the requests.
        watcher: Follows the downloads.
        pause: Waits for a number of seconds between two attempts.
    """

    def __init__(
        self, web: Web, watcher: Watcher, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._web = web
        self._watcher = watcher
        self._retries = Retries(watcher.say, pause=pause)

    def beginning(self, remote: Remote) -> tuple[bytes, int | None]:
        """The header of a safetensors file, or the first bytes of another; and the file's size."""
        return self._retries.run(lambda: self._beginning(remote))

    def fetch(self, remote: Remote, target: Path) -> None:
        """Download to `target`, which exists afterwards only if the file is complete and right.

        A part that an earlier attempt left beside it is resumed if it is of the same version.

        Raises:
            ServerFailed: The file cannot be fetched, or contradicts what the server states.
            OSError: The file cannot be written.
        """
        part = target.with_name(f"{target.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            self._watcher.advance(target.stat().st_size)
            return
        self._watcher.advance(_length(part))
        stated = self._retries.run(
            lambda: self._fetch_rest(remote, part), arrived=lambda: _length(part)
        )
        self._verify(stated, part)
        _validator_file(part).unlink(missing_ok=True)
        part.replace(target)

    def _beginning(self, remote: Remote) -> tuple[bytes, int | None]:
        with self._web.get(remote.url) as answer:
            require_good(answer.response)
            data = bytearray()
            for chunk in answer.response.iter_bytes():
                data += chunk
                if len(data) >= _wanted(data):
                    break
            return bytes(data[: _wanted(data)]), answer.size

    def _fetch_rest(self, remote: Remote, part: Path) -> Remote:
        """Fetch the missing bytes; returns `remote` with all facts that the server stated."""
        stated = self._request(remote, part)
        while stated.size is not None and _length(part) < stated.size:
            before = _length(part)  # some servers bound the length of a range
            stated = self._request(stated, part)
            if _length(part) <= before:
                raise Lost("the server sends no more of the file")
        return stated

    def _request(self, remote: Remote, part: Path) -> Remote:
        """Ask once for the missing bytes, and append the answer to `part`."""
        have = _length(part)
        if remote.size is not None and have > remote.size:
            have = self._cut(part, 0)
        if have and have == remote.size and remote.sha256:
            return remote
        with self._web.get(remote.url, headers=_range(part, have, remote)) as answer:
            beyond = have > 0 and answer.response.status_code == RANGE_NOT_SATISFIABLE
            if not beyond:
                require_good(answer.response)
            first = have if beyond and answer.size == have else answer.span[0]
            if not _continues(answer, first, remote, part):
                self._cut(part, 0)
                raise Lost("the server has another version of the file, or sends another part")
            stated = _agreed(remote, answer)
            if beyond:
                return stated
            self._cut(part, first or 0)
            if answer.validator is not None:
                _validator_file(part).write_text(answer.validator, "ascii", "replace")
            self._receive(answer, part, stated.size)
        if _length(part) < (answer.span[1] or stated.size or 0):
            raise Lost("the connection ended early")
        return stated

    def _receive(self, answer: Response, part: Path, size: int | None) -> None:
        with part.open("ab") as file:
            resumed = file.tell() > 0
            try:
                for chunk in answer.response.iter_bytes():
                    if size is not None and file.tell() + len(chunk) > size:
                        break
                    file.write(chunk)
                    self._watcher.advance(len(chunk))
                else:
                    return
            finally:
                file.flush()
                os.fsync(file.fileno())
        self._cut(part, 0)
        if resumed:
            raise Lost("the server sends another part of the file than it says")
        raise ServerFailed(
            f"{shown(str(answer.response.url))} sends more than the {size:,} bytes "
            "that it should have"
        )

    def _cut(self, part: Path, length: int) -> int:
        """Keep only the first `length` bytes of `part`; returns `length`."""
        self._watcher.advance(length - _length(part))
        if length:
            os.truncate(part, length)
        else:
            part.unlink(missing_ok=True)
            _validator_file(part).unlink(missing_ok=True)
        return length

    def _verify(self, stated: Remote, part: Path) -> None:
        if stated.sha256 is None:
            return
        self._watcher.say(f"checking {stated.name}")
        found = sha256_of(part)
        if found != stated.sha256.lower():
            self._cut(part, 0)
            raise ServerFailed(
                f"{stated.name} came damaged: its sha256 is {found}, and should be "
                f"{stated.sha256}; it was deleted, try again"
            )


def sha256_of(path: Path) -> str:
    """The sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _agreed(remote: Remote, answer: Response) -> Remote:
    """`remote` with the facts of `answer`; raises `ServerFailed` if they contradict each other."""
    if remote.size is not None and answer.size not in (None, remote.size):
        raise ServerFailed(
            f"{shown(remote.url)} has {answer.size:,} bytes, and should have {remote.size:,}"
        )
    if remote.sha256 and answer.sha256 and remote.sha256.lower() != answer.sha256:
        raise ServerFailed(f"{shown(remote.url)} is not the file that was asked for")
    size = answer.size if remote.size is None else remote.size
    return replace(remote, size=size, sha256=remote.sha256 or answer.sha256)


def _continues(answer: Response, first: int | None, remote: Remote, part: Path) -> bool:
    """Whether a body that begins at byte `first` of the file can be joined to `part`."""
    have, known, stated = _length(part), _validator(part), answer.validator
    if first is None or first > have:
        return False
    other_version = first > 0 and None not in (known, stated) and known != stated
    other_size = have > 0 and None not in (remote.size, answer.size) and remote.size != answer.size
    return not (other_version or other_size)


def _range(part: Path, have: int, remote: Remote) -> dict[str, str]:
    """A Range header, if If-Range or the hash guards against another version; else none."""
    validator = _validator(part)
    if not have or not (validator or remote.sha256):
        return {}
    headers = {"Range": f"bytes={have}-"}
    return {**headers, "If-Range": validator} if validator else headers


def _validator(part: Path) -> str | None:
    try:
        return _validator_file(part).read_text("ascii")
    except OSError:
        return None


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.validator")


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _wanted(data: bytes | bytearray) -> int:
    """The length of the header of a file that begins with `data`, as far as `data` tells."""
    if len(data) < PREFIX:
        return PREFIX
    length = int.from_bytes(data[:PREFIX], "little")
    return PREFIX + (length if length <= HEADER_LIMIT else FEW)
