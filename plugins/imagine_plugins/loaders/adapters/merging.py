"""The formulas by which changes act on a weight.

A change of strength w gives `W + w (C(W) - W)`, where C(W) is the weight with the whole change, as
A1111 and ComfyUI have it: at 0 every kind leaves the model as it is, DoRA too.
"""

from __future__ import annotations

import torch

from imagine_core.parts import Change


def merged(
    change: Change, weight: torch.Tensor, bias: torch.Tensor | None, *, strength: float
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias with a change in them, in the dtype of the weight."""
    changed = _whole(change, weight)
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
    changed = _whole(change, weight)
    rows = changed if change.magnitude.axis == "out" else changed.transpose(0, 1)
    lengths = torch.linalg.vector_norm(rows.flatten(1), dim=1)
    values = change.magnitude.values.to(weight.dtype).flatten()
    return torch.where(lengths > 0, values / lengths, torch.zeros_like(values))


def along(values: torch.Tensor, axis: str, weight: torch.Tensor) -> torch.Tensor:
    """Values of rows or columns in a shape that multiplies a weight."""
    ones = [1] * (weight.dim() - 2)
    return values.view(-1, 1, *ones) if axis == "out" else values.view(1, -1, *ones)


def _whole(change: Change, weight: torch.Tensor) -> torch.Tensor:
    """A weight with the whole change, before its rows or columns are scaled."""
    if not change.updates:
        return weight
    return weight + change.dense(tuple(weight.shape), weight.dtype)
