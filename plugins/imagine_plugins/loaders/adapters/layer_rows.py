"""What LoRAs do to the output of one layer, while its weight stays as it is.

Several add up relative to the model's own weight: `W + sum_i w_i (C_i(W) - W)`, where C_i(W) is the
weight with the whole change i. Everything is a sum over the layer's output but for DoRA's scales of
outputs, which multiply it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.nn import functional

from imagine_core.parts import Change, Update
from imagine_plugins.loaders.adapters.forms import placed
from imagine_plugins.loaders.adapters.merging import along, merged, scales

Operation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A layer's own: its output for an input and a weight, without a bias."""


class Weighted(NamedTuple):
    """A change, and how much of it."""

    change: Change
    strength: float


class LayerRows(Protocol):
    """What happens to rows of a layer's output."""

    def __call__(self, layer: Any, x: torch.Tensor, out: torch.Tensor) -> None:
        """Change the output `out` for the input `x` in place."""


def layer_rows(layer: Any, changes: Sequence[Weighted]) -> LayerRows:
    """What changes do to a layer's output, on its device and in its dtype."""
    moved = [Weighted(_on(change, layer.weight), strength) for change, strength in changes]
    match layer:
        case nn.Embedding():
            return _Table(layer, moved)
        case nn.GroupNorm() | nn.LayerNorm():
            return _Norm(layer, moved)
    return _Affine(layer, moved)


def _on(change: Change, weight: torch.Tensor) -> Change:
    """A change beside a weight, its vectors in float32."""
    device, magnitude, bias = weight.device, change.magnitude, change.bias
    wide = _wide(weight)
    if magnitude is not None:
        magnitude = type(magnitude)(placed(magnitude.values, device).to(wide), magnitude.axis)
    return Change(
        updates=tuple(update.to(device) for update in change.updates),
        bias=None if bias is None else placed(bias, device).to(wide),
        magnitude=magnitude,
    )


def _wide(weight: torch.Tensor) -> torch.dtype:
    """What is prepared once is computed in float32 or better."""
    return torch.promote_types(weight.dtype, torch.float32)


class _Dense(NamedTuple):
    """An update that has no rows; its weight is computed in each forward, and not kept.

    Attributes:
        update: The update.
        factor: What multiplies it: a number, or values along rows or columns of the weight.
    """

    update: Update
    factor: torch.Tensor | float

    def weight(self, like: torch.Tensor) -> torch.Tensor:
        return self.update.dense(like.dtype).view(like.shape) * self.factor


class Factors(NamedTuple):
    """Rows of low rank: (rank, in[, height, width]) and (out, rank)."""

    down: torch.Tensor
    up: torch.Tensor


class _Affine:
    """Linear layers and convolutions."""

    _keep: torch.Tensor | None = None
    _into: torch.Tensor | None = None
    _shift: torch.Tensor | None = None

    def __init__(self, layer: Any, changes: Sequence[Weighted]) -> None:
        self._dense: list[_Dense] = []
        factors: list[Factors] = []
        for change, strength in changes:
            factors += self._take(change, strength, layer.weight)
        self._factors = _joined(factors, layer.weight.dtype) if factors else None
        if self._keep is not None:
            self._keep = self._keep + 1
            if layer.bias is not None:
                self._shift = _plus(self._shift, (1 - self._keep) * layer.bias)
        self._keep, self._into, self._shift = (
            None if each is None else _channels(each, layer.weight)
            for each in (self._keep, self._into, self._shift)
        )

    def _take(self, change: Change, strength: float, weight: torch.Tensor) -> list[Factors]:
        """Take a change in, but for its factors."""
        wide, scale, axis = _wide(weight), None, "out"
        if change.bias is not None:
            self._shift = _plus(self._shift, change.bias * strength)
        if change.magnitude is not None:
            scale, axis = scales(change, weight.to(wide)), change.magnitude.axis
            if axis == "out":
                self._keep = _plus(self._keep, (scale - 1) * strength)
            else:
                self._into = _plus(self._into, (scale - 1) * strength)
        factors = []
        for update in change.updates:
            low = update.low_rank(wide)
            if low is None:
                by = scale if scale is None else along(scale * strength, axis, weight)
                self._dense.append(_Dense(update, strength if by is None else by.to(weight.dtype)))
                continue
            down, up = low.down.reshape(-1, *weight.shape[1:]), low.up * strength
            if scale is not None and axis == "out":
                up = up * along(scale, axis, up)
            elif scale is not None:
                down = down * along(scale, axis, down)
            factors.append(Factors(down, up))
        return factors

    @property
    def factors(self) -> Factors | None:
        """Its factors, where they are all that it adds."""
        rest = (self._keep, self._into, self._shift)
        return None if self._dense or any(each is not None for each in rest) else self._factors

    def __call__(self, layer: Any, x: torch.Tensor, out: torch.Tensor) -> None:
        operation = _operation(layer)
        if self._keep is not None:
            out.mul_(self._keep)
        if self._shift is not None:
            out.add_(self._shift)
        if self._factors is not None:
            _add_product(self._factors, operation, x, out)
        if self._into is not None:
            out.add_(operation(x * self._into, layer.weight))
        if self._dense:
            first, *others = (each.weight(layer.weight) for each in self._dense)
            out.add_(operation(x, sum(others, first)))


def _joined(factors: Sequence[Factors], dtype: torch.dtype) -> Factors:
    """The ranks of several, one after the other."""
    downs, ups = zip(*factors, strict=True)
    return Factors(torch.cat(downs).to(dtype), torch.cat(ups, dim=1).to(dtype))


def _add_product(
    factors: Factors, operation: Operation, x: torch.Tensor, out: torch.Tensor
) -> None:
    down, up = factors
    inner = operation(x, down)
    if out.dim() == 2:
        out.addmm_(inner, up.T)
    elif down.dim() == 2:
        out.add_(inner @ up.T)
    elif out.is_contiguous():
        out.flatten(2).baddbmm_(up.expand(len(out), -1, -1), inner.flatten(2))
    else:
        out.add_(functional.conv2d(inner, up[:, :, None, None]))


def _operation(layer: Any) -> Operation:
    if isinstance(layer, nn.Conv2d):
        stride, padding, dilation = layer.stride, layer.padding, layer.dilation
        return lambda x, weight: functional.conv2d(x, weight, None, stride, padding, dilation)
    return functional.linear


def _plus(one: torch.Tensor | None, other: torch.Tensor) -> torch.Tensor:
    return other if one is None else one + other


def _channels(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """One value for each channel in the shape that inputs or outputs of a layer have."""
    return values.to(weight.dtype).view(-1, *[1] * (weight.dim() - 2))


class _Norm:
    """Norms: their rows are computed once more, with the weight and bias of the changes."""

    def __init__(self, layer: Any, changes: Sequence[Weighted]) -> None:
        weight = layer.weight.to(_wide(layer.weight))
        bias = None if layer.bias is None else layer.bias.to(weight.dtype)
        for change, strength in changes:
            weight, bias = merged(change, weight, bias, strength=strength)
        self._weight = weight.to(layer.weight.dtype)
        self._bias = None if bias is None else bias.to(layer.weight.dtype)

    def __call__(self, layer: Any, x: torch.Tensor, out: torch.Tensor) -> None:
        if isinstance(layer, nn.GroupNorm):
            new = functional.group_norm(x, layer.num_groups, self._weight, self._bias, layer.eps)
        else:
            assert isinstance(layer, nn.LayerNorm)
            shape = layer.normalized_shape
            new = functional.layer_norm(x, shape, self._weight, self._bias, layer.eps)
        out.copy_(new)


class _Table:
    """Tables of embeddings: `x` are the numbers of their rows."""

    def __init__(self, layer: Any, changes: Sequence[Weighted]) -> None:
        dtype = layer.weight.dtype
        self._dense: list[_Dense] = []
        self._factors: list[Factors] = []
        for change, strength in changes:
            for update in change.updates:
                low = update.low_rank(_wide(layer.weight))
                if low is None:
                    self._dense.append(_Dense(update, strength))
                else:
                    self._factors.append(Factors(low.down.to(dtype), (low.up * strength).to(dtype)))

    def __call__(self, layer: Any, x: torch.Tensor, out: torch.Tensor) -> None:
        for down, up in self._factors:
            out.add_(functional.embedding(x, up) @ down)
        for each in self._dense:
            out.add_(functional.embedding(x, each.weight(layer.weight)))
