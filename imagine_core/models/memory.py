"""Estimates the memory of models and pictures, and returns it to the system."""

from __future__ import annotations

import gc
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from imagine_core.interfaces import ModelInfo
    from imagine_core.types import Phase

__all__ = [
    "out_of_memory",
    "process_memory",
]

ROOM = 1.5
"""Memory of a model whose number of parameters is not known, as a multiple of its file."""

OVERHEAD = 1.1
"""Memory of a model as a multiple of its weights: an autoencoder may be kept in float32, and a
load holds one tensor twice."""

VALUES_PER_PIXEL = 2048
"""Upper bound for a picture that was never measured. The autoencoder's decoder is the peak: it
holds some eight maps of 256 channels at the picture's own size."""

SIZE_STEP = 64
"""Suggested sizes are multiples of this."""

REMEMBERED = 256

HEAP_GROWTH = 64 * 2**20
"""Bytes by which the heap grows at a time; untouched pages take no memory."""


class Work(NamedTuple):
    """A model and the size of a picture in pixels: what the cost of a row depends on."""

    model: Path
    width: int
    height: int


def weight_bytes(info: ModelInfo, itemsize: int) -> int:
    """Bytes that the weights of `info` take in memory, at `itemsize` bytes each.

    LoRAs and embeddings stay as their files have them.
    """
    if info.kind in ("lora", "embedding"):
        return info.size
    if info.parameters is None:
        return int(info.size * ROOM)
    return int(info.parameters * itemsize * OVERHEAD)


def process_memory() -> tuple[int, int] | None:
    """Bytes of memory that this process has, and the machine; None where the system is silent."""
    try:
        page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        resident = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (AttributeError, OSError, ValueError):
        return None
    return resident * page, page * pages


def keep_freed() -> None:
    """Make this process's allocator keep freed memory until `trim`.

    By default glibc maps and unmaps each large block, so that every activation of every forward
    costs page faults and zeroing: a fifth of a CPU's time in float32. Call it before the threads
    that compute start, since a thread keeps its first arena.
    """
    arenas, mappings, threshold, padding = -8, -4, -1, -2  # malloc.h: M_ARENA_MAX and so on
    for option, value in ((arenas, 1), (mappings, 0), (threshold, -1), (padding, HEAP_GROWTH)):
        _glibc("mallopt", option, value)


def trim() -> None:
    """Return free heap memory to the operating system."""
    _glibc("malloc_trim", 0)


def give_back() -> None:
    """Collect garbage, then return free heap memory to the operating system."""
    gc.collect()
    trim()


def _glibc(function: str, *arguments: int) -> None:
    import ctypes

    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # a C library other than glibc
            getattr(ctypes.CDLL(None), function)(*arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory of a device.

    Attributes:
        free: Bytes that are free, or None where the device cannot tell.
        weigh: Bytes that a model's weights will take.
        give_back: Returns unused memory to the system.
    """

    free: Callable[[], int | None] = lambda: None
    weigh: Callable[[ModelInfo], int] = lambda info: weight_bytes(info, 2)
    give_back: Callable[[], None] = give_back

    def has(self, size: int) -> bool:
        """Whether so many bytes are free; a device that cannot tell has room for everything."""
        free = self.free()
        return free is None or size <= free


class Workspace:
    """The memory that pictures take beside the weights: measured, or an upper bound until then."""

    def __init__(self) -> None:
        self._most: dict[Work, int] = {}
        self._rows: dict[tuple[Work, Phase], int] = {}

    def is_new(self, work: Work, phase: Phase, rows: int) -> bool:
        """Whether `rows` rows at once are yet to be measured."""
        return rows > self._rows.get((work, phase), 0)

    def record(self, work: Work, phase: Phase, rows: int, taken: int | None) -> None:
        """Record that a phase of `rows` pictures took `taken` bytes."""
        while len(self._rows) >= 4 * REMEMBERED:
            del self._rows[next(iter(self._rows))]
        self._rows[work, phase] = rows
        if taken is None or taken <= self._most.get(work, 0):
            return
        while len(self._most) >= REMEMBERED:
            del self._most[next(iter(self._most))]
        self._most[work] = taken

    def expect(self, work: Work, itemsize: int) -> int:
        """Bytes that a picture of this model and size is expected to take."""
        if work in self._most:
            return self._most[work]
        path, width, height = work
        pixels = width * height
        measured = [(w * h, taken) for (p, w, h), taken in self._most.items() if p == path]
        if not measured:
            return pixels * VALUES_PER_PIXEL * itemsize
        nearest, taken = max(measured)
        return taken * max(pixels, nearest) // nearest

    def smaller(self, work: Work, itemsize: int, *, free: int | None) -> tuple[int, int] | None:
        """The largest size of about this shape that should fit in `free` bytes, or None.

        Where `free` exceeds the estimate already, it has half as many pixels.
        """
        _, width, height = work
        needed = self.expect(work, itemsize)
        share = free / needed if free is not None and free < needed else 0.5
        fits = [int(side * math.sqrt(share)) // SIZE_STEP * SIZE_STEP for side in (width, height)]
        return (fits[0], fits[1]) if min(fits) else None


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on the device or on the machine."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
