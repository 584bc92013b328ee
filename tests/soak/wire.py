"""A plain HTTP/1.1 client that can leave at any moment, and records the time."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

LONGEST_LINE = 2**24


class Connection:
    """A connection to a server, used for one request after the other.

    Attributes:
        status, headers: Of the last reply.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._address = (parts.hostname, parts.port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.status = 0
        self.headers: dict[str, str] = {}

    async def send(self, method: str, path: str, body: object = None, *, part: float = 1) -> None:
        """Send a request, or the first `part` of it."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address, limit=LONGEST_LINE)
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        whole = head.encode() + data
        writer = self._streams[1]
        writer.write(whole[: int(len(whole) * part)])
        await writer.drain()

    async def lines(self) -> AsyncIterator[Any]:
        """The JSON values of the reply, each as it comes."""
        await self._read_head()
        rest = b""
        async for part in self._parts():
            *whole, rest = (rest + part).split(b"\n")
            for line in filter(None, whole):  # blank ones keep a connection alive
                yield json.loads(line)
        assert not rest, "the last line has no end"
        if self.headers.get("connection") == "close":
            self.leave()

    async def ask(self, method: str, path: str) -> Any:
        """The one value of a reply."""
        await self.send(method, path)
        values = [value async for value in self.lines()]
        return values[0]

    def leave(self) -> float:
        """Close at once, and say when that was."""
        if self._streams is not None:
            _, writer = self._streams
            with suppress(OSError):  # the transport closes its socket some time later; this is now
                writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            writer.transport.abort()
            self._streams = None
        return time.monotonic()

    @property
    def _reader(self) -> asyncio.StreamReader:
        assert self._streams is not None
        return self._streams[0]

    async def _read_head(self) -> None:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *others = head.strip().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in others)
        }

    async def _parts(self) -> AsyncIterator[bytes]:
        if "content-length" in self.headers:
            yield await self._reader.readexactly(int(self.headers["content-length"]))
            return
        while size := int(await self._reader.readline(), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
