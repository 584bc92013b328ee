"""Downloads one file: goes on where it stopped, and ends with the right bytes or none."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from imagine_core.errors import ServerFailed
from imagine_plugins.pulling.web import Answer, Lost, Web, require_good, shown

T = TypeVar("T")

TRIES = 5
"""Times in a row that nothing comes before the download is given up."""

LONGEST_PAUSE = 30.0
BLOCK = 2**22
HEADER_LIMIT = 100_000_000
PREFIX = 8
FEW = 512
"""Bytes that are enough to see that a file is no model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file elsewhere.

    Attributes:
        url: Where it is.
        name: What it is called here, a path with slashes.
        size: Its bytes, where known.
        sha256: Its hash, where known.
    """

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None


class Watcher(Protocol):
    """Is told how a download goes."""

    def advance(self, size: int) -> None:
        """So many more bytes are there; fewer, if it has to start again."""

    def say(self, text: str) -> None:
        """Something that the user may want to know."""


class Downloader:
    """Downloads files.

    Args:
        web: Asks the servers.
        watcher: Is told how it goes.
        pause: Waits so many seconds between two tries.
    """

    def __init__(
        self, web: Web, watcher: Watcher, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._web = web
        self._watcher = watcher
        self._pause = pause

    def beginning(self, remote: Remote) -> tuple[bytes, int | None]:
        """The header of a safetensors file, or the first bytes of another; and the file's size."""
        return self._persist(lambda: self._beginning(remote), made=lambda: 0)

    def fetch(self, remote: Remote, target: Path) -> None:
        """Download to `target`, which is there in the end only if all of it is right.

        What an earlier try left beside it is used if it is of the same version.

        Raises:
            ServerFailed: It cannot be had, or is not what the server says it is.
            OSError: It cannot be written.
        """
        part = target.with_name(f"{target.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            self._watcher.advance(target.stat().st_size)
            return
        self._watcher.advance(_length(part))
        stated = self._persist(lambda: self._go_on(remote, part), made=lambda: _length(part))
        self._verify(stated, part)
        _etag_file(part).unlink(missing_ok=True)
        part.replace(target)

    def _persist(self, work: Callable[[], T], *, made: Callable[[], int]) -> T:
        """Do `work`, again and again for as long as each try brings something."""
        failures = 0
        while True:
            before = made()
            try:
                return work()
            except Lost as error:
                failures = 1 if made() > before else failures + 1
                if failures >= TRIES:
                    raise ServerFailed(_given_up(error, made=made()), lost=True) from error
                self._watcher.say(f"connection lost ({error}); trying again")
                self._pause(min(2.0 ** (failures - 1), LONGEST_PAUSE))

    def _beginning(self, remote: Remote) -> tuple[bytes, int | None]:
        with self._web.get(remote.url) as answer:
            require_good(answer.response)
            data = bytearray()
            for chunk in answer.response.iter_raw():
                data += chunk
                if len(data) >= _wanted(data):
                    break
            return bytes(data[: _wanted(data)]), answer.size

    def _go_on(self, remote: Remote, part: Path) -> Remote:
        """Fetch what is missing; what is known of the file by then."""
        have = _length(part)
        if remote.size is not None and have > remote.size:
            have = self._start_again(part)
        if have and have == remote.size and remote.sha256:
            return remote
        with self._web.get(remote.url, headers=_range(part, have, remote)) as answer:
            status = answer.response.status_code
            if status == 416 and answer.size == have:
                return _agreed(remote, answer)
            if status == 416 or (status == 206 and answer.first != have):
                self._start_again(part)
                raise Lost("the server has another version of the file")
            require_good(answer.response)
            stated = _agreed(remote, answer)
            if status == 200 and have:
                have = self._start_again(part)
            _remember_etag(part, answer)
            self._receive(answer, part, stated.size)
        if stated.size is not None and _length(part) < stated.size:
            raise Lost("the connection ended early")
        return stated

    def _receive(self, answer: Answer, part: Path, size: int | None) -> None:
        with part.open("ab") as file:
            try:
                for chunk in answer.response.iter_raw():
                    if size is not None and file.tell() + len(chunk) > size:
                        raise ServerFailed(
                            f"{shown(str(answer.response.url))} sends more than the {size:,} bytes "
                            "that it should have"
                        )
                    file.write(chunk)
                    self._watcher.advance(len(chunk))
            finally:
                file.flush()
                os.fsync(file.fileno())

    def _start_again(self, part: Path) -> int:
        self._watcher.advance(-_length(part))
        part.unlink(missing_ok=True)
        _etag_file(part).unlink(missing_ok=True)
        return 0

    def _verify(self, stated: Remote, part: Path) -> None:
        if stated.sha256 is None:
            return
        self._watcher.say(f"checking {stated.name}")
        found = sha256_of(part)
        if found != stated.sha256.lower():
            self._start_again(part)
            raise ServerFailed(
                f"{stated.name} came damaged: its sha256 is {found}, and should be "
                f"{stated.sha256}; it was deleted, try again"
            )


def _given_up(error: Lost, *, made: int) -> str:
    if made:
        return f"the download stopped ({error}); the same command goes on from there"
    return f"nothing came ({error}); try again later"


def sha256_of(path: Path) -> str:
    """The sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _agreed(remote: Remote, answer: Answer) -> Remote:
    """What is known of a file, if all who know something of it agree."""
    if remote.size is not None and answer.size not in (None, remote.size):
        raise ServerFailed(
            f"{shown(remote.url)} has {answer.size:,} bytes, and should have {remote.size:,}"
        )
    if remote.sha256 and answer.sha256 and remote.sha256.lower() != answer.sha256:
        raise ServerFailed(f"{shown(remote.url)} is not the file that was asked for")
    return replace(remote, size=remote.size or answer.size, sha256=remote.sha256 or answer.sha256)


def _range(part: Path, have: int, remote: Remote) -> dict[str, str]:
    """Ask for the rest where that is sure to be of the same version, or can be found out."""
    etag = None
    with suppress(OSError):
        etag = _etag_file(part).read_text("ascii")
    if not have or not (etag or remote.sha256):
        return {}
    headers = {"Range": f"bytes={have}-"}
    return {**headers, "If-Range": etag} if etag else headers


def _remember_etag(part: Path, answer: Answer) -> None:
    if answer.etag is not None:
        _etag_file(part).write_text(answer.etag, "ascii", "replace")
    else:
        _etag_file(part).unlink(missing_ok=True)


def _etag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _wanted(data: bytes | bytearray) -> int:
    """Bytes that say what a file is, as far as `data`, its beginning, tells."""
    if len(data) < PREFIX:
        return PREFIX
    length = int.from_bytes(data[:PREFIX], "little")
    return PREFIX + (length if length <= HEADER_LIMIT else FEW)
