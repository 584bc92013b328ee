"""Runs the forwards of the device: picks the batch, calls the model, and retries failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from imagine_core.engine.batching import FairShare, RowLimits
from imagine_core.engine.drawing import Denoise
from imagine_core.engine.estimates import Pace
from imagine_core.engine.forward import forward
from imagine_core.models.memory import Work, out_of_memory

if TYPE_CHECKING:
    import torch

    from imagine_core.engine.jobs import Trajectory
    from imagine_core.engine.loading import Loading


class Prediction(NamedTuple):
    """The prediction that a trajectory wanted, or the error instead."""

    trajectory: Trajectory
    answer: torch.Tensor | BaseException


class Stepping:
    """Steps trajectories in batches.

    Args:
        loading: Measures the memory of forwards, and reclaims some when it runs out.
        fence: Marks a point of the device's work; see `Device.fence`.
        max_rows: Most rows of one forward; None measures it.

    Attributes:
        forwards, evaluations: How many there were so far; several evaluations share a forward.
        seconds: Duration of the last forward, the samplers' own work included.
    """

    def __init__(
        self, loading: Loading, fence: Callable[[], Callable[[], None]], *, max_rows: int | None
    ) -> None:
        self.forwards = self.evaluations = 0
        self.seconds = self._counted = 0.0
        self.limits = RowLimits(max_rows)
        self.share = FairShare()
        self.pace = Pace()
        self._loading = loading
        self._fence = fence
        self._before: Callable[[], None] = lambda: None

    def step(self, trajectories: Iterable[Trajectory]) -> Iterator[Prediction]:
        """Run one forward for the batch key that is next, if any trajectory wants one.

        Samplers run between yields while the device computes; their time is charged to the batch
        too.
        """
        wanting: dict[Hashable, list[Trajectory]] = {}
        for trajectory in trajectories:
            if isinstance(trajectory.want, Denoise) and not trajectory.job.cancelled:
                wanting.setdefault(batch_key(trajectory), []).append(trajectory)
        if not wanting:
            return
        key = self.share.pick(wanting)
        batch = self._fill(wanting[key])
        work, rows = work_of(batch[0]), rows_of(batch)
        started = self._counted = time.perf_counter()
        yield from self._forward(batch)
        self._count(batch)
        self.seconds = self._counted - started
        self.share.charge(key, self.seconds)
        self.pace.forward(work, rows, self.seconds)

    def room(self, work: Work) -> int:
        """The row limit of a forward for `work`."""
        return self.limits[work].rows

    def settle(self) -> None:
        """Wait until the device is done with the last forward."""
        self._before()

    def _fill(self, wanting: Sequence[Trajectory]) -> list[Trajectory]:
        """The first of `wanting` that fit into one forward; at least one."""
        room = self.room(work_of(wanting[0]))
        batch: list[Trajectory] = []
        for trajectory in wanting:
            room -= rows_of([trajectory])
            if batch and room < 0:
                break
            batch.append(trajectory)
        return batch

    def _forward(self, batch: Sequence[Trajectory]) -> Iterator[Prediction]:
        """Step `batch`; retry a failed one apart, so that one job cannot fail the rest."""
        changed = batch[0].job.changed
        assert changed is not None
        work, rows = work_of(batch[0]), rows_of(batch)
        started = time.perf_counter()
        try:
            with self._loading.watching_memory(work, "denoising", rows):
                predictions = forward(changed.model, [_wanted(trajectory) for trajectory in batch])
            self._wait_for_device()
        except BaseException as error:
            self._count(batch)
            yield from self._failed(batch, error)
            return
        self._count(batch)
        self.limits[work].record(rows, time.perf_counter() - started)
        self.forwards += 1
        self.evaluations += len(batch)
        for trajectory, prediction in zip(batch, predictions, strict=True):
            if not trajectory.job.cancelled:
                yield Prediction(trajectory, prediction)

    def _failed(self, batch: Sequence[Trajectory], error: BaseException) -> Iterator[Prediction]:
        if out_of_memory(error):
            self.limits[work_of(batch[0])].shrink(rows_of(batch))
            if self._loading.reclaim():
                yield from self._forward(batch)
                return
        if len(batch) == 1:
            yield Prediction(batch[0], error)
            return
        for trajectory in batch:
            if not trajectory.job.cancelled:
                yield from self._forward([trajectory])

    def _count(self, batch: Iterable[Trajectory]) -> None:
        """Charge the time since the last count to these jobs, before they may end."""
        now = time.perf_counter()
        for job in {trajectory.job: None for trajectory in batch}:
            job.timings["denoising"] += now - self._counted
        self._counted = now

    def _wait_for_device(self) -> None:
        """Stay at most one forward ahead of an asynchronous device.

        Waiting for the forward before this one keeps the device busy while samplers compute, and
        still drops a cancelled job within a step.
        """
        before, self._before = self._before, self._fence()
        before()


def batch_key(trajectory: Trajectory) -> Hashable:
    """Trajectories of one key share a forward."""
    changed = trajectory.job.changed
    model = None if changed is None else changed.model
    own = trajectory if trajectory.job.task.deterministic else None
    return (*work_of(trajectory), id(model), own)


def work_of(trajectory: Trajectory) -> Work:
    """The model and size that a row limit is measured for; the hires pass has its own."""
    want = trajectory.want
    if isinstance(want, Denoise):
        return Work(trajectory.job.work.model, *want.size)
    return trajectory.job.work


def rows_of(batch: Iterable[Trajectory]) -> int:
    """The rows of a forward of `batch`."""
    return sum(len(_wanted(trajectory).guidance.rows) for trajectory in batch)


def _wanted(trajectory: Trajectory) -> Denoise:
    return cast("Denoise", trajectory.want)
