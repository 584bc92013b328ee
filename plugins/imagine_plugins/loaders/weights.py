"""Reads tensors into modules: checked name by name, never mapped to the file.

A mapped file that somebody overwrites ends the process with SIGBUS, so every tensor is read into
memory of its own; a few at a time, so that casting needs little more than the result.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from imagine_plugins.loaders.header import Tensor
from imagine_plugins.loaders.layout import Shape, Slot

if TYPE_CHECKING:
    import torch

FLOATS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


READERS = 2
"""Threads that fill a module: one reads while the other casts."""


class WeightsError(Exception):
    """The weights do not fit the model; the text names the tensor."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file."""

    path: Path
    tensor: Tensor


Weights = Mapping[str, Stored]
"""Tensors by the name that the slots know them under, whatever the file calls them."""


def misfit(slots: Iterable[Slot], weights: Weights) -> str | None:
    """What keeps `weights` from filling `slots`, or None; looks at headers only."""
    missing = []
    for slot in slots:
        stored = weights.get(slot.key)
        if stored is None:
            missing.append(slot.key)
        elif not same_shape(stored.tensor.shape, slot.shape):
            return (
                f"tensor {slot.key!r} has the shape {list(stored.tensor.shape)}, "
                f"this architecture wants {list(slot.shape)}"
            )
        elif stored.tensor.dtype not in FLOATS:
            return f"tensor {slot.key!r} holds {stored.tensor.dtype}: quantised weights"
    if not missing:
        return None
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"tensor {missing[0]!r}{more} missing: the file is damaged or was cut down"


def same_shape(one: Shape, other: Shape) -> bool:
    """Whether shapes agree up to trailing ones: a 1x1 convolution is a matrix."""
    return _core(one) == _core(other)


def _core(shape: Shape) -> Shape:
    end = len(shape)
    while end > 1 and shape[end - 1] == 1:
        end -= 1
    return shape[:end]


def build(  # noqa: PLR0913 - what a module is, what fills it, where it goes and who is told
    create: Callable[[], Any],
    slots: Iterable[Slot] | None,
    weights: Weights,
    *,
    dtype: torch.dtype,
    device: str,
    meter: Callable[[int], object] = id,
) -> Any:
    """Create a module without weights, fill it from files and put it on the device.

    Args:
        create: Makes the module; its parameters are never allocated.
        slots: What fills it; None where tensors and parameters have the same names.
        weights: The tensors.
        dtype: What the parameters are cast to, one at a time.
        device: Where they go.
        meter: Called with the bytes of each tensor that was read.
    """
    module = _empty(create)
    parameters = {_flat(name): value for name, value in module.named_parameters()}
    names = {_flat(name): name for name, _ in module.named_parameters()}
    if slots is None:
        slots = [Slot(name, tuple(value.shape), (name,)) for name, value in parameters.items()]
        problem = misfit(slots, weights)
        if problem is not None:
            raise WeightsError(problem)

    room = _Room(parameters.values(), dtype) if device == "cpu" else None

    def fitted(target: str, value: torch.Tensor) -> torch.Tensor:
        shaped = _shaped(target, value, parameters[target].shape)
        return shaped.to(dtype).to(device) if room is None else room.take(shaped)

    state: dict[str, torch.Tensor] = {}
    for filled, size in _filled(slots, weights, parameters, fitted):
        state |= {names[target]: value for target, value in filled.items()}
        meter(size)
    module.load_state_dict(state, strict=False, assign=True)
    _require_complete(module)
    module.to(device)  # the buffers; the parameters are there already
    return module.requires_grad_(requires_grad=False).eval()


class _Room:
    """Memory for all parameters of a module at once, in huge pages where the system has them.

    The half million page faults that a model of 2 GB costs otherwise take as long as reading it,
    and what is a mapping of its own goes back to the system as a whole.
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
        with self._lock:
            start = self._used
            self._used += self._aligned(value.numel())
        place = self._values[start : start + value.numel()].view(value.shape)
        return place.copy_(value)

    def _aligned(self, count: int) -> int:
        """So many values, and what is left of their last cache line."""
        line = 64 // self._dtype.itemsize
        return -(-count // line) * line


def _mapped(size: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _empty(create: Callable[[], Any]) -> Any:
    from accelerate import init_empty_weights

    try:
        with init_empty_weights():
            return create()
    except Exception as error:  # a configuration can be wrong in every way that a library knows
        raise WeightsError(f"its configuration cannot be built: {error!s:.300}") from error


def _flat(name: str) -> str:
    """CLIPTextModelWithProjection wraps what CLIPTextModel is since transformers 5.6."""
    return name.removeprefix("text_model.")


def _filled(
    slots: Iterable[Slot],
    weights: Weights,
    wanted: Container[str],
    fitted: Callable[[str, torch.Tensor], torch.Tensor],
) -> Iterator[tuple[dict[str, torch.Tensor], int]]:
    """The values that each stored tensor gives, with its bytes, in the order of the files."""
    found = [(weights[slot.key], slot) for slot in slots if slot.key in weights]
    found.sort(key=lambda pair: (pair[0].path, pair[0].tensor.start))

    def fill(pair: tuple[Stored, Slot]) -> tuple[dict[str, torch.Tensor], int]:
        stored, slot = pair
        value = read(stored)
        parts = (value.T.contiguous() if slot.transposed else value).chunk(len(slot.targets))
        values = zip(slot.targets, parts, strict=True)
        return {name: fitted(name, part) for name, part in values if name in wanted}, value.nbytes

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
def _opened() -> Iterator[Callable[[Stored], torch.Tensor]]:
    """Reads stored tensors, for any thread; the files stay open until the end of the block."""
    with ExitStack() as stack:
        files: dict[Path, FileIO] = {}
        lock = Lock()

        def read(stored: Stored) -> torch.Tensor:
            with lock:
                if stored.path not in files:
                    files[stored.path] = stack.enter_context(stored.path.open("rb", buffering=0))
                return _tensor(files[stored.path], stored.tensor)

        yield read


def _tensor(file: FileIO, tensor: Tensor) -> torch.Tensor:
    import torch

    data = torch.empty(tensor.end - tensor.start, dtype=torch.uint8)
    file.seek(tensor.start)
    rest = memoryview(data.numpy())  # type: ignore[arg-type]
    while rest:
        count = file.readinto(rest)  # Linux reads 2 GB at most at once
        if not count:
            raise WeightsError("the file became shorter while it was read; copy it again")
        rest = rest[count:]
    return data.view(getattr(torch, FLOATS[tensor.dtype])).reshape(tensor.shape)
