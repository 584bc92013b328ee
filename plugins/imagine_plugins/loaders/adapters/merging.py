"""The formulas by which changes act: on a weight, or on a layer's output beside its weight.

A change of strength w gives `W + w (C(W) - W)`, where C(W) is the weight with the whole change, as
A1111 and ComfyUI have it: at 0 every kind leaves the model as it is, DoRA too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from imagine_core.parts import Change, LowRank

Operation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A layer's own: its output for an input and a weight, without a bias."""


def merged(
    change: Change, weight: torch.Tensor, bias: torch.Tensor | None, *, strength: float
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias with a change in them, in the dtype of the weight."""
    changed = weight + change.dense(tuple(weight.shape), weight.dtype)
    if change.magnitude is not None:
        changed = changed * along(scales(change, weight), change.magnitude.axis, weight)
    if change.bias is not None:
        more = change.bias.to(weight.dtype) * strength
        bias = more if bias is None else bias + more
    return weight + strength * (changed - weight), bias


def scales(change: Change, weight: torch.Tensor) -> torch.Tensor:
    """What DoRA multiplies each row or column of the changed weight by; zero where it is zero.

    It depends on the weight of the model and on the change at its whole strength, so that it can be
    computed once for both.
    """
    assert change.magnitude is not None
    changed = weight + change.dense(tuple(weight.shape), weight.dtype)
    rows = changed if change.magnitude.axis == "out" else changed.transpose(0, 1)
    lengths = torch.linalg.vector_norm(rows.flatten(1), dim=1)
    values = change.magnitude.values.to(weight.dtype).flatten()
    return torch.where(lengths > 0, values / lengths, torch.zeros_like(values))


def along(values: torch.Tensor, axis: str, weight: torch.Tensor) -> torch.Tensor:
    """Values of rows or columns in a shape that multiplies a weight."""
    ones = [1] * (weight.dim() - 2)
    return values.view(-1, 1, *ones) if axis == "out" else values.view(1, -1, *ones)


def changed_output(  # noqa: PLR0913 - a layer is its input, weight, bias and operation
    change: Change,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    operation: Operation,
    strength: float,
) -> torch.Tensor:
    """A layer's output with a change, its weight untouched: what rows of a forward compute.

    A norm's weight and bias are two vectors: merge them.

    Args:
        change: The change.
        x: The input: (..., in), or (batch, in, height, width) for a convolution.
        weight: The layer's.
        bias: The layer's, if it has one.
        operation: `F.linear`, or `F.conv2d` with the layer's stride and padding.
        strength: How much of the change.
    """
    keep: torch.Tensor | float = 1.0
    scale: torch.Tensor | float = 1.0
    into = x
    if change.magnitude is not None:
        scale = _channels(scales(change, weight), weight)
        keep = 1 - strength + strength * scale
        if change.magnitude.axis == "in":  # columns of a weight are scaled in what they multiply
            x, into, keep, scale = x * keep, x * scale, 1.0, 1.0
    out = keep * operation(x, weight)
    for update in change.updates:
        low = update.low_rank(weight.dtype)
        if low is None:
            more = operation(into, update.dense(weight.dtype).view(weight.shape))
        else:
            more = _raised(low, operation(into, _as_kernel(low.down, weight)), weight)
        out = out + strength * scale * more
    for each, factor in ((bias, 1.0), (change.bias, strength)):
        if each is not None:
            out = out + _channels(factor * each.to(weight.dtype), weight)
    return out


def _as_kernel(down: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return down.reshape(len(down), *weight.shape[1:])


def _raised(low: LowRank, inner: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if weight.dim() < 4:
        return inner @ low.up.T
    return torch.einsum("or,brhw->bohw", low.up, inner)


def _channels(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """One value for each channel in a shape that multiplies inputs or outputs of a layer."""
    return values.view(-1, 1, 1) if weight.dim() == 4 else values
