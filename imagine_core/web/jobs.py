"""The orders in progress, by id, and the results kept for clients that disconnected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from imagine_core.errors import UnknownName
from imagine_core.executor import JobStatus
from imagine_core.types import Phase, ResolvedRequest
from imagine_core.web.app import without_frames
from imagine_core.web.dialect import Order, Record

MOST_RESULTS = 64
MOST_BYTES = 256 * 2**20
"""Of all kept pictures together. Results that were received are dropped first, then those that
expire first."""

RETRY_SECONDS = 60.0
"""How long a received result is kept for a client that may send its request again."""


__all__ = [
    "Progress",
]

LEAST_SHARE = 0.01


class Progress(NamedTuple):
    """How far an order is.

    Attributes:
        share: How much is done, more than 0 and less than 1.
        seconds: The rest, estimated; until its turn comes while it is queued.
        step, steps: Steps that all of its pictures have done, and those that run.
        phase: Its phase.
        ahead: Orders ahead of it in the queue.
    """

    share: float
    seconds: float
    step: int
    steps: int
    phase: Phase
    ahead: int

    @property
    def text(self) -> str | None:
        """What it waits for, in words; None if it is being drawn."""
        waits = {"queued": f"In queue, {self.ahead} ahead", "loading": "Loading the model"}
        return waits.get(self.phase)


class Jobs:
    """All orders of a server that clients may query, whatever their dialect.

    Args:
        keep: Seconds that results are kept.
        clock: Seconds, monotonic.

    Attributes:
        keeps: Whether results are kept at all.
        behind: The work whose clients have disconnected.
    """

    def __init__(self, *, keep: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.keeps = keep > 0
        self.behind: set[asyncio.Task[None]] = set()
        self._keep = keep
        self._clock = clock
        self._running: dict[str, Record] = {}
        self._kept: dict[str, Record] = {}

    def open(self, order: Order, *, caller: str = "") -> Record:
        """Make the record of an order that is yet to begin."""
        return Record(
            order=order,
            caller=caller,
            keeps=self.keeps
            and (order.finishes or order.keeps or order.idempotency_key is not None),
            request=ResolvedRequest.of(order.request, {}),  # until it is admitted
            phase="queued" if order.enhance is None else "enhancing",
        )

    def first(self, order: Order, *, caller: str = "") -> Record | None:
        """The record of the order that `order` repeats, unless it failed or has expired.

        Of several equal ones, it is the one that the fewest clients wait for, then the latest.
        """
        if not order.retry or order.idempotency_key is None:
            return None
        asked = (caller, order.idempotency_key)
        self._forget_old()
        found = [
            record
            for records in (self._running, self._kept)
            for record in reversed(records.values())
            if (record.caller, record.order.idempotency_key) == asked
            and record.outcome in (None, "final")
        ]
        return min(found, key=lambda record: record.clients, default=None)

    def of(self, caller: str) -> list[Record]:
        """The orders of `caller` that are in progress, the oldest first."""
        return [record for record in self._running.values() if record.caller == caller]

    @staticmethod
    def progress(record: Record, status: JobStatus | None) -> Progress:
        """How far an order is; `status` comes from the engine, if it has the order."""
        step, steps = record.steps_run or 0, record.steps_run or record.request.steps
        phase, ahead, wait = record.phase, 0, None
        if status is not None:
            step, steps, phase = status.step, status.steps, status.phase
            ahead, wait = status.position, status.wait
        share = min(max(step / max(steps, 1), LEAST_SHARE), 1 - LEAST_SHARE)
        elapsed = time.monotonic() - record.opened
        left = elapsed / share - elapsed if wait is None else wait
        return Progress(share=share, seconds=left, step=step, steps=steps, phase=phase, ahead=ahead)

    @asynccontextmanager
    async def at_work(self, record: Record) -> AsyncIterator[None]:
        """List `record` and let it be cancelled during the block; keep its result if it `keeps`."""
        self._running[record.id] = record
        try:
            async with record.cancellable():
                yield
        except Exception as error:
            record.error = without_frames(error)
            raise
        finally:
            del self._running[record.id]
            record.ended.set()
            if record.keeps and record.begun and self._is_wanted(record):
                self._put(record)

    def get(self, name: str) -> Record:
        """The record of this id; raises `UnknownName` if there is none, or it has expired."""
        self._forget_old()
        record = self._running.get(name) or self._kept.get(name)
        if record is None:
            raise UnknownName("job", name, known=())
        return record

    def __iter__(self) -> Iterator[Record]:
        """All of them: those in progress, then the kept ones, the oldest first."""
        self._forget_old()
        return iter([*self._running.values(), *self._kept.values()])

    def expires_in(self, record: Record) -> float | None:
        """Seconds that a kept result stays; None for one that is in progress."""
        return round(record.until - self._clock(), 1) if record.id in self._kept else None

    def _put(self, record: Record) -> None:
        record.drop_pictures()
        asked = record.order.finishes or record.order.keeps
        record.fetched = record.clients > 0 and not asked
        seconds = min(self._keep, RETRY_SECONDS) if record.fetched else self._keep
        record.until = self._clock() + seconds
        self._kept[record.id] = record
        self._forget_old()
        while len(self._kept) > MOST_RESULTS or self._bytes() > MOST_BYTES:
            del self._kept[min(self._kept, key=self._worth)]
        asyncio.get_running_loop().call_later(seconds, self._forget_old)

    @staticmethod
    def _is_wanted(record: Record) -> bool:
        """Whether a client may ask for how it ended; of most, for its pictures only."""
        return record.outcome == "final" or (record.order.finishes and record.outcome is not None)

    def _worth(self, name: str) -> tuple[bool, bool, float]:
        """What is needed most comes last: results that no client has, then kept ones."""
        record = self._kept[name]
        return record.order.finishes or record.clients == 0, not record.fetched, record.until

    def _bytes(self) -> int:
        kept = (record.finished for record in self._kept.values())
        return sum(len(png) for each in kept if each is not None for png in each.pngs)

    def _forget_old(self) -> None:
        now = self._clock()
        self._kept = {name: each for name, each in self._kept.items() if each.until > now}
