"""Bounds request bodies: each in size and time, all of them and their pictures in memory."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, nullcontext, suppress
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
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 300.0
"""Seconds for a body to arrive."""

DRAIN_SECONDS = 5.0
"""Seconds for which a refused body is still read and discarded: a client does not read the answer
while it sends."""

POLL_SECONDS = 0.25
"""How often to check for shutdown while waiting for a body."""

MOST_HELD = 2**30
"""Bytes of all bodies together and of the pictures decoded from them, counted until their requests
end: a picture to start from waits in the queue with its request."""

SMALL = 64 * 2**10
"""A body up to this size is always accepted: it costs no more than its connection, and requests
without an input picture are that small."""

MARK = "imagine_body"


class Held:
    """The bytes of one body, counted until its request ends.

    Args:
        guard: Counts the bytes of all bodies.
        encoding: Its Content-Encoding; empty for none.
    """

    def __init__(self, guard: BodyGuard, encoding: str) -> None:
        self._guard = guard
        self.encoding = encoding
        self._task: asyncio.Task[None] | None = None
        self.size = 0

    def add(self, size: int) -> None:
        """Count `size` more bytes; raises `Busy` if all bodies exceed their bound, unless alone."""
        self.size += size
        self._guard.held += size
        if self.size > SMALL and self._guard.held > max(self._guard.most, self.size):
            raise Busy("the pictures that others sent take all the room; try again later")

    @contextmanager
    def pictures(self, size: int) -> Iterator[None]:
        """Count decoded pictures of `size` bytes as well; raises as `add` does."""
        try:
            self.add(size)
            yield
        finally:
            self._guard.held -= size
            self.size -= size

    def release(self) -> None:
        """Stop counting when the request ends, or later when the task that keeps the body does."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.add_done_callback(lambda _: self.release())
            return
        self._guard.held -= self.size
        self.size = 0

    def keep(self, task: asyncio.Task[None]) -> None:
        """Count the body until `task` has ended as well."""
        self._task = task


def keep_body(scope: Scope, task: asyncio.Task[None]) -> None:
    """Count the body of a request until `task` ends, which continues without the client."""
    held = scope.get(MARK)
    if held is not None:
        held.keep(task)


def held_pictures(scope: Scope, size: int) -> AbstractContextManager[None]:
    """Count the decoded pictures of a request, of `size` bytes, with its body.

    Raises:
        Busy: They exceed the bound for all bodies.
    """
    held: Held | None = scope.get(MARK)
    return nullcontext() if held is None else held.pictures(size)


class BodyGuard:
    """Refuses a body that is too large, too slow, compressed, or beyond the bound for all bodies.

    Args:
        app: The application behind.
        limit: Bytes of one body.
        most: Bytes of all bodies and decoded pictures that are held at once.
        seconds: Time for one body to arrive.
        stopping: Whether the server stops; bodies that are still arriving are then refused.

    Attributes:
        held: The same now.
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
        """Call the application with a bounded body."""
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
            if complete:  # the next message is the disconnect
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
                async with asyncio.timeout_at(min(deadline, now() + POLL_SECONDS)):
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
    """The Content-Encoding of a body. None is unpacked, as a few bytes may hold gigabytes."""
    stated = ",".join(headers.getlist("content-encoding")).lower().split(",")
    return ", ".join(each.strip() for each in stated if each.strip() not in ("", "identity"))


async def _drain(receive: Receive) -> None:
    """Read and discard a body, for at most `DRAIN_SECONDS`."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        pass
