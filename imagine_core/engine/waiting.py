"""The queue of jobs: bounded, first come first served, and it tells each job its position."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from imagine_core.errors import Busy

if TYPE_CHECKING:
    from imagine_core.engine.jobs import Job

SMOOTHING = 8
"""Jobs that the moving average of their duration covers."""


class Waiting:
    """The queue of a worker.

    The caller's thread claims a place for a job at once; the worker's thread queues the job.
    """

    def __init__(self) -> None:
        self._claimed: set[Job] = set()
        self._jobs: list[Job] = []
        self._seconds = 1.0

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs))

    def claim(self, job: Job, *, limit: int, running: int) -> None:
        """Claim a place for `job`; raises `Busy` if `limit` places are taken."""
        waiting = len(self._claimed)
        if waiting >= limit:
            wait = round(self._seconds * waiting / max(1, running))
            raise Busy(
                f"{waiting} requests are waiting already; try again later",
                retry_after=min(600, max(1, wait)),
            )
        job.position = waiting
        self._claimed.add(job)

    def claimed(self) -> list[Job]:
        """All jobs that have a place, whether they have joined or not."""
        return list(self._claimed)

    def join(self, job: Job) -> None:
        """Put `job` at the end of the queue."""
        self._jobs.append(job)

    def leave(self, job: Job) -> None:
        """Remove `job`, whether it starts or was cancelled."""
        self._claimed.discard(job)
        if job in self._jobs:
            self._jobs.remove(job)

    def took(self, seconds: float) -> None:
        """Record that a job finished `seconds` after it had started."""
        self._seconds += (seconds - self._seconds) / SMOOTHING

    def tell(self, waits: Callable[[Sequence[Job]], Iterable[float | None]]) -> None:
        """Tell each job its position and the wait that `waits` estimates."""
        if not self._jobs:
            return
        for position, (job, wait) in enumerate(zip(self._jobs, waits(self._jobs), strict=True)):
            job.stand(position=position, wait=wait)
