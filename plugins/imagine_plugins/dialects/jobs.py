"""The requests that are at work, by id, and the results that are kept for clients that left."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from imagine_core.engine.jobs import new_id
from imagine_core.errors import Cancelled, RequestError, UnknownName
from imagine_core.types import GenerationEvent, PhaseEvent, StepEvent
from imagine_core.web.app import explain, json_line
from imagine_plugins.dialects.lines import phase_line
from imagine_plugins.dialects.wire import Order, on_wire

MOST_RESULTS = 64
MOST_BYTES = 256 * 2**20
"""What is kept in all; the oldest results leave first."""

ENDED = ("final", "failed", "cancelled")


@dataclass(eq=False, slots=True, kw_only=True)
class Job:
    """A request to `/generate` from its first moment on.

    Attributes:
        id: Nobody can guess it.
        keeps: Whether it goes on without its client, and its result is kept.
        images: Pictures that it makes.
        begun: Whether it was taken on; what is refused before leaves nothing to be kept.
        status: How it stands: a phase, or how it ended.
        body: The last line, with the pictures or the error.
        until: When a kept result is let go of.
    """

    id: str = field(default_factory=new_id)
    keeps: bool
    images: int
    begun: bool = False
    status: dict[str, Any]
    body: bytes | None = None
    until: float = 0.0
    _steps: dict[int, int] = field(default_factory=dict)
    _scope: asyncio.Timeout | None = None

    def take(self, event: GenerationEvent) -> None:
        """Note how far it is."""
        self.begun = True
        match event:
            case PhaseEvent():
                self.status = phase_line(event)
                if event.phase == "decoding" and self._steps:
                    self.status |= {"step": self.status_step(), "steps": max(self._steps.values())}
            case StepEvent():
                self._steps[event.image] = event.step
                step = {"step": self.status_step(), "steps": event.steps}
                self.status = {"status": "denoising", **step}

    def status_step(self) -> int:
        """The step that all of its pictures have done."""
        return min(self._steps.get(image, 0) for image in range(self.images))

    def end(self, status: str, body: bytes) -> None:
        """It has ended so."""
        self.status, self.body = {"status": status}, body

    @property
    def ended(self) -> bool:
        """Whether all is decided."""
        return self.body is not None

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
        if self._scope is not None and not self.ended:
            self._scope.reschedule(asyncio.get_running_loop().time())


class Jobs:
    """All requests of a server that somebody may ask about.

    Args:
        keep: Seconds that results are kept.
        clock: Seconds, monotonic.

    Attributes:
        behind: The work whose clients have left.
    """

    def __init__(self, *, keep: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.behind: set[asyncio.Task[None]] = set()
        self._keep = keep
        self._clock = clock
        self._running: dict[str, Job] = {}
        self._kept: OrderedDict[str, Job] = OrderedDict()

    def open(self, order: Order) -> Job:
        """The job of an order that is yet to begin."""
        return Job(
            keeps=order.finishes and self._keep > 0,
            images=order.request.images,
            status={"status": "queued" if order.enhance is None else "enhancing"},
        )

    @asynccontextmanager
    async def at_work(self, job: Job) -> AsyncIterator[None]:
        """While the block runs, `job` can be found and cancelled; its end is kept, if it asked."""
        self._running[job.id] = job
        try:
            async with job.cancellable():
                yield
        except Exception as error:
            renamed = on_wire(error) if isinstance(error, RequestError) else error
            if job.keeps and job.begun:
                status = "cancelled" if isinstance(error, Cancelled) else "failed"
                job.end(status, json_line({"id": job.id, "status": status, **explain(renamed)[1]}))
            raise
        finally:
            del self._running[job.id]
            if job.keeps and job.ended:
                self._put(job)

    def get(self, name: str) -> Job:
        """The job of this id; raises `UnknownName` where there is none, or none any more."""
        self._forget_old()
        job = self._running.get(name) or self._kept.get(name)
        if job is None:
            raise UnknownName("job", name, known=())
        return job

    def list(self) -> list[dict[str, Any]]:
        """How all of them stand: those in progress, then the kept ones, the oldest first."""
        self._forget_old()
        kept = [
            {"id": job.id, **job.status, "expires_in": round(job.until - self._clock(), 1)}
            for job in self._kept.values()
        ]
        return [{"id": job.id, **job.status} for job in self._running.values()] + kept

    def _put(self, job: Job) -> None:
        job.until = self._clock() + self._keep
        self._kept[job.id] = job
        self._forget_old()
        while len(self._kept) > MOST_RESULTS or self._bytes() > MOST_BYTES:
            self._kept.popitem(last=False)
        asyncio.get_running_loop().call_later(self._keep, self._forget_old)

    def _bytes(self) -> int:
        return sum(len(job.body or b"") for job in self._kept.values())

    def _forget_old(self) -> None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values())).until <= now:
            self._kept.popitem(last=False)
