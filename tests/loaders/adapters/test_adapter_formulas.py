"""Each kind of adapter changes weights and outputs as its paper's formula does, in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from adapter_files import KERNEL, LINEAR, PEFT, Made, Maker, dora, lora, named, norm, save
from checkpoints import TINY_SD1, configs
from imagine_core.parts import Change
from imagine_plugins.loaders import configs as read
from imagine_plugins.loaders.adapters.layer_rows import Weighted, layer_rows
from imagine_plugins.loaders.adapters.merging import merged
from imagine_plugins.loaders.adapters.modules import Module, Target, layers_of, modules_of
from imagine_plugins.loaders.adapters.reading import read_adapter

PLAN = read.architecture(configs(TINY_SD1).get)
LAYERS = layers_of(PLAN)
MODULES = modules_of(LAYERS)
LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
PIXEL = "down_blocks.0.attentions.0.proj_in"  # a convolution of one pixel, stored as one or not
CONVOLUTION = "down_blocks.1.resnets.0.conv1"
NORM = "mid_block.resnets.0.norm1"
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn,
          torch.float8_e5m2]  # fmt: skip
STRENGTHS = (1.0, 0.6, -0.75, 0.0, 2.0)
CASES = [
    *((LAYER, kind, maker) for kind, maker in LINEAR.items()),
    *((CONVOLUTION, kind, maker) for kind, maker in KERNEL.items()),
]
each_case = pytest.mark.parametrize(
    ("name", "maker"),
    [(name, maker) for name, _, maker in CASES],
    ids=[
        f"{kind} of {'a kernel' if name == CONVOLUTION else 'a matrix'}" for name, kind, _ in CASES
    ],
)


def module(name: str) -> Module:
    return MODULES[Target("unet", name)]


def change(path: Path, made: Made, name: str, names: Any = None) -> Change:
    """What is read of a file that has this for a module."""
    stem = f"lora_unet_{name.replace('.', '_')}" if names is None else f"unet.{name}"
    file = save(path / "a.safetensors", named(made, stem, names))
    fitted = read_adapter(file).fit(LAYERS)
    assert fitted.warnings == ()
    (found,) = fitted.changes.values()
    assert list(fitted.changes) == [f"unet.{name}"]
    return found


def values(shape: tuple[int, ...], *, seed: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    return weight, torch.randn(shape[0], generator=generator, dtype=torch.float64)


def close(one: torch.Tensor, other: Any) -> None:
    """Within 1e-9 of the largest value: every step in float64, in whatever order."""
    wanted = torch.as_tensor(other)
    assert one.shape == wanted.shape
    assert (one - wanted).abs().max() <= 1e-9 * max(1.0, float(wanted.abs().max()))


def tensor(value: Any) -> Any:
    return None if value is None else torch.as_tensor(value)


def made_of(weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
    """A layer with a weight: a linear one, or a convolution with a stride."""
    rows, columns = weight.shape[:2]
    layer: Any = nn.Linear(columns, rows, bias=bias is not None)
    if weight.dim() == 4:
        layer = nn.Conv2d(columns, rows, 3, stride=2, padding=1, bias=bias is not None)
    layer.weight.data = weight
    if bias is not None:
        layer.bias.data = bias
    return layer.requires_grad_(requires_grad=False)


def check(found: Change, made: Made, shape: tuple[int, ...]) -> None:
    """Merged weights are those of the formula, and outputs are those of the merged weights."""
    weight, bias = values(shape)
    for strength in STRENGTHS:
        for old in (bias, None):
            hand = made.merge(weight.numpy(), None if old is None else old.numpy(), strength)
            ours = merged(found, weight, old, strength=strength)
            close(ours[0], hand[0])
            assert (ours[1] is None) == (hand[1] is None)
            if ours[1] is not None:
                close(ours[1], hand[1])
            layer, by_hand = made_of(weight, old), made_of(*map(tensor, hand))
            x = torch.randn(3, 5, shape[1], dtype=torch.float64)
            if len(shape) == 4:
                x = torch.randn(3, shape[1], 6, 8, dtype=torch.float64)
            out = layer(x)
            layer_rows(layer, [Weighted(found, strength)])(layer, x, out)
            close(out, by_hand(x))


# --------------------------------------------------------------------------------------- kinds


@each_case
@pytest.mark.parametrize("alpha", [2.0, None, 0.0])
def test_weights_and_outputs_are_those_of_the_formula(
    tmp_path: Path, name: str, maker: Maker, alpha: float | None
) -> None:
    shape = module(name).shape
    made = maker(shape, rank=2, alpha=alpha, seed=1, dtype=torch.float32)
    check(change(tmp_path, made, name), made, shape)


@each_case
@pytest.mark.parametrize("axis", ["out", "in"])
def test_dora_scales_rows_or_columns_of_the_changed_weight(
    tmp_path: Path, name: str, maker: Maker, axis: str
) -> None:
    shape = module(name).shape
    made = dora(maker(shape, rank=2, alpha=1.0, seed=2, dtype=torch.float32), shape, axis, seed=3)
    check(change(tmp_path, made, name), made, shape)


@pytest.mark.parametrize("name", [LAYER, CONVOLUTION])
def test_dora_as_peft_writes_it_is_by_outputs(tmp_path: Path, name: str) -> None:
    shape = module(name).shape
    made = lora(shape, rank=2, alpha=None, seed=2, dtype=torch.float32)
    made = dora(made, shape, "out", seed=3, part="magnitude")
    check(change(tmp_path, made, name, PEFT), made, shape)


@each_case
@pytest.mark.parametrize("axis", ["out", "in", None])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_layer_in_half_precision_is_close_to_the_formula(
    tmp_path: Path, name: str, maker: Maker, axis: str | None, dtype: torch.dtype
) -> None:
    shape = module(name).shape
    made = maker(shape, rank=2, alpha=1.0, seed=2, dtype=torch.float32)
    if axis is not None:
        made = dora(made, shape, axis, seed=3)
    weight, bias = (each.to(dtype) for each in values(shape))
    hand = made.merge(weight.double().numpy(), bias.double().numpy(), 0.7)
    layer, by_hand = made_of(weight, bias), made_of(*map(tensor, hand))
    x = torch.randn(3, *([shape[1], 6, 8] if len(shape) == 4 else [5, shape[1]])).to(dtype)
    out = layer(x)
    layer_rows(layer, [Weighted(change(tmp_path, made, name), 0.7)])(layer, x, out)
    wanted = by_hand(x.double())
    assert out.dtype == dtype
    assert (out - wanted).abs().max() <= 4 * torch.finfo(dtype).eps * wanted.abs().max()


def test_dora_at_no_strength_leaves_the_weight_as_it_is(tmp_path: Path) -> None:
    shape = module(LAYER).shape
    made = dora(lora(shape, rank=2, alpha=1.0, seed=2, dtype=torch.float32), shape, "out", seed=3)
    weight, bias = values(shape)
    ours = merged(change(tmp_path, made, LAYER), weight, bias, strength=0.0)
    assert torch.equal(ours[0], weight)


@pytest.mark.parametrize("maker", LINEAR.values(), ids=LINEAR)
def test_a_convolution_of_one_pixel_is_a_matrix_however_it_is_stored(
    tmp_path: Path, maker: Maker
) -> None:
    shape = module(PIXEL).shape
    assert len(shape) == 2
    made = maker((*shape, 1, 1), rank=2, alpha=1.0, seed=4, dtype=torch.float32)
    found = change(tmp_path, made, PIXEL)
    check(found, replace(made, delta=made.delta.reshape(shape)), shape)


def test_a_kernel_may_be_folded_into_columns(tmp_path: Path) -> None:
    shape = module(CONVOLUTION).shape
    made = lora(shape, rank=2, alpha=1.0, seed=4, dtype=torch.float32)
    parts = {part: value.flatten(1) if value.dim() else value for part, value in made.parts.items()}
    check(change(tmp_path, replace(made, parts=parts), CONVOLUTION), made, shape)


def test_a_norm_has_a_difference_of_weight_and_bias(tmp_path: Path) -> None:
    shape = module(NORM).shape
    for maker, kind in ((norm, "w_norm"), (LINEAR["full"], "diff")):
        made = maker(shape, rank=1, alpha=None, seed=5, dtype=torch.float32)
        assert kind in made.parts
        found = change(tmp_path, made, NORM)
        weight, bias = values(shape)
        new = [torch.as_tensor(each) for each in made.merge(weight.numpy(), bias.numpy(), 0.5)]
        ours = merged(found, weight, bias, strength=0.5)
        close(ours[0], new[0])
        assert ours[1] is not None
        close(ours[1], new[1])


def test_a_bias_of_peft_is_scaled_as_its_product_is(tmp_path: Path) -> None:
    shape = module(LAYER).shape
    made = lora(shape, rank=4, alpha=2.0, seed=6, dtype=torch.float32)
    value = torch.randn(shape[0])
    made = replace(made, parts={**made.parts, "up_bias": value}, bias=value.double().numpy() * 0.5)
    check(change(tmp_path, made, LAYER, PEFT), made, shape)


def test_kinds_of_one_module_are_added(tmp_path: Path) -> None:
    shape = module(LAYER).shape
    one = lora(shape, rank=4, alpha=2.0, seed=6, dtype=torch.float32)
    two = LINEAR["full"](shape, rank=4, alpha=2.0, seed=7, dtype=torch.float32)
    both = Made({**one.parts, **two.parts}, one.delta + two.delta, bias=two.bias)
    check(change(tmp_path, both, LAYER), both, shape)


# ------------------------------------------------------------------------- rows, ranks, dtypes


@each_case
def test_rows_of_low_rank_are_the_dense_change(tmp_path: Path, name: str, maker: Maker) -> None:
    shape = module(name).shape
    made = maker(shape, rank=1, alpha=0.5, seed=8, dtype=torch.float32)
    found = change(tmp_path, made, name)
    for update in found.updates:
        close(update.dense(torch.float64).view(shape), made.delta)
        low = update.low_rank(torch.float64)
        if low is not None:
            assert low.up.shape == (shape[0], len(low.down))
            close((low.up @ low.down.flatten(1)).view(shape), made.delta)


def test_a_product_of_high_rank_is_not_made_rows_of() -> None:
    from imagine_plugins.loaders.adapters.forms import Factors, Hadamard, Kronecker

    def factors(rank: int) -> Factors:
        return Factors(torch.ones(rank, 320), torch.ones(320, rank))

    assert Hadamard(factors(8), factors(8)).low_rank(torch.float32) is not None
    assert Hadamard(factors(16), factors(16)).low_rank(torch.float32) is None
    whole = Factors(torch.ones(16, 16))
    small = Factors(torch.ones(2, 20), torch.ones(20, 2))
    large = Factors(torch.ones(8, 20), torch.ones(20, 8))
    assert Kronecker(whole, small).low_rank(torch.float32) is not None
    assert Kronecker(whole, large).low_rank(torch.float32) is None
    assert Kronecker(small, whole).low_rank(torch.float32) is None


@each_case
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_any_dtype_have_their_exact_values(
    tmp_path: Path, name: str, maker: Maker, dtype: torch.dtype
) -> None:
    shape = module(name).shape
    made = maker(shape, rank=2, alpha=3.0, seed=9, dtype=dtype)
    weight, bias = values(shape)
    ours = merged(change(tmp_path, made, name), weight, bias, strength=0.7)
    close(ours[0], made.merge(weight.numpy(), bias.numpy(), 0.7)[0])


@pytest.mark.parametrize(
    "dtype",
    [
        *DTYPES,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.uint16,
        torch.uint32,
        torch.uint64,
        torch.bool,
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_alphas_of_any_dtype_count(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    made = lora(module(LAYER).shape, rank=4, alpha=None, seed=10, dtype=torch.float32)
    alpha = torch.ones(shape).to(dtype)
    made = replace(made, parts={**made.parts, "alpha": alpha}, delta=made.delta / 4)
    check(change(tmp_path, made, LAYER), made, module(LAYER).shape)


def test_a_scale_counts_in_place_of_an_alpha(tmp_path: Path) -> None:
    made = lora(module(LAYER).shape, rank=4, alpha=2.0, seed=11, dtype=torch.float32)
    parts = {**made.parts, "scale": torch.tensor(0.25), "alpha": torch.tensor(9.0)}
    made = replace(made, parts=parts, delta=made.delta / 2)
    check(change(tmp_path, made, LAYER), made, module(LAYER).shape)


def test_ranks_of_several_are_concatenated_exactly(tmp_path: Path) -> None:
    shape = module(CONVOLUTION).shape
    makers: list[Maker] = [lora, KERNEL["Tucker"], KERNEL["LoKr, both factors"]]
    lows, delta = [], np.zeros(shape)
    for seed, maker in enumerate(makers):
        made = maker(shape, rank=1, alpha=0.5, seed=seed, dtype=torch.float32)
        (update,) = change(tmp_path, made, CONVOLUTION).updates
        low = update.low_rank(torch.float64)
        assert low is not None
        lows.append((low, 0.5 + seed))
        delta += (0.5 + seed) * made.delta
    down = torch.cat([low.down for low, _ in lows])
    up = torch.cat([low.up * weight for low, weight in lows], dim=1)
    close((up @ down.flatten(1)).view(shape), delta)
