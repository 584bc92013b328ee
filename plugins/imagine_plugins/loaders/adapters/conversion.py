"""Makes a module's change of the tensors that a file has for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, cast

import torch

from imagine_core.parts import Change, Magnitude, Update
from imagine_plugins.loaders.adapters.forms import (
    Factors,
    Full,
    Hadamard,
    Kronecker,
    Product,
)
from imagine_plugins.loaders.adapters.kinds import (
    SCALARS,
    Unfit,
    decomposed_axis,
    kronecker_shape,
    lokr_rank,
)
from imagine_plugins.loaders.adapters.modules import Module

SCALE_LIMIT = 1e6
"""Scales beyond this leave nothing of a picture: no training wrote them."""

Tensors = Mapping[str, torch.Tensor]
Said = Callable[[int | None], float | None]
"""The scale that a file's metadata has for a rank, or without one, if it has any."""


def change_of(tensors: Tensors, module: Module, *, said: Said) -> Change:
    """The change of a module, of tensors whose shapes fit it; raises `Unfit` for their values.

    Args:
        tensors: By part.
        module: What they change.
        said: Gives the scale where there is no alpha.
    """
    for part, tensor in tensors.items():
        if part not in SCALARS and not is_finite(tensor):
            raise Unfit(f"its {part} has values that are no numbers (NaN or infinite)")
    makers = (_product, _hadamard, _kronecker, _full)
    updates = [update for make in makers if (update := make(tensors, module, said)) is not None]
    return Change(
        updates=tuple(updates),
        bias=_bias(tensors, said),
        magnitude=_magnitude(tensors, module),
    )


def _product(tensors: Tensors, module: Module, said: Said) -> Update | None:
    if "down" not in tensors:
        return None
    rows, *columns = module.shape
    up, down, mid = tensors["up"], tensors["down"], tensors.get("mid")
    scale = _scale(tensors, len(down), said)
    up = up.reshape(rows, -1)
    if mid is None:
        return Product(Factors(down.reshape(len(down), *columns), up), scale)
    core = mid.reshape(mid.shape[0], mid.shape[1], *columns[1:])
    return Product(Factors(down.reshape(len(down), columns[0]), up.T, core), scale)


def _hadamard(tensors: Tensors, module: Module, said: Said) -> Update | None:
    if "hada_w1_a" not in tensors:
        return None
    pairs = []
    for number in "12":
        a, b = tensors[f"hada_w{number}_a"], tensors[f"hada_w{number}_b"]
        core = tensors.get(f"hada_t{number}")
        if core is None:
            b = b.reshape(len(b), *module.shape[1:])
        pairs.append(Factors(b, a, core))
    return Hadamard(pairs[0], pairs[1], _scale(tensors, len(tensors["hada_w1_b"]), said))


def _kronecker(tensors: Tensors, module: Module, said: Said) -> Update | None:
    if not {"lokr_w1", "lokr_w1_a"} & set(tensors):
        return None
    shapes = {part: tuple(tensor.shape) for part, tensor in tensors.items()}
    first, second = kronecker_shape(shapes, module)
    kernel = module.shape[2:]
    rank = lokr_rank(shapes)
    return Kronecker(
        _factors(tensors, "lokr_w1", first),
        _factors(tensors, "lokr_w2", (*second, *kernel)),
        _scale(tensors, rank, said),
    )


def _factors(tensors: Tensors, name: str, shape: tuple[int, ...]) -> Factors:
    if name in tensors:
        return Factors(tensors[name].reshape(shape))
    a, b = tensors[f"{name}_a"], tensors[f"{name}_b"]
    core = tensors.get("lokr_t2") if name == "lokr_w2" else None
    return Factors(b.reshape(len(b), *shape[1:]) if core is None else b, a, core)


def _full(tensors: Tensors, module: Module, said: Said) -> Update | None:
    del said
    return Full(tensors["diff"].reshape(module.shape)) if "diff" in tensors else None


def _bias(tensors: Tensors, said: Said) -> torch.Tensor | None:
    parts = []
    if "diff_b" in tensors:
        parts.append(tensors["diff_b"].flatten())
    if "up_bias" in tensors:  # PEFT's, which its own scale multiplies too
        scale = _scale(tensors, len(tensors["down"]), said) if "down" in tensors else 1.0
        parts.append(_computable(tensors["up_bias"]).flatten() * scale)
    return parts[0] if len(parts) == 1 else _sum(parts)


def _sum(parts: list[torch.Tensor]) -> torch.Tensor | None:
    return _computable(parts[0]) + _computable(parts[1]) if parts else None


def _magnitude(tensors: Tensors, module: Module) -> Magnitude | None:
    shapes = {part: tuple(tensor.shape) for part, tensor in tensors.items()}
    axis = decomposed_axis(shapes, module)
    if axis is None:
        return None
    values = tensors["magnitude" if "magnitude" in tensors else "dora_scale"]
    return Magnitude(values.flatten(), cast("Literal['out', 'in']", axis))


def _scale(tensors: Tensors, rank: int | None, said: Said) -> float:
    """What a product is multiplied by: alpha over rank, and 1 where nothing is said.

    Without a rank, where both factors of a LoKr are whole, LyCORIS takes 1 whatever alpha it
    writes; its files hold huge ones.
    """
    if "scale" in tensors:
        scale = float(tensors["scale"].double())
    elif "alpha" in tensors:
        scale = 1.0 if rank is None else float(tensors["alpha"].double()) / rank
    else:
        told = said(rank)
        scale = 1.0 if told is None else told
    if not math.isfinite(scale) or abs(scale) > SCALE_LIMIT:
        raise Unfit(f"its alpha makes a scale of {scale:g}: the file is damaged")
    return scale


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all values are numbers; by the extremes, forty times as fast as one by one."""
    return not tensor.numel() or all(
        bool(torch.isfinite(each)) for each in torch.aminmax(_computable(tensor))
    )


def _computable(tensor: torch.Tensor) -> torch.Tensor:
    """fp8 can be cast, and nothing else."""
    return tensor.float() if tensor.element_size() == 1 else tensor
