"""Loads the models of waiting jobs, on a thread beside the device's."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from imagine_core.errors import ImagineError, OutOfMemory, UnusableModel
from imagine_core.models.cache import ModelCache
from imagine_core.models.folders import LABELS
from imagine_core.models.memory import (
    Memory,
    Workspace,
    give_back,
    out_of_memory,
    trim,
    weight_bytes,
)

if TYPE_CHECKING:
    from pathlib import Path

    from imagine_core.engine.jobs import Job
    from imagine_core.interfaces import Device, ModelInfo
    from imagine_core.models.memory import Work
    from imagine_core.types import Phase

    Load = Callable[[Device, ModelInfo, Callable[[float], None]], Any]
    Loaded = Callable[[Job, Mapping[Path, Any], ExitStack], None]
    Failed = Callable[[Job, BaseException], None]

log = logging.getLogger("imagine")

PATIENCE_SECONDS = 5.0
"""How long jobs may overtake one whose model has no room."""


class Loading:
    """The models of one device, and the thread that loads them, one at a time.

    Args:
        device: The device, once it is chosen.
        load: Loads a model onto the device, and reports progress.
        keep_alive: Seconds that an idle model stays loaded; -1 for ever.
        full_precision: Whether weights are float32 whatever the device would choose.
    """

    def __init__(
        self,
        device: Callable[[], Device],
        load: Load,
        *,
        keep_alive: float,
        full_precision: bool,
    ) -> None:
        self.ready = threading.Event()
        self.jobs: list[Job] = []
        self.models = ModelCache(
            lambda info: load(device(), info, partial(self._tell, info.path)),
            keep_alive=keep_alive,
            memory=Memory(
                free=lambda: device().free_memory(),
                weigh=lambda info: weight_bytes(info, self._itemsize()),
                give_back=self._give_back,
            ),
        )
        self._device = device
        self._full_precision = full_precision
        self._workspace = Workspace()
        self._rested = True
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="imagine-load")

    def start(self, preload: Callable[[], Iterable[ModelInfo]]) -> None:
        """Load the models of `preload`, then set `ready`."""
        self._pool.submit(self._load_first, preload)

    def close(self) -> None:
        """Finish the load in progress, then unload every model."""
        self._pool.shutdown()
        self.models.close()

    @property
    def halved(self) -> bool:
        """Whether models compute in less than float32."""
        return self._itemsize() < 4

    # -- on the device's thread ------------------------------------------------------------

    def has_room(self, job: Job) -> bool:
        """Whether there is memory for `job`; unloads idle models for it."""
        if not self.ready.is_set():  # its load is queued behind the preloads
            return True
        if not job.infos:
            return True
        loading = {info.path for each in self.jobs for info in each.infos}
        cold = {info.path for info in job.infos if not self.models.has(info)}
        if cold and cold <= loading:
            return True
        if loading and cold:  # the load in progress has yet to take memory
            return False
        needed = self._workspace.expect(job.work, self._itemsize())
        return self.models.make_room(*job.infos, work=needed) or not cold

    def waits_too_long(self, job: Job) -> bool:
        """Whether `job` has lacked room for so long that the jobs behind it must wait too.

        So models in use become idle, however many requests for them come.
        """
        now = time.monotonic()
        if job.wants_room_since is None:
            job.wants_room_since = now
        return now - job.wants_room_since > PATIENCE_SECONDS

    def submit(self, job: Job, *, loaded: Loaded, failed: Failed) -> None:
        """Load what `job` needs, then call `loaded` or `failed` on the loader's thread."""
        self.jobs.append(job)
        self._pool.submit(self._load, job, loaded, failed)

    def lease(self, job: Job, resources: ExitStack) -> Mapping[Path, Any]:
        """What `job` needs, by path, for as long as `resources` are open."""
        leased = {}
        for info in job.infos:
            try:
                leased[info.path] = resources.enter_context(self.models.lease(info))
            except Exception as error:
                if info is job.infos[0] or isinstance(error, ImagineError) or out_of_memory(error):
                    raise
                log.exception("loader %r failed on %s", info.loader, info.path)
                problem = f"its loader failed with {type(error).__name__}; the log says more"
                raise UnusableModel(info.name, problem, kind=LABELS[info.kind]) from error
        return leased

    @contextmanager
    def watching_memory(self, work: Work, phase: Phase, rows: int = 1) -> Iterator[None]:
        """Measure the memory of the block, unless it is known or a load takes memory too."""
        self._rested = False
        if not self._workspace.is_new(work, phase, rows):
            yield
            return
        trim()  # memory kept from larger work would hide what this takes
        taken = self._device().watch_memory()
        yield
        if self.ready.is_set() and not self.jobs:
            self._workspace.record(work, phase, rows, taken())

    def rest(self) -> None:
        """Return the memory kept for the next step, once no job is in progress."""
        if not self._rested:
            self._rested = True
            trim()

    def smaller(self, job: Job) -> tuple[int, int] | None:
        """A smaller size than that of `job` that memory should suffice for."""
        free = self._device().free_memory()
        return self._workspace.smaller(job.work, self._itemsize(), free=free)

    def reclaim(self) -> bool:
        """Return unused memory after it ran out; whether idle models were unloaded."""
        self._give_back()
        return self.models.drop_idle()

    # -- on the loader's thread ------------------------------------------------------------

    def _load_first(self, preload: Callable[[], Iterable[ModelInfo]]) -> None:
        try:
            for info in preload():
                self._preload(info)
        except BaseException as error:  # a request for the model will raise it again
            log.error("not every model was preloaded: %s", error)  # noqa: TRY400
        self.ready.set()

    def _preload(self, info: ModelInfo) -> None:
        if self.models.loaded() and not self.models.fits(info):
            log.warning("%s was not preloaded: it does not fit beside the others", info.name)
            return
        try:
            with self.models.lease(info):
                pass
        except BaseException as error:
            log.error("%s was not preloaded: %s", info.name, error)  # noqa: TRY400

    def _load(self, job: Job, loaded: Loaded, failed: Failed) -> None:
        started, resources = time.perf_counter(), ExitStack()
        try:
            leased = self.lease(job, resources)
        except BaseException as error:  # the future, which nothing reads, would swallow it
            resources.close()
            failed(job, _explained(job, error))
        else:
            job.timings["loading"] = time.perf_counter() - started
            loaded(job, leased, resources)

    def _tell(self, path: Path, fraction: float) -> None:
        """Tell all jobs that wait for a model how much of it is loaded."""
        for job in list(self.jobs):
            if any(info.path == path for info in job.infos[:1]):
                job.loading(fraction)

    def _itemsize(self) -> int:
        return 4 if self._full_precision else self._device().dtype().itemsize

    def _give_back(self) -> None:
        give_back()
        self._device().empty_cache()


def _explained(job: Job, error: BaseException) -> BaseException:
    if not out_of_memory(error):
        return error
    return OutOfMemory(
        f"there is not enough memory for model {job.facts.model!r}; take a smaller one, "
        "leave out --full_prec if it is on, or end other programs"
    )
