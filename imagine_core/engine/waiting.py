"""The jobs that wait for their turn: bounded, first come first served, told where they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from imagine_core.errors import Busy

if TYPE_CHECKING:
    from imagine_core.engine.jobs import Job

SMOOTHING = 8
"""Jobs that the estimate of how long one takes is averaged over."""


class Waiting:
    """The queue of a worker.

    A job is claimed a place by its caller's thread, at once, and joins the queue on the worker's.
    """

    def __init__(self) -> None:
        self._claimed: set[Job] = set()
        self._jobs: list[Job] = []
        self._seconds = 1.0

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs))

    def claim(self, job: Job, *, limit: int, running: int) -> None:
        """A place for `job`; raises `Busy` where `limit` of them are taken."""
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
        """All jobs that have a place, those among them that have not joined yet."""
        return list(self._claimed)

    def join(self, job: Job) -> None:
        """Put `job` at the end of the queue."""
        self._jobs.append(job)

    def leave(self, job: Job) -> None:
        """`job` waits no longer, whether its turn has come or not."""
        self._claimed.discard(job)
        if job in self._jobs:
            self._jobs.remove(job)

    def took(self, seconds: float) -> None:
        """A job was done so many seconds after its turn had come."""
        self._seconds += (seconds - self._seconds) / SMOOTHING

    def tell(self, waits: Callable[[Sequence[Job]], Iterable[float | None]]) -> None:
        """Tell each job how many are before it, and how long that takes by what `waits` says."""
        if not self._jobs:
            return
        for position, (job, wait) in enumerate(zip(self._jobs, waits(self._jobs), strict=True)):
            job.stand(position=position, wait=wait)
