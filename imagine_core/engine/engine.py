"""The engine: takes requests from any number of callers and makes their pictures on one device."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from imagine_core.engine.admission import Admitted, Known, admit, admit_upscale
from imagine_core.engine.admitting import Admitting
from imagine_core.engine.jobs import Job
from imagine_core.engine.masking import finished
from imagine_core.engine.observers import Observers
from imagine_core.engine.tasks import Generating, Upscaling
from imagine_core.engine.worker import Worker
from imagine_core.errors import (
    Busy,
    FieldError,
    GenerationFailed,
    ImagineError,
    OutOfMemory,
    SettingsError,
    ShuttingDown,
)
from imagine_core.executor import EngineStatus
from imagine_core.models.memory import keep_freed
from imagine_core.types import GenerationResult, PhaseEvent, new_id

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.engine.jobs import JobEvent
    from imagine_core.engine.tasks import Task
    from imagine_core.interfaces import Device, ModelInfo, Preprocessor
    from imagine_core.models.cache import Unloaded
    from imagine_core.plugins import Plugins
    from imagine_core.settings import Settings
    from imagine_core.types import (
        GenerationEvent,
        GenerationRequest,
        UpscaleEvent,
        UpscaleRequest,
    )


PUT_BACK = 2
"""Requests whose pictures are put together at once."""

LOST = "the engine's thread has ended; the log says why, and the server must be started again"


class Engine:
    """Makes pictures for any number of callers on one device.

    Building one is cheap and imports no torch; `start` begins the work on a thread of its own.
    """

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        self.settings = settings
        self.plugins = plugins
        self.catalogue = plugins.catalogue(settings)
        self._observers = Observers(plugins)
        self._worker = Worker(
            self._choose_device,
            self._load,
            settings,
            self._observers,
            preload=self._first_models,
        )
        self._admitting = Admitting(most=settings.limits.queue, seconds=settings.sampler_seconds)
        self._finishing = ThreadPoolExecutor(PUT_BACK, thread_name_prefix="imagine-finish")
        self._started = self._closed = False

    def start(self) -> None:
        """Start the device's thread; does nothing the second time."""
        if not self._started:
            self._started = True
            self._observers.start()
            self._worker.start()

    def close(self, *, grace: float = 5.0) -> None:
        """Take no more work, finish what is in progress within `grace` seconds, and stop."""
        if self._started and not self._closed:
            self._closed = True
            self._worker.stop(grace=grace)
            self._observers.close()

    @property
    def stopping(self) -> bool:
        """Whether the engine takes no more work."""
        return self._closed

    @property
    def _lost(self) -> bool:
        """Whether the device's thread has died: no request would be answered."""
        return self._worker.ended and not self._closed

    async def admit(
        self, request: GenerationRequest, *, errors: Sequence[FieldError] = ()
    ) -> Admitted:
        """Validate and resolve `request`, once for all later stages.

        Few requests with pictures are admitted at once; those without one do not wait for them.

        Args:
            request: What to make.
            errors: Fields of it that could not be parsed.

        Raises:
            RequestError: Fields are invalid; lists all of them, `errors` included.
            UnknownName, UnusableModel, ShuttingDown, Stalled, GenerationFailed: It cannot run.
            Busy: As many pictures as may wait are waiting to be decoded.
        """
        self._require_open()
        look = partial(
            admit,
            request,
            known=self._known(),
            limits=self.settings.limits,
            guard=self._admitting.guard,
            errors=errors,
        )
        if request.init_image is None and not request.controls:
            return await asyncio.to_thread(look)  # does not wait for the pictures of others
        return await self._admitting.admit(look)

    async def admit_upscale(self, request: UpscaleRequest) -> Upscaling:
        """Validate and resolve a request to enlarge a picture; errors as in `admit`."""
        self._require_open()
        return await self._admitting.admit(partial(admit_upscale, request, known=self._known()))

    def prepare(self, preprocessor: Preprocessor, image: Image.Image) -> Image.Image:
        """The hint that a preprocessor makes of an RGB picture, RGB, of the same size; blocks.

        Raises:
            GenerationFailed: It raises, gives something else, or does not return in time.
        """
        return self._admitting.prepare(preprocessor, image)

    def _known(self) -> Known:
        return Known(
            samplers=self.plugins.samplers,
            catalogue=self.catalogue,
            upscalers=self.plugins.upscalers,
            preprocessors=self.plugins.preprocessors,
        )

    async def generate(
        self,
        request: GenerationRequest | Admitted,
        *,
        id: str | None = None,  # noqa: A002 - the public name
    ) -> AsyncGenerator[GenerationEvent, None]:
        """The events of one request, its pictures in the last; closing the iterator cancels it.

        Args:
            request: What to make; `admit` is called unless it has been.
            id: Identifies the generation in `status` and for observers; random by default.

        Raises:
            RequestError, UnknownName, UnusableModel, Busy: before the first event.
            OutOfMemory, GenerationFailed, UnusableModel, ShuttingDown, Stalled: after it.
        """
        self.start()
        admitted = request if isinstance(request, Admitted) else await self.admit(request)
        async with aclosing(self._run(Generating(admitted), id)) as events:
            async for event in events:
                if isinstance(event, GenerationResult) and admitted.repaints:
                    yield await self._put_back(admitted, event)
                else:
                    yield cast("GenerationEvent", event)

    async def _put_back(self, admitted: Admitted, result: GenerationResult) -> GenerationResult:
        """`result` with what was drawn in the pictures that it is a part of."""
        work = partial(
            finished,
            result.request,
            admitted.repaints,
            [each.image for each in result.images],
        )
        try:
            pictures = await asyncio.get_running_loop().run_in_executor(self._finishing, work)
        except MemoryError as error:
            message = "memory ran out as the whole pictures were made; try fewer of them at once"
            raise OutOfMemory(message) from error
        images = zip(result.images, pictures, strict=True)
        return replace(result, images=tuple(replace(each, image=image) for each, image in images))

    async def upscale(
        self,
        request: UpscaleRequest | Upscaling,
        *,
        id: str | None = None,  # noqa: A002 - as in `generate`
    ) -> AsyncGenerator[UpscaleEvent, None]:
        """The events of enlarging a picture, which is in the last; closing the iterator cancels it.

        Steps are hundredths of the work. Args and errors are those of `generate`.
        """
        self.start()
        task = request if isinstance(request, Upscaling) else await self.admit_upscale(request)
        async with aclosing(self._run(task, id)) as events:
            async for event in events:
                yield cast("UpscaleEvent", event)

    async def _run(self, task: Task, id: str | None) -> AsyncGenerator[JobEvent, None]:  # noqa: A002
        self._require_open()
        job = Job(task, asyncio.get_running_loop(), id=id or new_id())
        self._submit(job)
        try:
            yield PhaseEvent(phase="queued", position=job.position)
            async for event in job.events():
                yield event
        finally:
            self._worker.cancel(job)

    def unload(self, name: str) -> Unloaded:
        """Unload the model `name`: now, or as soon as its pictures in progress are done."""
        done = self._worker.models.unload(name)
        if done == "not loaded":
            self.catalogue.find(name)
        return done

    def status(self) -> EngineStatus:
        """A snapshot of the engine."""
        worker = self._worker
        failure = worker.failure
        if self._lost:
            failure = ImagineError(LOST)
        device = worker.device
        forwards, evaluations = worker.work
        return EngineStatus(
            ready=self._started and worker.ready.is_set() and not (failure or worker.stalled),
            device=None if device is None else device.name,
            dtype=None if device is None else self._dtype(device),
            failure=None if failure is None else str(failure),
            stalled=worker.stalled,
            forwards=forwards,
            evaluations=evaluations,
            loaded=worker.models.loaded(),
            jobs=[job.status() for job in worker.jobs()],
        )

    def _submit(self, job: Job) -> None:
        self._observers.started(job)
        try:
            self._worker.submit(job, limit=self.settings.limits.queue)
        except Busy as error:
            job.outcome, job.error = "refused", error
            self._observers.finished(job)
            error.observed = True
            raise

    def _require_open(self) -> None:
        if self._closed:
            raise ShuttingDown
        if self._worker.stalled is not None:
            raise self._worker.stalled
        if self._lost:
            raise GenerationFailed(LOST)

    def _choose_device(self) -> Device:
        devices = self.plugins.devices
        if self.settings.device.casefold() != "auto":
            device = devices.get(self.settings.device)
            problem = device.unavailable()
            if problem is not None:
                raise SettingsError(f"device {device.name!r} cannot be used: {problem}")
            return device
        for device in sorted(devices, key=lambda device: -device.priority):
            if device.unavailable() is None:
                return device
        raise SettingsError("no device is available on this machine")

    def _first_models(self) -> list[ModelInfo]:
        """The models to load at the start."""
        infos = [self.catalogue.get(name) for name in self.settings.preload]
        if self.settings.default_model is not None:
            infos.insert(0, self.catalogue.default())
        return list({info.path: info for info in infos}.values())

    def _load(self, device: Device, info: ModelInfo, progress: Callable[[float], None]) -> Any:
        loader = self.plugins.loaders.get(info.loader)
        return loader.load(
            info,
            device=device,
            full_precision=self.settings.full_precision,
            progress=progress,
        )

    def _dtype(self, device: Device) -> str:
        if self.settings.full_precision:
            return "float32"
        return str(device.dtype()).removeprefix("torch.")


def build_engine(settings: Settings, plugins: Plugins) -> Engine:
    """An engine over what `plugins` registered; nothing heavy happens before it starts.

    Call it before other threads start: from here on, this process's allocator keeps freed
    memory while pictures are in progress (`keep_freed`).
    """
    keep_freed()
    return Engine(settings, plugins)
