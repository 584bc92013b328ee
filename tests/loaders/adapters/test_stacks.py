"""Stacked factors add what each LoRA adds by itself, and go with the first that goes."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from imagine_core.parts import Change, Magnitude
from imagine_plugins.loaders.adapters import stacks
from imagine_plugins.loaders.adapters.forms import Factors, Product
from imagine_plugins.loaders.adapters.layer_rows import LayerRows, Weighted, layer_rows
from imagine_plugins.loaders.adapters.stacks import Acting, Stacks

LINEAR = nn.Linear(12, 20)
PIXEL = nn.Conv2d(12, 20, 1)
KERNEL = nn.Conv2d(12, 20, 3, padding=1)
INPUTS = {LINEAR: (6, 7, 12), PIXEL: (6, 12, 5, 4), KERNEL: (6, 12, 5, 4)}


def rows_of(layer: Any, *, seed: int, rank: int = 4, dora: bool = False) -> LayerRows:
    generator = torch.Generator().manual_seed(seed)
    shape = layer.weight.shape
    down = torch.randn(rank, *shape[1:], generator=generator)
    update = Product(Factors(down, torch.randn(shape[0], rank, generator=generator)))
    magnitude = Magnitude(torch.ones(shape[0]), "out") if dora else None
    return layer_rows(layer, [Weighted(Change(updates=(update,), magnitude=magnitude), 0.5)])


def three(*layers: Any, ranks: Sequence[int] = (4, 4, 4), **how: Any) -> list[Acting]:
    return [
        Acting({each: rows_of(each, seed=seed, rank=rank, **how) for each in layers})
        for seed, rank in enumerate(ranks)
    ]


@pytest.mark.parametrize("layer", [LINEAR, PIXEL], ids=["linear", "one pixel"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_a_stack_adds_what_each_adds_to_its_rows(layer: Any, layout: torch.memory_format) -> None:
    x = torch.randn(INPUTS[layer])
    if layer is PIXEL:
        x = x.contiguous(memory_format=layout)
    run = three(layer)
    apart, together = layer(x), layer(x)
    for group, acting in enumerate(run):
        rows = slice(2 * group, 2 * group + 2)
        acting.layers[layer](layer, x[rows], apart[rows])
    Stacks().layers(run)[layer](layer, x, together)
    assert not torch.equal(together, layer(x))
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "run",
    [
        three(KERNEL),
        three(LINEAR, dora=True),
        three(LINEAR, ranks=(4, 8, 4)),
        [*three(LINEAR), *three(PIXEL)],
    ],
    ids=["kernels", "DoRA", "other ranks", "other layers"],
)
def test_what_cannot_be_stacked_is_left_to_each(run: list[Acting]) -> None:
    assert Stacks().layers(run) == {}


def test_large_factors_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    run = three(LINEAR)
    assert list(Stacks().layers(run)) == [LINEAR]
    monkeypatch.setattr(stacks, "MOST_BYTES", 1)
    assert Stacks().layers(run) == {}


def test_stacks_are_kept_for_the_same_loras_and_go_with_them() -> None:
    held = Stacks()
    run = three(LINEAR)
    first = held.layers(run)
    assert held.layers(list(run)) is first
    assert held.layers(run[::-1]) is not first
    assert held.layers(run) is first
    run.pop()
    gc.collect()
    assert held._held == {}


def test_only_the_last_mixtures_are_kept() -> None:
    held, run = Stacks(), three(LINEAR, ranks=(4,) * 12)
    for place in range(11):
        held.layers(run[place : place + 2])
        assert len(held._held) <= stacks.MOST_HELD
