"""Several LoRAs in one product for each layer, where calls cost more than arithmetic.

In a small network the LoRAs of a forward spend their time in calls, and four take four times the
calls of one. Their factors are stacked and multiplied at once, with as many calls as one takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import ref

import torch
from torch import nn

from imagine_plugins.loaders.adapters.layer_rows import Factors, LayerRows

MOST_BYTES = 2**26
"""Beyond it arithmetic outweighs calls, and stacks would take memory that counts."""


MOST_HELD = 4
"""Mixtures of LoRAs whose stacks are kept."""


class Acting:
    """What LoRAs change in one network: each layer that they change with what happens to it."""

    def __init__(self, layers: Mapping[nn.Module, LayerRows]) -> None:
        self.layers = layers


class Stacks:
    """The stacks of the last forwards, which the next ones mostly want again.

    They go with the first of their LoRAs that goes.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[ref[Acting], ...], Mapping[nn.Module, LayerRows]] = {}

    def layers(self, run: Sequence[Acting]) -> Mapping[nn.Module, LayerRows]:
        """The layers whose factors can be multiplied at once, for adjacent rows of `run`.

        Args:
            run: What acts on each group of rows; the groups have equally many.
        """
        found = self._held.get(tuple(map(ref, run)))
        if found is None:
            if len(self._held) >= MOST_HELD:
                self._held.clear()
            found = _stacked(run)
            self._held[tuple(ref(each, self._drop) for each in run)] = found
        return found

    def _drop(self, _: ref[Acting]) -> None:
        self._held.clear()


def _stacked(run: Sequence[Acting]) -> Mapping[nn.Module, LayerRows]:
    found: dict[nn.Module, list[Factors]] = {}
    for layer in run[0].layers:
        every = [_factors(layer, each.layers.get(layer)) for each in run]
        factors = [each for each in every if each is not None]
        if len(factors) == len(run) and len({each.down.shape for each in factors}) == 1:
            found[layer] = factors
    size = sum(each.down.nbytes + each.up.nbytes for some in found.values() for each in some)
    if size > MOST_BYTES:
        return {}
    return {layer: _Stack(factors) for layer, factors in found.items()}


def _factors(layer: nn.Module, rows: LayerRows | None) -> Factors | None:
    """Factors that can be stacked: of matrices, and of kernels of one pixel."""
    factors: Factors | None = getattr(rows, "factors", None)
    if isinstance(layer, nn.Conv2d) and {*layer.kernel_size, *layer.stride} != {1}:
        return None
    return factors


class _Stack:
    """The factors of several groups of rows: (groups, in, rank) and (groups, rank, out)."""

    def __init__(self, factors: Sequence[Factors]) -> None:
        self._down = torch.stack([each.down.flatten(1) for each in factors])
        self._up = torch.stack([each.up for each in factors])

    def __call__(self, layer: Any, x: torch.Tensor, out: torch.Tensor) -> None:
        groups = len(self._down)
        if isinstance(layer, nn.Conv2d):
            pixels = x.reshape(groups, -1, x.shape[1], x[0, 0].numel())
            more = self._up[:, None] @ (self._down[:, None] @ pixels)
            out.add_(more.view(out.shape))
        else:
            inner = x.reshape(groups, -1, x.shape[-1]) @ self._down.mT
            if out.is_contiguous():
                out.view(groups, -1, out.shape[-1]).baddbmm_(inner, self._up.mT)
            else:
                out.add_((inner @ self._up.mT).view(out.shape))
