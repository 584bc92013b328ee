"""Reads tensors into modules: checked name by name, never mapped to the file.

A mapped file that somebody overwrites ends the process with SIGBUS, so every tensor is read into
memory of its own; one at a time, so that casting needs one tensor more than the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

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
    state = {}
    with _opened(meter) as read:
        for target, value in _values(slots, weights, read):
            if target in parameters:
                shaped = _shaped(target, value, parameters[target].shape)
                state[names[target]] = shaped.to(dtype).to(device)
    module.load_state_dict(state, strict=False, assign=True)
    _require_complete(module)
    module.to(device)  # the buffers; the parameters are there already
    return module.requires_grad_(requires_grad=False).eval()


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


def _values(
    slots: Iterable[Slot], weights: Weights, read: Callable[[Stored], torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and their values, in the order in which the files hold them."""
    found = [(weights[slot.key], slot) for slot in slots if slot.key in weights]
    for stored, slot in sorted(found, key=lambda pair: (pair[0].path, pair[0].tensor.start)):
        value = read(stored)
        if slot.transposed:
            value = value.T.contiguous()
        yield from zip(slot.targets, value.chunk(len(slot.targets)), strict=True)


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
def _opened(meter: Callable[[int], object]) -> Iterator[Callable[[Stored], torch.Tensor]]:
    """Reads stored tensors; the files stay open until the end of the block."""
    with ExitStack() as stack:
        files: dict[Path, BinaryIO] = {}

        def read(stored: Stored) -> torch.Tensor:
            if stored.path not in files:
                files[stored.path] = stack.enter_context(stored.path.open("rb"))
            value = _tensor(files[stored.path], stored.tensor)
            meter(value.nbytes)
            return value

        yield read


def _tensor(file: BinaryIO, tensor: Tensor) -> torch.Tensor:
    import torch

    data = torch.empty(tensor.end - tensor.start, dtype=torch.uint8)
    file.seek(tensor.start)
    if file.readinto(data.numpy()) != len(data):  # type: ignore[attr-defined]
        raise WeightsError("the file became shorter while it was read; copy it again")
    return data.view(getattr(torch, FLOATS[tensor.dtype])).reshape(tensor.shape)
