"""What an HTTP dialect is: it reads orders and says what becomes of them, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from starlette.routing import BaseRoute

from imagine_core.errors import Cancelled, FieldError
from imagine_core.types import (
    GenerationEvent,
    GenerationRequest,
    GenerationResult,
    Phase,
    PhaseEvent,
    StepEvent,
    new_id,
)
from imagine_core.web.marks import mark

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = [
    "EVENTS",
    "LINES",
    "Dialect",
    "Event",
    "Finished",
    "Framing",
    "Order",
    "Record",
    "speaking",
]


R = TypeVar("R", bound=BaseRoute)


class Framing(NamedTuple):
    """How a stream goes over the wire.

    Attributes:
        media_type: Its content type.
        heartbeat: What readers skip; it is sent where a stream would be silent for too long.
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
        request: What is to be made.
        errors: Fields that could not be read, under the names of `GenerationRequest`. They are
            answered together with what the engine finds wrong with the others.
        streams: Whether the answer is a stream.
        enhance: The enhancer that is to make its prompt better, "" for any; None for none.
        finishes: Whether it goes on when its client leaves.
        warnings: What the client should know, ignored keys for example.
        details: What the dialect itself needs to answer.
    """

    request: GenerationRequest
    errors: tuple[FieldError, ...] = ()
    streams: bool = False
    enhance: str | None = None
    finishes: bool = False
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The last event of an order: its pictures as PNGs with metadata.

    Attributes:
        result: What the engine made; of a result that is kept for later, without `images`.
        pngs: The pictures.
        seeds: The seed of each.
    """

    result: GenerationResult
    pngs: tuple[bytes, ...]
    seeds: tuple[int, ...]

    def to_keep(self) -> Finished:
        """The same without the decoded pictures, which are several times as large."""
        return replace(self, result=replace(self.result, images=()))


Event = PhaseEvent | StepEvent | Finished


@dataclass(eq=False, slots=True, kw_only=True)
class Record:
    """An order from its first moment on.

    Attributes:
        id: Nobody can guess it.
        order: The order.
        keeps: Whether it goes on without its client, and its result is kept.
        request: What is made; once it is admitted, with every name and default settled.
        enhancer: The enhancer that made the prompt.
        begun: Whether it was taken on; what is refused before leaves nothing to be kept.
        phase: Where it is; the engine's `JobStatus` of this id knows more while it runs.
        finished: Its pictures.
        error: What ended it instead.
        until: When a kept result is dropped.
    """

    id: str = field(default_factory=new_id)
    order: Order
    keeps: bool
    request: GenerationRequest
    enhancer: str | None = None
    begun: bool = False
    phase: Phase
    finished: Finished | None = None
    error: Exception | None = None
    until: float = 0.0
    _scope: asyncio.Timeout | None = None

    def take(self, event: GenerationEvent) -> None:
        """Note how far it is."""
        self.begun = True
        match event:
            case PhaseEvent():
                self.phase = event.phase
            case StepEvent():
                self.phase = "denoising"

    def finish(self, done: Finished) -> None:
        """Its pictures are there."""
        self.finished = done.to_keep()

    @property
    def outcome(self) -> Literal["final", "failed", "cancelled"] | None:
        """How it ended, if it has."""
        if self.finished is not None:
            return "final"
        if self.error is None:
            return None
        return "cancelled" if isinstance(self.error, Cancelled) else "failed"

    @asynccontextmanager
    async def cancellable(self) -> AsyncIterator[None]:
        """What `cancel` ends, with `Cancelled`."""
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
        """End it, unless it has ended."""
        if self._scope is not None and self.outcome is None:
            self._scope.reschedule(asyncio.get_running_loop().time())


class Dialect(Protocol):
    """Translates between the JSON of some API and the core. A stranger's needs to inherit nothing.

    Attributes:
        framing: How its streams go over the wire.
    """

    framing: Framing

    def read(self, body: bytes, request: Request) -> Order:
        """The order in a request; called on a thread.

        Raises:
            MalformedBody: It cannot be read at all.
        """

    def say(self, event: Event, record: Record) -> bytes | None:
        """What the client is told of an event, if anything; on a thread where it has pictures.

        Of an order that does not stream, only `Finished` is said: the whole answer, in JSON.
        """

    def fail(self, error: Exception, *, begun: bool = False) -> tuple[int, bytes]:
        """The status and the JSON body of an error; once a stream has `begun`, its last message.

        `imagine_core.web.app.explain` has the status and the words.
        """


def speaking(route: R, dialect: Dialect, *, prefix: str | None = None) -> R:
    """Let a route answer with the errors of `dialect`, those of the guards before it included.

    Args:
        route: The route.
        dialect: Makes the errors.
        prefix: Paths that begin so and belong to no route have errors of this form as well.
    """
    return mark(route, fail=dialect.fail, prefix=prefix)
