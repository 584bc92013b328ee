"""Model lifetime: loaded at first use, leased while in use, let go when idle for too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from imagine_core.catalogue import Stamp, stamp_of
from imagine_core.interfaces import DiffusionModel, ModelInfo

ROOM = 1.5
"""Free memory that a load wants, as a multiple of the file: weights in another dtype, and work."""

Load = Callable[[ModelInfo], DiffusionModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model in memory, as `GET /ps` shows it."""

    name: str
    family: str
    size: int
    in_use: int
    idle_seconds: float


@dataclass(slots=True)
class _Entry:
    info: ModelInfo
    stamp: Stamp
    model: DiffusionModel
    leases: int = 0
    idle_since: float = field(default=0.0)


class ModelCache:
    """The loaded models of one device.

    Args:
        load: Loads a model; called for one model at a time.
        keep_alive: Seconds that an idle model stays; 0 lets it go at once, -1 never.
        free_memory: Bytes free on the device, or None where it cannot tell.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        load: Load,
        *,
        keep_alive: float,
        free_memory: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._keep_alive = keep_alive
        self._free_memory = free_memory
        self._clock = clock
        self._entries: dict[Path, _Entry] = {}
        self._lock = threading.RLock()
        self._loading = threading.Lock()

    @contextmanager
    def lease(self, info: ModelInfo) -> Iterator[DiffusionModel]:
        """The model, loaded if need be, for as long as the block runs.

        Concurrent leases of one cold model load it once. A file that has changed on disk since it
        was loaded is loaded anew; leases of the old one go on with the old one.
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
        """What is in memory, by name."""
        now = self._clock()
        with self._lock:
            rows = [
                LoadedModel(
                    name=entry.info.name,
                    family=entry.info.family,
                    size=entry.info.size,
                    in_use=entry.leases,
                    idle_seconds=0.0 if entry.leases else now - entry.idle_since,
                )
                for entry in self._entries.values()
            ]
        return sorted(rows, key=lambda row: row.name)

    def sweep(self) -> None:
        """Let go of the models that have been idle for longer than `keep_alive`."""
        if self._keep_alive < 0:
            return
        now = self._clock()
        with self._lock:
            for entry in list(self._entries.values()):
                if not entry.leases and now - entry.idle_since >= self._keep_alive:
                    self._drop(entry)

    def unload(self, name: str) -> bool:
        """Let go of the idle model `name`; False if it is not loaded or in use."""
        with self._lock:
            for entry in list(self._entries.values()):
                if entry.info.name == name and not entry.leases:
                    self._drop(entry)
                    return True
        return False

    def close(self) -> None:
        """Let go of every model."""
        with self._lock:
            for entry in list(self._entries.values()):
                self._drop(entry)

    def _acquire(self, info: ModelInfo) -> _Entry:
        entry = self._warm(info)  # whoever finds it loaded does not wait for another's load
        if entry is not None:
            return entry
        with self._loading:
            entry = self._warm(info)
            if entry is not None:
                return entry
            self._make_room(info)
            stamp = stamp_of(info.path)
            entry = _Entry(info, stamp, self._load(info), leases=1)
            with self._lock:
                self._entries[info.path] = entry
            return entry

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
            replaced = self._entries.get(entry.info.path) is not entry
            if not entry.leases and (replaced or self._keep_alive == 0):
                self._drop(entry)

    def _fresh(self, info: ModelInfo) -> _Entry | None:
        entry = self._entries.get(info.path)
        if entry is None:
            return None
        try:
            unchanged = stamp_of(info.path) == entry.stamp
        except OSError:  # removed from disk: what is in memory still serves
            return entry
        if unchanged:
            return entry
        del self._entries[info.path]
        if not entry.leases:
            entry.model.close()
        return None

    def _make_room(self, info: ModelInfo) -> None:
        """Let go of idle models, the longest idle first, until `info` fits."""
        with self._lock:
            idle = [entry for entry in self._entries.values() if not entry.leases]
            for entry in sorted(idle, key=lambda entry: entry.idle_since):
                free = self._free_memory()
                if free is None or free > info.size * ROOM:
                    return
                self._drop(entry)

    def _drop(self, entry: _Entry) -> None:
        if self._entries.get(entry.info.path) is entry:
            del self._entries[entry.info.path]
        entry.model.close()
