"""Reads tensors into modules: checked name by name, never mapped to the file.

A mapped file that is overwritten ends the process with SIGBUS, so every tensor is read into memory
of its own; in pieces that are cast at once, so that this needs little more than the result.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from imagine_plugins.loaders.components import FLOATS, Component, Stored, same_shape
from imagine_plugins.loaders.layout import Slot
from imagine_plugins.loaders.problems import ProblemError

if TYPE_CHECKING:
    import torch

READERS = 2
"""Threads that fill a module: one reads while the other casts."""

PIECE = 2**20
"""Bytes that are read before they are cast: they are still in the processor's cache then."""


class WeightsError(ProblemError):
    """The weights do not fit the model; the text names the tensor."""


def build(
    create: Callable[[], Any],
    component: Component,
    *,
    dtype: torch.dtype,
    device: str,
    meter: Callable[[int], object] = id,
) -> Any:
    """Create a module without weights, fill it from files and put it on the device.

    Args:
        create: Makes the module; its parameters are never allocated.
        component: The tensors that fill it.
        dtype: What the parameters are cast to, one at a time.
        device: Where they go.
        meter: Called with the bytes of each tensor that was read.
    """
    module = _empty(create)
    parameters = {_flat(name): value for name, value in module.named_parameters()}
    names = {_flat(name): name for name, _ in module.named_parameters()}
    if component.slots is None:
        slots = [Slot(name, tuple(value.shape), (name,)) for name, value in parameters.items()]
        component = replace(component, slots=slots)
        if component.problem is not None:
            raise WeightsError(component.problem)

    room = _Room(parameters.values(), dtype) if device == "cpu" else None

    def fitted(target: str, value: torch.Tensor) -> torch.Tensor:
        shaped = _shaped(target, value, parameters[target].shape)
        if room is None:
            return shaped.to(dtype).to(device)
        return shaped if room.holds(shaped) else room.take(shaped)

    state: dict[str, torch.Tensor] = {}
    for filled, size in _filled(component, parameters, fitted, room):
        state |= {names[target]: value for target, value in filled.items()}
        meter(size)
    module.load_state_dict(state, strict=False, assign=True)
    _require_complete(module)
    module.to(device)  # the buffers; the parameters are there already
    return module.requires_grad_(requires_grad=False).eval()


class _Room:
    """Memory for all parameters of a module at once.

    A separate mmap is returned to the system at once when freed. Huge pages are not asked for: they
    make loading a fifth faster on a physical machine, and twice as slow on a virtual one that
    returns free pages to its host.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], dtype: torch.dtype) -> None:
        import torch

        self._dtype = dtype
        self._used = 0
        self._lock = Lock()
        size = sum(self._aligned(parameter.numel()) for parameter in parameters)
        self._values = torch.frombuffer(_mapped(max(1, size) * dtype.itemsize), dtype=dtype)

    def take(self, value: torch.Tensor) -> torch.Tensor:
        """A copy of `value` in this memory."""
        return self.reserve(value.numel()).view(value.shape).copy_(value)

    def reserve(self, count: int) -> torch.Tensor:
        """`count` values of this memory, for the caller to fill."""
        with self._lock:
            start = self._used
            self._used += self._aligned(count)
        return self._values[start : start + count]

    def holds(self, value: torch.Tensor) -> bool:
        """Whether `value` is in this memory already."""
        return value.untyped_storage().data_ptr() == self._values.untyped_storage().data_ptr()

    def _aligned(self, count: int) -> int:
        """`count` rounded up to whole cache lines."""
        line = 64 // self._dtype.itemsize
        return -(-count // line) * line


def _mapped(size: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _empty(create: Callable[[], Any]) -> Any:
    from accelerate import init_empty_weights

    try:
        with init_empty_weights():
            return create()
    except Exception as error:  # a configuration can be wrong in every way that a library knows
        raise WeightsError(f"its configuration cannot be built: {error!s:.300}") from error


def _flat(name: str) -> str:
    """Since transformers 5.6, CLIPTextModelWithProjection alone has the level `text_model`."""
    return name.removeprefix("text_model.")


def _filled(
    component: Component,
    wanted: Container[str],
    fitted: Callable[[str, torch.Tensor], torch.Tensor],
    room: _Room | None,
) -> Iterator[tuple[dict[str, torch.Tensor], int]]:
    """The values that each stored tensor gives, with its bytes, in the order of the files.

    A tensor that is one parameter as it stands is read into `room` at once.
    """
    weights = component.weights
    found = [(weights[slot.key], slot) for slot in component.slots or () if slot.key in weights]
    found.sort(key=lambda pair: (pair[0].path, pair[0].tensor.start))

    def fill(pair: tuple[Stored, Slot]) -> tuple[dict[str, torch.Tensor], int]:
        stored, slot = pair
        size = stored.tensor.end - stored.tensor.start
        as_it_stands = not slot.transposed and len(slot.targets) == 1 and slot.targets[0] in wanted
        value = read(stored, room if as_it_stands else None)
        parts = (value.T.contiguous() if slot.transposed else value).chunk(len(slot.targets))
        values = zip(slot.targets, parts, strict=True)
        return {name: fitted(name, part) for name, part in values if name in wanted}, size

    with _opened() as read, ThreadPoolExecutor(READERS, "imagine-read") as pool:
        try:
            yield from pool.map(fill, found)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _shaped(name: str, value: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    if not same_shape(tuple(value.shape), tuple(shape)):
        raise WeightsError(
            f"parameter {name!r} wants the shape {list(shape)}, the file has {list(value.shape)}"
        )
    return value.reshape(shape)


def _require_complete(module: Any) -> None:
    """A parameter left on the meta device would fail at the first picture, without its name."""
    empty = [name for name, value in module.named_parameters() if value.is_meta]
    empty += [name for name, value in module.named_buffers() if value.is_meta]
    if empty:
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise WeightsError(f"the file has no weights for {empty[0]!r}{more}")


@contextmanager
def _opened() -> Iterator[Callable[[Stored, _Room | None], torch.Tensor]]:
    """Reads stored tensors, for any thread; the files stay open until the end of the block."""
    with ExitStack() as stack:
        files: dict[Path, FileIO] = {}
        lock = Lock()

        def fill(path: Path, start: int, values: torch.Tensor) -> None:
            with lock:
                if path not in files:
                    files[path] = stack.enter_context(path.open("rb", buffering=0))
                _fill(files[path], start, values)

        yield partial(_read, fill)


def _read(
    fill: Callable[[Path, int, torch.Tensor], None], stored: Stored, room: _Room | None
) -> torch.Tensor:
    """A tensor, in `room` and its dtype where there is one, else as it is in the file."""
    import torch

    tensor = stored.tensor
    dtype = getattr(torch, FLOATS[tensor.dtype])
    count = (tensor.end - tensor.start) // dtype.itemsize
    values = torch.empty(count, dtype=dtype) if room is None else room.reserve(count)
    piece = None if values.dtype == dtype else torch.empty(PIECE // dtype.itemsize, dtype=dtype)
    start = tensor.start
    for into in torch.split(values, PIECE // dtype.itemsize):
        read = into if piece is None else piece[: len(into)]
        fill(stored.path, start, read)
        start += read.nbytes
        if piece is not None:
            _cast(read, into)
    return values.view(tensor.shape)


def _cast(values: torch.Tensor, into: torch.Tensor) -> None:
    """Copy; between two short dtypes torch is five times as fast by way of float32."""
    into.copy_(values.float() if max(values.itemsize, into.itemsize) <= 2 else values)


def _fill(file: FileIO, start: int, values: torch.Tensor) -> None:
    import torch

    file.seek(start)
    rest = memoryview(values.view(torch.uint8).numpy())  # type: ignore[arg-type]
    while rest:
        count = file.readinto(rest)
        if not count:
            raise WeightsError("the file became shorter while it was read; copy it again")
        rest = rest[count:]
