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

from imagine_core.engine.changed import ChangedModel, changed
from imagine_core.engine.drawing import (
    Alone,
    Denoise,
    Drawing,
    Note,
    StepDone,
    draw,
    total_steps,
)
from imagine_core.engine.guarded import Guard, GuardedSampler
from imagine_core.errors import ImagineError
from imagine_core.executor import JobStatus
from imagine_core.kinds import SEEDS
from imagine_core.types import (
    GeneratedImage,
    Generation,
    GenerationEvent,
    GenerationRequest,
    GenerationResult,
    Outcome,
    Phase,
    PhaseEvent,
    StepEvent,
    new_id,
)

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from imagine_core.engine.admission import Admitted
    from imagine_core.interfaces import ModelInfo, SamplerSpec
    from imagine_core.models.memory import Work

ESTIMATE_SECONDS = 5.0
"""Least seconds between two estimates for a job whose position has not changed."""

log = logging.getLogger("imagine")


@dataclass(eq=False, slots=True)
class Trajectory:
    """One picture in progress: a drawing and the work it wants next."""

    job: Job
    index: int
    seed: int
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

    admitted: Admitted
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
    _events: asyncio.Queue[GenerationEvent | BaseException] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.warnings.extend(self.admitted.warnings)

    @property
    def request(self) -> GenerationRequest:
        """The request, resolved."""
        return self.admitted.request

    @property
    def info(self) -> ModelInfo:
        """The model that makes it."""
        return self.admitted.info

    @property
    def infos(self) -> tuple[ModelInfo, ...]:
        """The model and what changes it."""
        return self.admitted.infos

    @property
    def sampler(self) -> SamplerSpec:
        """The sampler that makes it."""
        return self.admitted.sampler

    @property
    def work(self) -> Work:
        """The model and size of its first pass."""
        return self.admitted.work

    @property
    def rows(self) -> int:
        """Rows per evaluation of one of its pictures."""
        return 2 if self.request.guidance_scale > 1 else 1

    @property
    def steps(self) -> int:
        """Steps that run for each picture."""
        return total_steps(self.request)

    @property
    def evaluations_left(self) -> int:
        """Evaluations of the model that each of its pictures still takes."""
        return max(0, self.steps - self.step) * self.sampler.evaluations

    @property
    def step(self) -> int:
        """The last step that all of its pictures have finished."""
        return min((trajectory.step for trajectory in self.trajectories), default=0)

    @property
    def culprit(self) -> str:
        """Its sampler's name in errors."""
        return f"sampler {self.sampler.name!r} of plugin {self.admitted.plugin!r}"

    def start(
        self, leased: Mapping[Path, Any], resources: ExitStack, *, guard: Guard, halved: bool
    ) -> None:
        """Start one drawing per picture.

        `resources` hold the leases of the model and what changes it; it computes in less than
        float32 if `halved`. `guard` runs the sampler's code.
        """
        self.resources = resources
        self.changed = model = changed(self.admitted, leased)
        self.warnings += model.warnings
        seed = self.request.seed or 0
        for index in range(self.request.images):
            own = (seed + index) % SEEDS
            drawing = draw(
                model,
                self.request,
                GuardedSampler(self.sampler, guard, self.culprit),
                seed=own,
                halved=halved,
                init_image=self.admitted.pictures.get("init"),
            )
            trajectory = Trajectory(self, index, own, drawing)
            self.trajectories.append(trajectory)
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
        every = self.request.preview_every
        preview = None
        if every and done.step % every == 0 and done.step < done.steps and self.changed is not None:
            decoder = self.changed.decoder
            look = decoder.decode if self.request.preview == "vae" else decoder.preview
            preview = look(done.original())
        trajectory.step = done.step
        self.emit(
            StepEvent(
                step=done.step,
                steps=done.steps,
                seed=trajectory.seed,
                image=trajectory.index,
                preview=preview,
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
        images = tuple(
            GeneratedImage(image=trajectory.image, seed=trajectory.seed)
            for trajectory in self.trajectories
            if trajectory.image is not None
        )
        self.emit(
            GenerationResult(
                images=images,
                request=self.request,
                model_hash=None if self.changed is None else self.changed.model.model_hash,
                hashes={} if self.changed is None else self.changed.hashes,
                steps_run=self.steps,
                warnings=tuple(dict.fromkeys(self.warnings)),
                timings=dict(self.timings),
            )
        )

    def emit(self, event: GenerationEvent | BaseException) -> None:
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
        return JobStatus(
            id=self.id,
            model=self.info.name,
            sampler=self.sampler.name,
            phase=self.phase,
            position=self.position,
            wait=self.wait,
            fraction=self.fraction if self.phase == "loading" else None,
            step=self.step,
            steps=self.steps,
            width=self.request.width,
            height=self.request.height,
        )

    def report(self, *, ended: bool) -> Generation:
        """The report for observers; a job that has `ended` without an outcome was cancelled."""
        timings = dict(self.timings)
        if ended:
            timings.setdefault("queued", time.perf_counter() - self.submitted)
        request = self.request
        return Generation(
            id=self.id,
            model=self.info.name,
            sampler=self.sampler.name,
            schedule=request.noise_schedule,
            steps=request.steps,
            width=request.width,
            height=request.height,
            images=request.images,
            outcome=(self.outcome or "cancelled") if ended else None,
            error=None if self.error is None else self.error.type,
            timings=timings,
        )

    async def events(self) -> AsyncIterator[GenerationEvent]:
        """Its events up to the result; raises what made it fail."""
        while True:
            event = await self._events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if isinstance(event, GenerationResult):
                return
