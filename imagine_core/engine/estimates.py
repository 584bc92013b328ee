"""Measures how fast the device works, and estimates how long jobs wait."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagine_core.engine.jobs import Job
    from imagine_core.models.memory import Work

SMOOTHING = 8
"""Forwards that a moving average covers."""

REMEMBERED = 256
"""Models and sizes whose pace is kept."""


class Pace:
    """Seconds per row of a forward, for each model and size, and per job outside its forwards."""

    def __init__(self) -> None:
        self._rows: dict[Work, float] = {}
        self._besides = 0.0

    def forward(self, work: Work, rows: int, seconds: float) -> None:
        """Record a forward of `rows` rows; `seconds` includes the samplers' work."""
        while work not in self._rows and len(self._rows) >= REMEMBERED:
            del self._rows[next(iter(self._rows))]
        self._rows[work] = _mean(self._rows.get(work), seconds / rows)

    def job(self, besides: float) -> None:
        """Record the seconds of a finished job outside its steps: prompts and decoding."""
        self._besides = _mean(self._besides or None, besides)

    def row(self, work: Work) -> float | None:
        """Seconds per row; scaled by area from another size of the model, None if unknown."""
        if work in self._rows:
            return self._rows[work]
        model, width, height = work
        for (other, *sides), seconds in self._rows.items():
            if other == model:
                return seconds * (width * height) / (sides[0] * sides[1])
        return None

    def waits(
        self, running: Iterable[Job], waiting: Sequence[Job], *, most_rows: Callable[[Work], int]
    ) -> list[float | None]:
        """The estimated seconds until each of `waiting` starts; None where unknown.

        Simulates the queue: within a size, a job starts when those before it have left enough rows;
        sizes share the device. Loads of models and cancellations to come are ignored.
        """
        lanes: defaultdict[Work, Lane] = defaultdict(Lane)
        for job in running:
            lanes[job.work].run(job, most_rows(job.work))
        shared = len({*lanes, *(job.work for job in waiting)})
        return [self._wait(lanes[job.work], job, most_rows(job.work), shared) for job in waiting]

    def _wait(self, lane: Lane, job: Job, most_rows: int, shared: int) -> float | None:
        lane.wait(job, most_rows)
        forwards, left = lane.now, lane.left
        row = self.row(job.work)
        lane.run(job, most_rows)
        return None if row is None else shared * (forwards * row * most_rows + left * self._besides)


class Lane:
    """Simulates the jobs of one size; time is counted in full forwards."""

    def __init__(self) -> None:
        self.now = 0.0
        self.left = 0
        self._taken = 0
        self._ends: list[tuple[float, int]] = []

    def wait(self, job: Job, most_rows: int) -> None:
        """Advance the time until there is room for `job`."""
        while self._ends and self._taken + job.rows > most_rows:
            self.now, rows = heapq.heappop(self._ends)
            self._taken -= rows
            self.left += 1

    def run(self, job: Job, most_rows: int) -> None:
        """Start `job` now."""
        rows = job.rows * job.images
        forwards = job.evaluations_left * max(1.0, rows / most_rows)
        heapq.heappush(self._ends, (self.now + forwards, rows))
        self._taken += rows


def _mean(before: float | None, now: float) -> float:
    return now if before is None else before + (now - before) / SMOOTHING
