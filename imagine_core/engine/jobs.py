"""A job: one request inside the engine, with a drawing for each of its pictures."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imagine_core.engine.drawing import Alone, Denoise, Drawing, Note, Seeds, StepDone
from imagine_core.engine.guarded import Guard
from imagine_core.engine.tasks import Ended, Facts, Task
from imagine_core.errors import ImagineError
from imagine_core.executor import JobStatus
from imagine_core.types import (
    Generation,
    GenerationResult,
    Outcome,
    Phase,
    PhaseEvent,
    StepEvent,
    UpscaleResult,
    new_id,
)

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from imagine_core.engine.changed import ChangedModel
    from imagine_core.interfaces import ModelInfo
    from imagine_core.models.memory import Work

JobEvent = PhaseEvent | StepEvent | GenerationResult | UpscaleResult

ESTIMATE_SECONDS = 5.0
"""Least seconds between two estimates for a job whose position has not changed."""

log = logging.getLogger("imagine")


@dataclass(eq=False, slots=True)
class Trajectory:
    """One picture in progress: a drawing and the work it wants next."""

    job: Job
    index: int
    seeds: Seeds
    drawing: Drawing
    want: Denoise | Alone | None = None
    step: int = 0
    image: Image.Image | None = None

    def resume(self, answer: Any = None) -> None:
        """Send `answer` to the drawing, and run it up to its next request for device work."""
        try:
            while True:
                want = self.drawing.send(answer)
                answer = None
                match want:
                    case StepDone():
                        self.job.step_done(self, want)
                    case Note(message):
                        self.job.warnings.append(message)
                    case _:
                        self.want = want
                        return
        except StopIteration as stop:
            self.want, self.image = None, stop.value


@dataclass(eq=False, slots=True)
class Job:
    """One request from its admission to its last event.

    The engine's thread works on it; the caller's event loop reads `events()`.
    """

    task: Task
    loop: asyncio.AbstractEventLoop
    id: str = field(default_factory=new_id)
    phase: Phase = "queued"
    position: int = 0
    wait: float | None = None
    fraction: float | None = None
    cancelled: bool = False
    outcome: Outcome | None = None
    error: ImagineError | None = None
    wants_room_since: float | None = None
    trajectories: list[Trajectory] = field(default_factory=list)
    changed: ChangedModel | None = None
    resources: ExitStack = field(default_factory=ExitStack)
    timings: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    warnings: list[str] = field(default_factory=list)
    submitted: float = field(default_factory=time.perf_counter)
    waited_at: float = 0.0
    _events: asyncio.Queue[JobEvent | BaseException] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.warnings.extend(self.task.warnings)

    @property
    def facts(self) -> Facts:
        """What is told of it."""
        return self.task.facts

    @property
    def infos(self) -> tuple[ModelInfo, ...]:
        """The model and what changes it; the first is the one that memory is judged by."""
        return self.task.infos

    @property
    def work(self) -> Work:
        """What its cost depends on: the model and size of its first pass."""
        return self.task.work

    @property
    def rows(self) -> int:
        """Rows per evaluation of one of its pictures."""
        return self.task.rows

    @property
    def images(self) -> int:
        """Its pictures."""
        return self.task.images

    @property
    def evaluations_left(self) -> int:
        """Evaluations of the model that each of its pictures still takes."""
        return max(0, self.task.steps - self.step) * self.task.evaluations

    @property
    def first_phase(self) -> Phase:
        """The phase that it starts with, once it has started."""
        want = self.trajectories[0].want
        return want.phase if isinstance(want, Alone) else "denoising"

    @property
    def step(self) -> int:
        """The last step that all of its pictures have finished."""
        return min((trajectory.step for trajectory in self.trajectories), default=0)

    @property
    def culprit(self) -> str:
        """Whose code it runs, in errors."""
        return self.task.culprit

    def start(
        self, leased: Mapping[Path, Any], resources: ExitStack, *, guard: Guard, halved: bool
    ) -> None:
        """Start one drawing per picture.

        `resources` hold the leases of the model and what changes it; it computes in less than
        float32 if `halved`. `guard` runs plugins' code.
        """
        self.resources = resources
        drawings, self.changed = self.task.begin(leased, guard=guard, halved=halved)
        self.warnings += () if self.changed is None else self.changed.warnings
        for index, (seeds, drawing) in enumerate(drawings):
            self.trajectories.append(Trajectory(self, index, seeds, drawing))
        for trajectory in self.trajectories:
            trajectory.resume()

    def enter(self, phase: Phase) -> None:
        """Emit an event if the job has entered another phase."""
        if phase != self.phase:
            self.phase, self.position, self.wait = phase, 0, None
            self.emit(PhaseEvent(phase=phase))

    def stand(self, *, position: int, wait: float | None) -> None:
        """Emit the place in the queue if it changed; clients count `wait` down themselves."""
        now = time.perf_counter()
        moved = position != self.position or (wait is None) != (self.wait is None)
        if not moved:
            if wait is None or self.wait is None or now - self.waited_at < ESTIMATE_SECONDS:
                return
            expected = max(0.0, self.wait - (now - self.waited_at))
            if abs(wait - expected) <= max(1.0, expected / 4):
                return
        self.position, self.wait, self.waited_at = position, wait, now
        self.emit(PhaseEvent(phase="queued", position=position, wait=wait))

    def loading(self, fraction: float) -> None:
        """Emit how much of the model is loaded, in twentieths; on the loader's thread."""
        fraction = math.floor(fraction * 20) / 20
        if fraction != self.fraction:
            self.fraction = fraction
            self.emit(PhaseEvent(phase="loading", fraction=fraction))

    def step_done(self, trajectory: Trajectory, done: StepDone) -> None:
        """Report a finished step, with a preview where one is due."""
        every, kind = self.task.preview
        preview = None
        due = every and done.step % every == 0 and done.step < done.steps
        if due and done.original is not None and self.changed is not None:
            decoder = self.changed.decoder
            look = decoder.decode if kind == "vae" else decoder.preview
            preview = look(done.original())
        trajectory.step = done.step
        self.emit(
            StepEvent(
                step=done.step,
                steps=done.steps,
                seed=trajectory.seeds.seed,
                image=trajectory.index,
                preview=preview,
                model=None if preview is None else self.facts.model,
            )
        )

    def fail(self, error: ImagineError) -> None:
        """Emit `error`; the first one decides the outcome, unless there is a result."""
        if self.outcome is None:
            self.outcome, self.error = "failed", error
        self.cancelled = True
        self.emit(error)

    def finish(self) -> None:
        """Emit the result with all pictures."""
        self.outcome = "done"
        pictures = [
            (trajectory.seeds, trajectory.image)
            for trajectory in self.trajectories
            if trajectory.image is not None
        ]
        warnings = tuple(dict.fromkeys(self.warnings))
        ended = Ended(pictures, self.changed, warnings, dict(self.timings))
        self.emit(self.task.result(ended))

    def emit(self, event: JobEvent | BaseException) -> None:
        """Hand an event to the caller's loop; cancel the job if that is closed."""
        try:
            self.loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed
            self.cancelled = True

    def close(self) -> None:
        """Close the drawings and release the model; safe to call twice."""
        for trajectory in self.trajectories:
            try:
                trajectory.drawing.close()
            except BaseException:
                log.exception("request %s: %s failed while it was closed", self.id, self.culprit)
            trajectory.want = None
        self.trajectories.clear()
        self.changed = None
        self.resources.close()

    def status(self) -> JobStatus:
        """A snapshot."""
        facts = self.facts
        return JobStatus(
            id=self.id,
            model=facts.model,
            sampler=facts.sampler,
            phase=self.phase,
            position=self.position,
            wait=self.wait,
            fraction=self.fraction if self.phase == "loading" else None,
            step=self.step,
            steps=self.task.steps,
            width=facts.width,
            height=facts.height,
        )

    def report(self, *, ended: bool) -> Generation:
        """The report for observers; a job that has `ended` without an outcome was cancelled."""
        timings = dict(self.timings)
        if ended:
            timings.setdefault("queued", time.perf_counter() - self.submitted)
        return Generation(
            id=self.id,
            **self.facts._asdict(),
            images=self.images,
            outcome=(self.outcome or "cancelled") if ended else None,
            error=None if self.error is None else self.error.type,
            timings=timings,
        )

    async def events(self) -> AsyncIterator[JobEvent]:
        """Its events up to the result; raises what made it fail."""
        while True:
            event = await self._events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if isinstance(event, GenerationResult | UpscaleResult):
                return
