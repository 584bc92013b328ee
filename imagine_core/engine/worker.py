"""The loop that owns the device: one thread that steps all running jobs, a batch at a time."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from imagine_core.engine.drawing import Alone, Denoise
from imagine_core.engine.failures import explain
from imagine_core.engine.loading import Loading
from imagine_core.engine.stepping import Stepping, batch_key
from imagine_core.engine.waiting import Waiting
from imagine_core.engine.watchdog import Watchdog
from imagine_core.errors import (
    GenerationFailed,
    ImagineError,
    SettingsError,
    ShuttingDown,
)
from imagine_core.models.memory import out_of_memory
from imagine_core.safe_text import quoted

if TYPE_CHECKING:
    from pathlib import Path

    from imagine_core.engine.jobs import Job, Trajectory
    from imagine_core.engine.loading import Load
    from imagine_core.engine.observers import Observers
    from imagine_core.errors import Stalled
    from imagine_core.interfaces import Device, ModelInfo
    from imagine_core.settings import Settings

log = logging.getLogger("imagine")

LONGEST_GRACE = 30 * 24 * 3600.0
"""Seconds; the system's clocks refuse more."""

SWEEP_SECONDS = 1.0
"""How often an idle loop looks for models to unload, and how soon it frees memory."""


class Worker:
    """Steps jobs on one device, from their admission to their last event.

    Other threads only call `start`, `submit`, `cancel`, `stop` and `jobs`. Everything else happens
    on the worker's own thread, except loading models: that has its own thread, so that pictures in
    progress continue.

    Args:
        choose_device: Picks the device; called on the worker's thread, since it imports torch.
        load: Loads a model onto the device, and reports progress.
        settings: How long models stay, in which precision, and how many rows a forward has.
        observers: Are told when a job has ended.
        preload: The models to load at the start.

    Attributes:
        device: The device, once it is chosen.
        failure: Why no picture can be made, if none can.
        ended: Whether the thread has ended, for whatever reason.
    """

    def __init__(
        self,
        choose_device: Callable[[], Device],
        load: Load,
        settings: Settings,
        observers: Observers,
        *,
        preload: Callable[[], Iterable[ModelInfo]] = tuple,
    ) -> None:
        self.device: Device | None = None
        self.failure: ImagineError | None = None
        self.ended = False
        self._loading = Loading(
            self._device,
            load,
            keep_alive=settings.keep_alive,
            full_precision=settings.full_precision,
        )
        self.ready = self._loading.ready
        self.models = self._loading.models
        self._choose_device = choose_device
        self._preload = preload
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting = Waiting()
        self._running: list[Job] = []
        self._stepping = Stepping(
            self._loading, lambda: self._device().fence(), max_rows=settings.max_rows
        )
        self._watchdog = Watchdog(
            seconds=settings.sampler_seconds, on_stall=self._stalled, settle=self._stepping.settle
        )
        self._observers = observers
        self._stopping = False
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="imagine-engine", daemon=True)

    # -- called from other threads ---------------------------------------------------------

    def start(self) -> None:
        """Start the worker's thread and the watchdog's."""
        self._thread.start()
        self._watchdog.start()

    @property
    def stalled(self) -> Stalled | None:
        """Set while a sampler holds the thread and cannot be stopped."""
        return self._watchdog.stalled

    @property
    def work(self) -> tuple[int, int]:
        """How many forwards there were so far, and how many evaluations shared them."""
        return self._stepping.forwards, self._stepping.evaluations

    def submit(self, job: Job, *, limit: int) -> None:
        """Queue a job; raises `Busy` if `limit` jobs wait already."""
        self._waiting.claim(job, limit=limit, running=len(self._running))
        self._inbox.put(partial(self._accept, job))
        if self.stalled is not None:  # since admission; `_stalled` may have missed this job
            job.fail(self.stalled)

    def cancel(self, job: Job) -> None:
        """Drop a job at the next step; does nothing if it is done."""
        job.cancelled = True
        self._inbox.put(lambda: None)

    def stop(self, *, grace: float) -> None:
        """Finish what is in progress within `grace` seconds, then stop."""
        grace = min(grace, LONGEST_GRACE)
        self._inbox.put(lambda: self._begin_stop(grace))
        self._thread.join(grace + (1 if self.stalled else 60))
        self._watchdog.stop()

    def jobs(self) -> list[Job]:
        """The jobs in the order of their admission, waiting ones last."""
        return [*self._running, *self._loading.jobs, *self._waiting]

    # -- the loop --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        finally:
            self.ended = True

    def _loop(self) -> None:
        import torch

        with torch.inference_mode():
            self._prepare()
            while not (self._stopping and not self.jobs()):
                try:
                    self._turn()
                except BaseException:  # the loop survives every error
                    log.exception("the engine failed; all requests in progress are given up")
                    self._give_up(GenerationFailed("the engine failed; the log says why"))
        self._loading.close()

    def _prepare(self) -> None:
        try:
            self.device = self._choose_device()
        except ImagineError as error:
            self.failure = error
        except BaseException as error:
            log.exception("no device could be chosen")
            self.failure = SettingsError(f"no device could be chosen: {quoted(error)}")
        if self.failure is None:
            self._loading.start(self._preload)
        else:
            self.ready.set()

    def _device(self) -> Device:
        if self.failure is not None:
            raise self.failure
        assert self.device is not None
        return self.device

    def _turn(self) -> None:
        idle = not any(trajectory.want for trajectory in self._trajectories())
        self._read_inbox(wait=idle)
        self._drop_cancelled()
        self._admit()
        self._work_alone()
        self._tick()

    def _read_inbox(self, *, wait: bool) -> None:
        try:
            message = self._inbox.get(timeout=SWEEP_SECONDS if wait else 0.0)
        except queue.Empty:
            if wait:
                self._loading.rest()
        else:
            message()
            while not self._inbox.empty():
                self._inbox.get()()
        self.models.sweep()

    def _accept(self, job: Job) -> None:
        if self._stopping:
            self._fail(job, ShuttingDown())
        elif self.failure is not None:
            self._fail(job, self.failure)
        else:
            self._waiting.join(job)

    def _begin_stop(self, grace: float) -> None:
        self._stopping = True
        self._deadline = time.monotonic() + grace
        for job in self._waiting:
            self._fail(job, ShuttingDown())

    def _give_up(self, error: ImagineError) -> None:
        for job in self.jobs():
            self._fail(job, error)

    def _drop_cancelled(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._give_up(ShuttingDown())
        for job in self.jobs():
            if job.cancelled:
                self._remove(job)

    def _remove(self, job: Job) -> None:
        for jobs in (self._running, self._loading.jobs):
            if job in jobs:
                jobs.remove(job)
        self._waiting.leave(job)
        job.close()
        self._observers.finished(job)
        self._stepping.share.forget_all_but({batch_key(t) for t in self._trajectories()})

    def _fail(self, job: Job, error: ImagineError) -> None:
        job.fail(error)
        self._remove(job)

    # -- admission -------------------------------------------------------------------------

    def _admit(self) -> None:
        """Start the waiting jobs whose batch has room, first come first served within a size."""
        taken: Counter[Hashable] = Counter()
        for job in (*self._running, *self._loading.jobs):
            taken[job.work] += job.rows * job.images
        for job in self._waiting:
            if not taken[job.work] or taken[job.work] + job.rows <= self._stepping.room(job.work):
                with self._blaming(job):
                    if self._loading.has_room(job):
                        self._waiting.leave(job)
                        self._load(job)
                    elif self._loading.waits_too_long(job):
                        break
            taken[job.work] += job.rows * job.images  # later jobs must not overtake
        self._waiting.tell(self._waits)

    def _waits(self, waiting: Sequence[Job]) -> list[float | None]:
        begun = (*self._running, *self._loading.jobs)
        return self._stepping.pace.waits(begun, waiting, most_rows=self._stepping.room)

    def _load(self, job: Job) -> None:
        job.timings["queued"] = time.perf_counter() - job.submitted
        if all(self.models.has(info) for info in job.infos):
            with self._blaming(job):
                resources = ExitStack()
                self._start(job, self._loading.lease(job, resources), resources)
            return
        job.enter("loading")
        self._loading.submit(
            job,
            loaded=lambda *ended: self._inbox.put(partial(self._loaded, *ended)),
            failed=lambda *ended: self._inbox.put(partial(self._not_loaded, *ended)),
        )

    def _not_loaded(self, job: Job, error: BaseException) -> None:
        self._fail(job, self._explained(job, error))

    def _loaded(self, job: Job, leased: Mapping[Path, Any], resources: ExitStack) -> None:
        if job.cancelled:
            resources.close()
            return
        self._loading.jobs.remove(job)
        with self._blaming(job):
            self._start(job, leased, resources)

    def _start(self, job: Job, leased: Mapping[Path, Any], resources: ExitStack) -> None:
        self._running.append(job)
        job.start(leased, resources, guard=self._watchdog.guard, halved=self._loading.halved)
        job.enter(job.first_phase)

    # -- work ------------------------------------------------------------------------------

    def _trajectories(self) -> Iterator[Trajectory]:
        return (trajectory for job in self._running for trajectory in job.trajectories)

    def _work_alone(self) -> None:
        """Do work that cannot share a forward, the oldest job's first.

        It takes about as long as a forward: many prompts, which are quick and let their jobs join
        the next batch, or one large picture to decode, so that other jobs wait no longer.
        """
        started = time.perf_counter()
        while True:
            wanting = (t for t in self._trajectories() if isinstance(t.want, Alone))
            trajectory = next((t for t in wanting if not t.job.cancelled), None)
            if trajectory is None:
                return
            self._do_alone(trajectory)
            if time.perf_counter() - started >= self._stepping.seconds:
                return

    def _do_alone(self, trajectory: Trajectory) -> None:
        job = trajectory.job
        phase, work = cast("Alone", trajectory.want)
        if phase != "decoding" or not any(isinstance(t.want, Denoise) for t in job.trajectories):
            job.enter(phase)
        started = time.perf_counter()
        with self._blaming(job):
            with self._loading.watching_memory(job.work, phase):
                answer = work()
            job.timings[phase] += time.perf_counter() - started
            self._resume(trajectory, answer)

    def _tick(self) -> None:
        """Run one forward, and resume the samplers that it serves."""
        for trajectory, answer in self._stepping.step(self._trajectories()):
            job = trajectory.job
            if isinstance(answer, BaseException):
                self._fail(job, self._explained(job, answer))
                continue
            job.enter("denoising")
            with self._blaming(job):
                self._resume(trajectory, answer)

    def _resume(self, trajectory: Trajectory, answer: object) -> None:
        job = trajectory.job
        trajectory.resume(answer)
        if all(other.image is not None for other in job.trajectories):
            job.finish()
            self._waiting.took(time.perf_counter() - job.submitted - job.timings["queued"])
            self._stepping.pace.job(job.timings["encoding"] + job.timings["decoding"])
            self._remove(job)

    # -- failures ------------------------------------------------------------------------

    def _explained(self, job: Job, error: BaseException) -> ImagineError:
        return explain(job, error, fits=self._loading.smaller)

    @contextmanager
    def _blaming(self, job: Job) -> Iterator[None]:
        """Fail `job`, and no other, with whatever the block raises."""
        try:
            yield
        except BaseException as error:
            if out_of_memory(error):
                self._device().empty_cache()
            self._fail(job, self._explained(job, error))

    def _stalled(self, error: Stalled) -> None:
        """Fail all jobs: a sampler blocks this thread for good. On the watchdog's thread."""
        for job in {*self.jobs(), *self._waiting.claimed()}:
            job.fail(error)
            self._observers.finished(job)
