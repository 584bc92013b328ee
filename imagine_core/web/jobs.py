"""The orders in progress, by id, and the results kept for clients that disconnected."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from imagine_core.errors import UnknownName
from imagine_core.web.app import without_frames
from imagine_core.web.dialect import Order, Record

MOST_RESULTS = 64
MOST_BYTES = 256 * 2**20
"""Of all kept pictures together; the oldest results are dropped first."""


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
        self._kept: OrderedDict[str, Record] = OrderedDict()

    def open(self, order: Order) -> Record:
        """Make the record of an order that is yet to begin."""
        return Record(
            order=order,
            keeps=order.finishes and self.keeps,
            request=order.request,
            phase="queued" if order.enhance is None else "enhancing",
        )

    @asynccontextmanager
    async def at_work(self, record: Record) -> AsyncIterator[None]:
        """List `record` and let it be cancelled during the block; keep its result if it `keeps`."""
        self._running[record.id] = record
        try:
            async with record.cancellable():
                yield
        except Exception as error:
            if record.begun:
                record.error = without_frames(error)
            raise
        finally:
            del self._running[record.id]
            if record.keeps and record.outcome is not None:
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
        record.drop_input()
        record.until = self._clock() + self._keep
        self._kept[record.id] = record
        self._forget_old()
        while len(self._kept) > MOST_RESULTS or self._bytes() > MOST_BYTES:
            self._kept.popitem(last=False)
        asyncio.get_running_loop().call_later(self._keep, self._forget_old)

    def _bytes(self) -> int:
        kept = (record.finished for record in self._kept.values())
        return sum(len(png) for each in kept if each is not None for png in each.pngs)

    def _forget_old(self) -> None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values())).until <= now:
            self._kept.popitem(last=False)
