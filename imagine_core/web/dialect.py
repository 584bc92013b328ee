"""What an HTTP dialect is: it reads orders and says what becomes of them, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from starlette.routing import BaseRoute

from imagine_core.errors import FieldError
from imagine_core.types import GenerationRequest, GenerationResult, PhaseEvent, StepEvent
from imagine_core.web.marks import mark

if TYPE_CHECKING:
    from starlette.requests import Request

    from imagine_core.web.jobs import Record

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
