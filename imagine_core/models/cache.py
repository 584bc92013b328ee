"""Model lifetime: loaded at first use, leased while in use, unloaded when idle for too long."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from imagine_core.errors import OutOfMemory, UnusableModel
from imagine_core.interfaces import ModelInfo
from imagine_core.models.memory import Memory, out_of_memory
from imagine_core.models.stamps import Stamp, has_changed, stamp_of

__all__ = [
    "LoadedModel",
    "Unloaded",
]

log = logging.getLogger("imagine")

TRIES = 2
"""A file that was replaced is whole at the second try; else it is still being written."""

Load = Callable[[ModelInfo], Any]
Unloaded = Literal["unloaded", "when idle", "not loaded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model, or what changes one, in memory, as `GET /ps` shows it.

    Attributes:
        name, family, kind: As in the catalogue.
        size: Bytes on disk.
        memory: Bytes in memory, estimated.
        in_use: Requests that use it.
        idle_seconds: Seconds since its last use; 0 while in use.
        expires_in: Seconds until it is unloaded unless it is used; None for never.
    """

    name: str
    family: str
    size: int
    memory: int
    in_use: int
    idle_seconds: float
    expires_in: float | None
    kind: str = "model"


@dataclass(eq=False, slots=True)
class _Entry:
    info: ModelInfo
    stamp: Stamp
    model: Any
    memory: int
    leases: int = 0
    idle_since: float = field(default=0.0)
    leaving: bool = False


class ModelCache:
    """The loaded models of one device, and the LoRAs, embeddings and VAEs that change them.

    Args:
        load: Loads a model; called for one model at a time.
        keep_alive: Seconds that an idle model stays; 0 unloads it at once, -1 never.
        memory: The memory of the device.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        load: Load,
        *,
        keep_alive: float,
        memory: Memory | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._keep_alive = keep_alive
        self._memory = memory or Memory()
        self._clock = clock
        self._entries: dict[Path, _Entry] = {}
        self._replaced: list[_Entry] = []
        self._lock = threading.RLock()
        self._loading = threading.Lock()
        self._coming: str | None = None
        self._unwanted = False

    @contextmanager
    def lease(self, info: ModelInfo) -> Iterator[Any]:
        """What its loader gives, loaded if need be, for as long as the block runs.

        Concurrent leases of one cold model load it once. A file that has changed on disk since it
        was loaded is loaded again; leases of the old one keep the old one.
        """
        entry = self._acquire(info)
        try:
            yield entry.model
        finally:
            self._release(entry)

    def has(self, info: ModelInfo) -> bool:
        """Whether a lease of `info` would be granted without loading."""
        with self._lock:
            return self._fresh(info) is not None

    def loaded(self) -> list[LoadedModel]:
        """What is loaded, models first, by name."""
        with self._lock:
            rows = [self._row(entry) for entry in self._entries.values()]
        return sorted(rows, key=lambda row: (row.kind != "model", row.name))

    def make_room(self, *infos: ModelInfo, work: int = 0) -> bool:
        """Unload what is idle, the longest first, until all `infos` fit with `work` beside them.

        They are weighed together: of two jobs that held one each, neither would get the other.

        Returns:
            False if they will fit only after a model in use is released.

        Raises:
            OutOfMemory: Their weights alone can never fit.
        """
        with self._lock:
            entries = {info.path: self._fresh(info) for info in infos}
            cold = [info for info in infos if not entries[info.path]]
            weights = sum(map(self._memory.weigh, cold))
            others = [each for each in self._held() if each not in entries.values()]
            info = max(cold or infos, key=self._memory.weigh)
            self._refuse_hopeless(info, weights, sum(each.memory for each in others))
            idle = sorted((e for e in others if not e.leases), key=lambda e: e.idle_since)
            if not self._memory.has(weights + work):
                self._memory.give_back()  # free heap memory counts as taken
            while not self._memory.has(weights + work):
                if not idle:
                    return self._may_try_anyway(info, weights, others)
                leaving = idle.pop(0)
                log.info("%s leaves the memory to %s", leaving.info.name, info.name)
                self._drop(leaving)
            return True

    def fits(self, info: ModelInfo) -> bool:
        """Whether `info` could be loaded beside all that is loaded already."""
        return self._memory.has(self._memory.weigh(info))

    def drop_idle(self) -> bool:
        """Unload all idle models; whether there were any."""
        with self._lock:
            idle = [entry for entry in self._entries.values() if not entry.leases]
            self._drop(*idle)
            return bool(idle)

    def sweep(self) -> None:
        """Unload the models that have been idle for longer than `keep_alive`."""
        if self._keep_alive < 0:
            return
        now = self._clock()
        with self._lock:
            idle = [entry for entry in self._entries.values() if not entry.leases]
            self._drop(*(e for e in idle if now - e.idle_since >= self._keep_alive))

    def unload(self, name: str) -> Unloaded:
        """Unload the model `name`: now, or as soon as its pictures in progress are done."""
        with self._lock:
            models_first = sorted(self._entries.values(), key=lambda e: e.info.kind != "model")
            for entry in models_first:
                if entry.info.name.casefold() == name.casefold():
                    entry.leaving = True
                    if entry.leases:
                        return "when idle"
                    self._drop(entry)
                    return "unloaded"
            if self._coming == name.casefold():
                self._unwanted = True
                return "when idle"
        return "not loaded"

    def close(self) -> None:
        """Unload every model."""
        with self._lock:
            for entry in self._held():
                entry.model.close()
            self._entries.clear()
            self._replaced.clear()

    def _acquire(self, info: ModelInfo) -> _Entry:
        entry = self._warm(info)  # a loaded model needs no wait for another's load
        if entry is not None:
            return entry
        with self._loading:
            entry = self._warm(info)
            if entry is not None:
                return entry
            self.make_room(info)
            with self._announced(info):
                return self._load_entry(info)

    @contextmanager
    def _announced(self, info: ModelInfo) -> Iterator[None]:
        """Let `unload` find `info` during the block, which loads it."""
        self._coming, self._unwanted = info.name.casefold(), False
        try:
            yield
        finally:
            self._coming = None

    def _load_entry(self, info: ModelInfo) -> _Entry:
        try:
            stamp, model = _load_settled(info, self._load_or_retry)
        except FileNotFoundError:
            if info.path.exists():
                raise
            raise UnusableModel(info.name, "its file was removed meanwhile") from None
        entry = _Entry(info, stamp, model, self._memory.weigh(info), leases=1)
        with self._lock:
            entry.leaving = self._unwanted
            self._entries[info.path] = entry
        return entry

    def _load_or_retry(self, info: ModelInfo) -> Any:
        """Load; if memory runs out, unload the idle models and try again."""
        try:
            return self._load(info)
        except Exception as error:
            if not out_of_memory(error) or not self.drop_idle():
                raise
        return self._load(info)

    def _warm(self, info: ModelInfo) -> _Entry | None:
        with self._lock:
            entry = self._fresh(info)
            if entry is not None:
                entry.leases += 1
            return entry

    def _release(self, entry: _Entry) -> None:
        with self._lock:
            entry.leases -= 1
            entry.idle_since = self._clock()
            if not entry.leases and (entry.leaving or self._keep_alive == 0):
                self._drop(entry)

    def _fresh(self, info: ModelInfo) -> _Entry | None:
        entry = self._entries.get(info.path)
        if entry is None:
            return None
        if not has_changed(info.path, entry.stamp):  # also if it was removed
            return entry
        if not entry.leases:
            self._drop(entry)
            return None
        entry.leaving = True
        self._replaced.append(self._entries.pop(info.path))
        return None

    def _refuse_hopeless(self, info: ModelInfo, weights: int, others: int) -> None:
        """Raise if `weights` do not fit even once the memory of `others` is free."""
        if not weights or self._memory.has(weights - others):
            return
        self._memory.give_back()
        free = self._memory.free()
        if free is not None and weights > free + others:
            raise OutOfMemory(
                f"model {info.name!r} needs about {_gigabytes(weights)} GB of memory, and "
                f"{_gigabytes(free + others)} GB is all there is with no other model loaded; "
                "take a smaller model, leave out --full_prec if it is on, or end other programs"
            )

    def _may_try_anyway(self, info: ModelInfo, weights: int, others: list[_Entry]) -> bool:
        """Whether to load although there is less room than expected to be needed."""
        if any(each.leases for each in others):
            return False
        self._refuse_hopeless(info, weights, 0)
        return True

    def _held(self) -> list[_Entry]:
        """All entries in memory, those replaced on disk but still in use included."""
        return [*self._entries.values(), *self._replaced]

    def _drop(self, *entries: _Entry) -> None:
        for entry in entries:
            if self._entries.get(entry.info.path) is entry:
                del self._entries[entry.info.path]
            elif entry in self._replaced:
                self._replaced.remove(entry)
            entry.model.close()
        if entries:
            self._memory.give_back()

    def _row(self, entry: _Entry) -> LoadedModel:
        idle = 0.0 if entry.leases else self._clock() - entry.idle_since
        expires = None if self._keep_alive < 0 or entry.leases else self._keep_alive - idle
        return LoadedModel(
            name=entry.info.name,
            family=entry.info.family,
            size=entry.info.size,
            memory=entry.memory,
            in_use=entry.leases,
            idle_seconds=idle,
            expires_in=None if expires is None else max(0.0, expires),
            kind=entry.info.kind,
        )


def _load_settled(info: ModelInfo, load: Load) -> tuple[Stamp, Any]:
    """The model, read whole from one version of its file, and the stamp of that version.

    Raises:
        UnusableModel: It cannot be loaded, or its file keeps changing.
    """
    for _ in range(TRIES):
        stamp = stamp_of(info.path)
        try:
            model = load(info)
        except UnusableModel:
            if not has_changed(info.path, stamp):
                raise
            continue
        if not has_changed(info.path, stamp):
            return stamp, model
        model.close()
    raise UnusableModel(info.name, "its file is being written; ask again when it is whole")


def _gigabytes(size: int) -> float:
    return math.ceil(size / 1e8) / 10
