"""Answers one request: sends the answer as it is made, and stops when the client disconnects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imagine_core.web.app import fail_with_json
from imagine_core.web.bodies import held_pictures, keep_body
from imagine_core.web.refusals import log_refusal

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from starlette.types import Message, Receive, Scope, Send

    from imagine_core.web.dialect import Framing

__all__ = [
    "Exchange",
    "Output",
]

log = logging.getLogger("imagine")

STALL_SECONDS = 120.0
"""Seconds without progress until a client that reads nothing is dropped."""

PIECE = 2**18
"""Bytes per message: the server buffers a whole message before it waits for the client."""

Header = tuple[bytes, bytes]


class Exchange:
    """An ASGI application that answers one request, and ends its work when the client disconnects.

    Errors before the first byte are raised, so that the application decides the status; later ones
    are sent as the last message.

    Args:
        framing: How a stream goes over the wire; None for a single JSON object.
        heartbeat: Seconds after which a silent stream sends something; 0 for never.
        headers: Further headers of the response.

    Attributes:
        behind: Holds the work if it continues without the client, since asyncio holds tasks only
            weakly; None if it ends with the client.
        logged: Whether another part of the program logs how the request ends.
    """

    behind: set[asyncio.Task[None]] | None = None
    logged = False

    def __init__(
        self, *, framing: Framing | None, heartbeat: float = 0.0, headers: Sequence[Header] = ()
    ) -> None:
        self._framing = framing
        self._heartbeat = heartbeat
        self._headers = headers
        self._scope: Scope = {}

    async def work(self, out: Output) -> None:
        """Do the work, and send the answer."""
        raise NotImplementedError

    def leave_behind(self, *, begun: bool) -> bool:
        """Whether the work continues without its client; `begun`: the answer had begun."""
        del begun
        return True

    def last_words(self, error: Exception) -> bytes:
        """The message that ends a stream with `error`."""
        return fail_with_json(error)[1]

    def holding(self, size: int) -> AbstractContextManager[None]:
        """Count decoded pictures of `size` bytes with the body; raises `Busy` beyond the bound."""
        return held_pictures(self._scope, size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        self._scope = scope
        out = Output(send, framing=self._framing, headers=self._headers)
        work = asyncio.create_task(self._answer(out, scope))
        left = asyncio.create_task(out.left.wait())
        beside: list[asyncio.Task[Any]] = [left, asyncio.create_task(_watch(receive, out))]
        if self._framing is not None and self._heartbeat > 0:
            beside.append(asyncio.create_task(out.beat(self._framing.heartbeat, self._heartbeat)))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if out.complete:  # servers report this as a disconnect too
                await work
        finally:
            out.left.set()
            for task in beside:
                await _cancel(task)
            await self._end(work, scope, begun=out.started)

    async def _end(self, work: asyncio.Task[None], scope: Scope, *, begun: bool) -> None:
        """Detach or cancel the work once the client is served or gone."""
        if not work.done() and self.behind is not None and self.leave_behind(begun=begun):
            self.behind.add(work)
            keep_body(scope, work)
            work.add_done_callback(self.behind.discard)
            return
        if not work.done() and not self.logged:
            log.info("a client left: its request is given up")
        await _cancel(work)
        if not work.cancelled():
            work.result()

    async def _answer(self, out: Output, scope: Scope) -> None:
        try:
            await self.work(out)
        except Exception as error:
            scope["imagine_logged"] = self.logged or getattr(error, "observed", False)
            if out.left.is_set():
                return
            if not out.started:
                raise
            log_refusal(scope, error)
            await out.send(self.last_words(error), last=True)


@dataclass(slots=True)
class Output:
    """Sends one JSON object, or the messages of a stream.

    Attributes:
        left: Set when the client is gone; later messages are dropped.
    """

    _send: Send
    framing: Framing | None
    headers: Sequence[Header] = ()
    started: bool = False
    complete: bool = False
    left: asyncio.Event = field(default_factory=asyncio.Event)
    _sent_at: float = 0.0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def send(self, message: bytes, *, last: bool) -> None:
        """Send a message; the head of the response goes before the first."""
        async with self._turn:
            if not self.left.is_set() and not self.complete:
                await self._send_whole(message, last=last)

    async def beat(self, heartbeat: bytes, seconds: float) -> None:
        """Send `heartbeat` whenever nothing else was sent for so many seconds."""
        now = asyncio.get_running_loop().time
        self._sent_at = now()
        while not self.complete:
            wait = self._sent_at + seconds - now()
            if wait <= 0:
                await self.send(heartbeat, last=False)
            else:
                await asyncio.sleep(wait)

    async def _send_whole(self, message: bytes, *, last: bool) -> None:
        try:
            if not self.started:
                self.started = True
                await self._send_in_time(self._head(message))
            for start in range(0, len(message), PIECE):
                more = not last or start + PIECE < len(message)
                piece = message[start : start + PIECE]
                body = {"type": "http.response.body", "body": piece, "more_body": more}
                await self._send_in_time(body)
        except TimeoutError:
            log.warning("a client stopped reading: it is given up")
            self.left.set()
        else:
            self.complete = last
        self._sent_at = asyncio.get_running_loop().time()

    async def _send_in_time(self, message: Message) -> None:
        async with asyncio.timeout(STALL_SECONDS):
            await self._send(message)

    def _head(self, first: bytes) -> dict[str, Any]:
        headers = [(b"cache-control", b"no-store"), *self.headers]
        if self.framing is not None:
            headers.append((b"content-type", self.framing.media_type.encode()))
            headers.append((b"x-accel-buffering", b"no"))  # nginx would hold the stream back
        else:
            headers.append((b"content-type", b"application/json"))
            headers.append((b"content-length", str(len(first)).encode()))
        return {"type": "http.response.start", "status": 200, "headers": headers}


async def _watch(receive: Receive, out: Output) -> None:
    """Set `out.left` when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
    out.left.set()


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})
