"""The interface of an HTTP dialect, which parses orders and writes the answers, nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from starlette.routing import BaseRoute

from imagine_core.errors import Cancelled, FieldError
from imagine_core.fields import without_pictures
from imagine_core.pictures.metadata import png_bytes
from imagine_core.pictures.pngtext import png_size
from imagine_core.types import (
    GenerationEvent,
    GenerationRequest,
    GenerationResult,
    Phase,
    PhaseEvent,
    ResolvedRequest,
    StepEvent,
    new_id,
)
from imagine_core.web.marks import Failure, mark

if TYPE_CHECKING:
    from PIL.Image import Image
    from starlette.requests import Request

__all__ = [
    "EVENTS",
    "LINES",
    "Dialect",
    "Ended",
    "Event",
    "Failure",
    "Finished",
    "Framing",
    "Order",
    "Record",
    "speaking",
]


R = TypeVar("R", bound=BaseRoute)
Ended = Literal["final", "failed", "cancelled"]
"""How an order has ended."""


class Framing(NamedTuple):
    """How a stream goes over the wire.

    Attributes:
        media_type: Its content type.
        heartbeat: Bytes that readers skip, sent where a stream would be silent for too long.
    """

    media_type: str
    heartbeat: bytes


LINES = Framing("application/x-ndjson", b"\n")
"""One JSON object a line; a blank line is no object."""

EVENTS = Framing("text/event-stream", b":\n\n")
"""Server-Sent Events; a line that begins with a colon is a comment (WHATWG HTML, 9.2.6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request as it came over HTTP.

    Attributes:
        request: What to make.
        errors: Fields that could not be read, under the names of `GenerationRequest`. They are
            reported together with the errors that the engine finds in the others.
        streams: Whether the answer is a stream.
        enhance: The enhancer for its prompt, "" for any; None for none.
        finishes: Whether it continues when its client disconnects.
        keeps: Whether its result is kept for a while, although its client has received it.
        idempotency_key: The same for each repetition of a request by its client; None if the
            client never repeats one.
        retry: Whether it is a repetition: it gets the result of the first.
        warnings: What the client should know, ignored keys for example.
        details: The dialect's own data for the answer.
    """

    request: GenerationRequest
    errors: tuple[FieldError, ...] = ()
    streams: bool = False
    enhance: str | None = None
    finishes: bool = False
    keeps: bool = False
    idempotency_key: str | None = None
    retry: bool = False
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The last event of an order: its pictures as PNGs with metadata.

    Attributes:
        result: What the engine made; of a result that is kept for later, without `images`.
        pngs: The pictures.
        seeds: The seed of each.
        subseeds: The seed of each one's variation; none where they are not variations.
    """

    result: GenerationResult
    pngs: tuple[bytes, ...]
    seeds: tuple[int, ...]
    subseeds: tuple[int, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures, which may be larger than what was drawn first."""
        return png_size(self.pngs[0]) if self.pngs else self.result.request.drawn_size

    def to_keep(self) -> Finished:
        """The same without decoded pictures and the picture to start from, which are large."""
        request = without_pictures(self.result.request)
        return replace(self, result=replace(self.result, images=(), request=request))


Event = PhaseEvent | StepEvent | Finished | Cancelled


@dataclass(eq=False, slots=True, kw_only=True)
class Record:
    """The state of an order.

    Attributes:
        id: Its id, unguessable.
        order: The order.
        caller: The client that it came from, see `imagine_core.web.callers`.
        keeps: Whether its result is kept.
        clients: How many connections wait for it: several if its client sent it again.
        fetched: Whether its result was kept although its client has received it.
        request: The request; resolved once it is admitted.
        enhancer: The enhancer that made the prompt.
        steps_run: Steps that ran, once they have.
        opened: When it came, in seconds of `time.monotonic`.
        begun: Whether it was accepted; a refused order leaves nothing to keep.
        phase: Its phase; the engine's `JobStatus` of this id knows more while it runs.
        preview: The latest preview of its first picture.
        finished: Its pictures.
        error: The error that ended it instead.
        ended: Set once it has ended.
        until: When a kept result is dropped.
    """

    id: str = field(default_factory=new_id)
    order: Order
    caller: str = ""
    keeps: bool = False
    clients: int = 1
    fetched: bool = False
    request: ResolvedRequest
    enhancer: str | None = None
    opened: float = field(default_factory=time.monotonic)
    begun: bool = False
    steps_run: int | None = None
    phase: Phase
    preview: Image | None = None
    finished: Finished | None = None
    error: Exception | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    until: float = 0.0
    _scope: asyncio.Timeout | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _leaving: asyncio.TimerHandle | None = None

    def take(self, event: GenerationEvent) -> None:
        """Update the phase by `event`."""
        self.begun = True
        match event:
            case PhaseEvent():
                self.phase = event.phase
            case StepEvent():
                self.phase = "denoising"
                if event.preview is not None and event.image == 0:
                    self.preview = event.preview
            case GenerationResult():
                self.phase, self.steps_run = "decoding", event.steps_run

    def preview_png(self) -> bytes | None:
        """The latest preview as a PNG of the picture's size."""
        if self.preview is None:
            return None
        return png_bytes(self.preview.resize(self.request.drawn_size), None)

    def finish(self, done: Finished) -> None:
        """Store the finished pictures."""
        self.begun, self.finished = True, done.to_keep()
        self.ended.set()

    def drop_pictures(self) -> None:
        """Drop all but the result: a kept record would hold megabytes for minutes."""
        self.preview = None
        self.order = replace(self.order, request=without_pictures(self.order.request))
        self.request = without_pictures(self.request)

    @property
    def outcome(self) -> Ended | None:
        """How it ended, if it has."""
        if self.finished is not None:
            return "final"
        if self.error is None:
            return None
        return "cancelled" if isinstance(self.error, Cancelled) else "failed"

    @asynccontextmanager
    async def cancellable(self) -> AsyncIterator[None]:
        """A block that `cancel` ends with `Cancelled`."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as self._scope:
                yield
        except TimeoutError:
            if self._scope is None or not self._scope.expired():
                raise
            raise Cancelled from None
        finally:
            self._scope = None

    def cancel(self) -> None:
        """Cancel the order, unless it has ended; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._expire)

    def join(self) -> None:
        """Count a client in."""
        self.clients += 1
        if self._leaving is not None:
            self._leaving.cancel()

    def leave(self, patience: float) -> None:
        """Count a client out; without any for `patience` seconds, cancel what needs one."""
        self.clients -= 1
        if self.clients == 0 and not (self.order.finishes and self.keeps):
            loop = asyncio.get_running_loop()
            self._leaving = loop.call_later(patience, self.cancel)

    def _expire(self) -> None:
        if self._scope is not None and self.outcome is None:
            self._scope.reschedule(asyncio.get_running_loop().time())


class Dialect(Protocol):
    """Translates between the JSON of an API and the core. A plugin's need not inherit from it.

    Attributes:
        framing: How its streams go over the wire.
    """

    framing: Framing

    def read(self, body: bytes, request: Request) -> Order:
        """Parse the order in a request; called on a thread.

        Raises:
            MalformedBody: The body cannot be parsed.
        """

    def say(self, event: Event, record: Record) -> bytes | None:
        """The message for an event, or None; called on a thread if the event has pictures.

        An order that does not stream gets only `Finished`: the whole answer, in JSON. Of an order
        that was cancelled by its id, `Cancelled` is the last event; None answers with the error.
        """

    def fail(self, error: Exception, *, begun: bool = False) -> Failure:
        """The status and the JSON body of an error; once a stream has `begun`, its last message.

        Headers may be a third value. `imagine_core.web.app.explain` supplies the status and the
        message.
        """


def speaking(
    route: R,
    dialect: Dialect,
    *,
    prefix: str | None = None,
    error: Mapping[str, Any] | None = None,
) -> R:
    """Make a route, and the guards before it, answer errors in the form of `dialect`.

    Args:
        route: The route.
        dialect: Formats the errors.
        prefix: Unknown paths that begin with it get errors of this form as well.
        error: The JSON Schema of the errors, for `GET /openapi.json`.
    """
    return mark(route, fail=dialect.fail, prefix=prefix, error=error)
