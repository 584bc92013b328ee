"""The guard of what clients send: each body is bounded in size and time, all of them in memory."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from imagine_core.errors import (
    BodyTooLarge,
    Busy,
    EncodedBody,
    ImagineError,
    MalformedBody,
    ShuttingDown,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 300.0
"""A body must have arrived after so long."""

DRAIN_SECONDS = 5.0
"""How long a body that is refused is still read (and thrown away): a client that is busy sending
does not read our answer."""

LOOK_SECONDS = 0.25
"""How often it is asked whether the server stops, while a body lets us wait."""

MOST_HELD = 512 * 2**20
"""Bytes of all bodies together that are held, from their first byte to the end of their request:
a picture to start from waits in the queue with its request."""

SMALL = 64 * 2**10
"""A body up to this size is let in although others take all the room: it is no larger than what a
connection costs anyway, and it is what asks for pictures without one to start from."""

MARK = "imagine_body"


class Held:
    """The bytes of one body, and for how long they count.

    Args:
        guard: Counts the bytes of all bodies.
        encoding: How this one is compressed; empty for not at all.
    """

    def __init__(self, guard: BodyGuard, encoding: str) -> None:
        self._guard = guard
        self.encoding = encoding
        self._task: asyncio.Task[None] | None = None
        self.size = 0

    def add(self, size: int) -> None:
        """So much more has arrived; raises `Busy` where there is no room for it."""
        self.size += size
        self._guard.held += size
        if self.size > SMALL and self._guard.held > self._guard.most:
            raise Busy("the pictures that others sent take all the room; try again later")

    def release(self) -> None:
        """The request has ended, and with it the body, unless work goes on with it."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.add_done_callback(lambda _: self.release())
            return
        self._guard.held -= self.size
        self.size = 0

    def keep(self, task: asyncio.Task[None]) -> None:
        """Let the body count until `task` has ended as well."""
        self._task = task


def keep_body(scope: Scope, task: asyncio.Task[None]) -> None:
    """Say that `task` goes on with the body of a request whose client has left."""
    held = scope.get(MARK)
    if held is not None:
        held.keep(task)


class BodyGuard:
    """Stops reading a body that is too large, too slow to arrive or compressed, or finds no room.

    Args:
        app: The application behind.
        limit: Bytes of one body.
        most: Bytes of all bodies that are held at once.
        seconds: How long one may take to arrive.
        stopping: Says whether the server stops; a body that is on its way then comes too late.

    Attributes:
        held: Bytes that are held now.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit: int,
        most: int = MOST_HELD,
        seconds: float = BODY_SECONDS,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.app, self.limit, self.seconds, self.stopping = app, limit, seconds, stopping
        self.most = max(most, limit)
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on a body that is bounded."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self.limit:
            await _drain(receive)
            raise BodyTooLarge(self.limit)
        held = scope[MARK] = Held(self, _encoding(headers))
        try:
            await self.app(scope, self._bounded(receive, held), send)
        finally:
            held.release()

    def _bounded(self, receive: Receive, held: Held) -> Receive:
        deadline = asyncio.get_running_loop().time() + self.seconds
        complete = False

        async def bounded() -> Message:
            nonlocal complete
            if complete:  # what comes now is the news that the client has gone
                return await receive()
            message = await self._next(receive, deadline)
            complete = not message.get("more_body", False)
            try:
                self._take(message, held)
            except ImagineError:
                if not complete:
                    await _drain(receive)
                raise
            return message

        return bounded

    async def _next(self, receive: Receive, deadline: float) -> Message:
        now = asyncio.get_running_loop().time
        while now() < deadline:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(deadline, now() + LOOK_SECONDS)):
                    return await receive()
            if self.stopping():
                raise ShuttingDown
        text = f"the request body did not arrive within {self.seconds:.0f} s"
        raise MalformedBody(text)

    def _take(self, message: Message, held: Held) -> None:
        size = len(message.get("body", b""))
        if size and held.encoding:
            raise EncodedBody(held.encoding)
        held.add(size)
        if held.size > self.limit:
            raise BodyTooLarge(self.limit)


def _encoding(headers: Headers) -> str:
    """What compresses a body; a few bytes may unpack to gigabytes, so that none is unpacked."""
    stated = ",".join(headers.getlist("content-encoding")).lower().split(",")
    return ", ".join(each.strip() for each in stated if each.strip() not in ("", "identity"))


async def _drain(receive: Receive) -> None:
    """Read a body to its end, or for as long as we care, and keep nothing of it."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        pass
