"""An answer that follows its client: sent as it is made, and given up when nobody is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imagine_core.errors import RequestError
from imagine_core.web.app import explain, json_line
from imagine_core.web.bodies import keep_body
from imagine_core.web.refusals import log_refusal
from imagine_plugins.dialects.wire import on_wire

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

log = logging.getLogger("imagine")

STALL_SECONDS = 120.0
"""A client that takes nothing for so long is given up."""

PIECE = 2**18
"""Bytes that are sent at once: a server buffers whatever it is given, and only then waits."""

Header = tuple[bytes, bytes]


class Answer:
    """An ASGI application that answers one request, and lets go of it when its client leaves.

    Errors before the first byte are raised, for the application's one table of statuses; later
    ones are the last line.

    Args:
        streams: Whether the answer is a stream of lines.
        headers: What its head says beside the usual.

    Attributes:
        behind: Holds the work if it goes on when the client leaves, for asyncio itself holds tasks
            only weakly; None if it does not go on.
        logged: Whether somebody else logs how the request ends.
    """

    behind: set[asyncio.Task[None]] | None = None
    logged = False

    def __init__(self, *, streams: bool, headers: Sequence[Header] = ()) -> None:
        self._streams = streams
        self._headers = headers

    async def work(self, out: Output) -> None:
        """Do what is asked for, and send it."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        out = Output(send, streams=self._streams, headers=self._headers)
        work = asyncio.create_task(self._answer(out, scope))
        watch = asyncio.create_task(_watch(receive, out))
        left = asyncio.create_task(_until(out.left))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if out.complete:  # which servers report as a disconnect too
                await work
        finally:
            out.left.set()
            await _cancel(watch)
            await _cancel(left)
            await self._end(work, scope)

    async def _end(self, work: asyncio.Task[None], scope: Scope) -> None:
        """The client has its answer, or has gone."""
        if not work.done() and self.behind is not None:
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
            renamed = on_wire(error) if isinstance(error, RequestError) else error
            scope["imagine_logged"] = self.logged or getattr(error, "observed", False)
            if out.left.is_set():
                return
            if not out.started:
                raise renamed from error
            log_refusal(scope, renamed)
            await out.send(json_line(explain(renamed)[1]), last=True)


@dataclass(slots=True)
class Output:
    """What goes to the client: one JSON object, or lines of them.

    Attributes:
        left: Set when the client takes no more; what is sent then is nobody's.
    """

    _send: Send
    streams: bool
    headers: Sequence[Header] = ()
    started: bool = False
    complete: bool = False
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, line: bytes, *, last: bool) -> None:
        """Send a line; the head of the response goes before the first."""
        if self.left.is_set():
            return
        try:
            if not self.started:
                self.started = True
                await self._patiently(self._head(line))
            for start in range(0, len(line), PIECE):
                more = not last or start + PIECE < len(line)
                piece = line[start : start + PIECE]
                body = {"type": "http.response.body", "body": piece, "more_body": more}
                await self._patiently(body)
        except TimeoutError:
            log.warning("a client stopped reading: it is given up")
            self.left.set()
        else:
            self.complete = last

    async def _patiently(self, message: Message) -> None:
        async with asyncio.timeout(STALL_SECONDS):
            await self._send(message)

    def _head(self, first: bytes) -> dict[str, Any]:
        headers = [(b"cache-control", b"no-store"), *self.headers]
        if self.streams:
            headers.append((b"content-type", b"application/x-ndjson"))
            headers.append((b"x-accel-buffering", b"no"))  # nginx would hold lines back
        else:
            headers.append((b"content-type", b"application/json"))
            headers.append((b"content-length", str(len(first)).encode()))
        return {"type": "http.response.start", "status": 200, "headers": headers}


async def _watch(receive: Receive, out: Output) -> None:
    """Note when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    out.left.set()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
