"""Whole models with an adapter compute what they compute with weights that are merged by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter_files import KERNEL, KOHYA, LINEAR, OLD, PEFT, Made, Maker, dora, named, norm, save
from checkpoints import SD1, SDXL, TINY_SD1, TINY_SDXL, Layout, configs
from imagine_core.parts import AppliedLora, Parts
from imagine_core.types import LoraUse
from imagine_plugins.loaders import configs as read
from imagine_plugins.loaders.adapters.lora_file import LoraFile
from imagine_plugins.loaders.adapters.merging import merged
from imagine_plugins.loaders.adapters.modules import Module, Target, layers_of, modules_of
from imagine_plugins.loaders.adapters.reading import read_adapter
from imagine_plugins.loaders.adapters.rows import Rows
from imagine_plugins.loaders.architectures import Architecture
from imagine_plugins.loaders.layout import unet_slots

SMALL = {
    "sd1": replace(
        SD1, channels=(16, 32, 64, 64), heads=2, context=32, groups=8, texts=TINY_SD1.texts
    ),
    "sdxl": replace(
        TINY_SDXL, channels=(16, 32, 64), depths=SDXL.depths, heads=(2, 2, 2), resnets=2
    ),
}
"""The blocks of the families, all of them, with few channels."""


def plan_of(layout: Layout) -> Architecture:
    return read.architecture(configs(layout).get)


def flat(name: str) -> str:
    return name.replace(".", "_")


Stem = Callable[[str, str], str]
ANY_KIND: list[tuple[Stem, dict[str, str]]] = [  # of diffusers' name and the original one
    (lambda new, old: f"lora_unet_{flat(new)}", KOHYA),
    (lambda new, old: f"lora_unet_{flat(old)}", KOHYA),
    (lambda new, old: f"lycoris_{flat(new)}", KOHYA),
    (lambda new, old: f"diffusion_model.{old}", KOHYA),
    (lambda new, old: f"unet.{old}", KOHYA),
    (lambda new, old: new, KOHYA),
]
OF_LORA: list[tuple[Stem, dict[str, str]]] = [
    *ANY_KIND,
    (lambda new, old: f"unet.{new}", PEFT),
    (lambda new, old: f"base_model.model.{new}", PEFT),
    (lambda new, old: f"unet.{new}", OLD),
]


def originals(plan: Architecture) -> dict[str, str]:
    return {
        slot.targets[0].removesuffix(".weight"): slot.key.removesuffix(".weight")
        for slot in unet_slots(plan.unet)
    }


def makers(module: Module) -> dict[str, Maker]:
    if module.kind == "norm":
        return {"norm": norm}
    return LINEAR if len(module.shape) == 2 else KERNEL


def stem(module: Module, old: str, spelling: Stem) -> str:
    component, name = module.target
    if component == "unet":
        return spelling(name, old)
    return f"lora_te{2 if component.endswith('_2') else 1}_text_model_{flat(name)}"


def mixture(plan: Architecture) -> tuple[dict[Target, Made], dict[str, torch.Tensor]]:
    """Something for each module of a model, of all kinds in turn under names of all tools."""
    old, turns, spellings = originals(plan), 0, cycle(OF_LORA)
    made: dict[Target, Made] = {}
    tensors: dict[str, torch.Tensor] = {}
    for module in modules_of(layers_of(plan)):
        if module.kind == "table":
            continue
        turns += 1
        kinds = list(makers(module).items())
        kind, maker = kinds[turns % len(kinds)]
        each = maker(module.shape, rank=2, alpha=turns % 3 or None, seed=turns, dtype=torch.float32)
        if turns % 5 == 0 and module.kind == "layer":
            each = dora(each, module.shape, ("out", "in")[turns % 2], seed=turns)
        spelling, names = next(spellings)
        if kind != "LoRA":
            names = KOHYA
        made[module.target] = each
        tensors |= named(each, stem(module, old.get(module.target.module, ""), spelling), names)
    return made, tensors


@pytest.mark.parametrize("family", SMALL)
def test_all_modules_of_a_model_are_changed_as_merged_by_hand(family: str, tmp_path: Path) -> None:
    plan = plan_of(SMALL[family])
    made, tensors = mixture(plan)
    layers = layers_of(plan)
    path = save(tmp_path / "a.safetensors", tensors)
    lora = LoraFile("a", read_adapter(path))
    fitted = lora.fit(layers)
    assert fitted.warnings == ()
    assert set(fitted.changes) == set(map(str, made))
    assert len([t for t in made if t.component == "unet"]) == {"sd1": 391, "sdxl": 1050}[family]
    unet, inputs = network(plan)
    by_hand = copy.deepcopy(unet)
    for target, each in made.items():
        if target.component == "unet":
            _merge(by_hand.get_submodule(target.module), each, 0.3)
    wanted = by_hand(**inputs).sample
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    plain = unet(**inputs).sample
    parts = Parts((AppliedLora(lora, LoraUse(name="a", weight=0.3)),))
    with Rows(layers, {"unet": unet}).acting("unet", [parts, parts]):
        ours = unet(**inputs).sample
    assert (wanted - plain).abs().max() > 0.01 * plain.abs().max()
    assert (ours - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())
    assert torch.equal(unet(**inputs).sample, plain)


def _merge(module: Any, made: Made, strength: float) -> None:
    shape = module.weight.shape
    bias = None if module.bias is None else module.bias.detach().numpy()
    flat_weight = module.weight.detach().reshape(made.delta.shape).numpy()
    weight, bias = made.merge(flat_weight, bias, strength)
    module.weight = torch.nn.Parameter(torch.as_tensor(weight).reshape(shape))
    module.bias = None if bias is None else torch.nn.Parameter(torch.as_tensor(bias))


def network(plan: Architecture) -> tuple[Any, dict[str, Any]]:
    """A UNet in float64, and what it takes."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(dict(plan.unet)).double().eval()
    inputs: dict[str, Any] = {
        "sample": torch.randn(2, 4, 16, 16).double(),
        "timestep": torch.tensor([700.0, 20.0]),
        "encoder_hidden_states": torch.randn(2, 7, plan.unet["cross_attention_dim"]).double(),
    }
    if plan.family == "sdxl":
        pooled = plan.texts[1].config["projection_dim"]
        inputs["added_cond_kwargs"] = {
            "text_embeds": torch.randn(2, pooled).double(),
            "time_ids": torch.randn(2, 6).double(),
        }
    return unet.requires_grad_(requires_grad=False), inputs


# ------------------------------------------------------------------------------ random mixtures

PLAN = plan_of(TINY_SD1)
LAYERS = [
    m for m in modules_of(layers_of(PLAN)) if m.kind != "table" and m.target.component == "unet"
]
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn)


@st.composite
def changes(draw: Any) -> tuple[Module, Made, str, dict[str, str]]:
    module = draw(st.sampled_from(LAYERS))
    kind, maker = draw(st.sampled_from(list(makers(module).items())))
    made = maker(
        module.shape,
        rank=draw(st.integers(1, 5)),
        alpha=draw(st.sampled_from([None, 0.0, 0.5, 1.0, 4.0, -2.0, 64.0])),
        seed=draw(st.integers(0, 99)),
        dtype=draw(st.sampled_from(DTYPES)),
    )
    axis = draw(st.sampled_from([None, "out", "in"]))
    if axis is not None and module.kind == "layer":
        made = dora(made, module.shape, axis, seed=draw(st.integers(0, 99)))
    spelling, names = draw(st.sampled_from(OF_LORA if kind == "LoRA" else ANY_KIND))
    return (
        module,
        made,
        spelling(module.target.module, originals(PLAN)[module.target.module]),
        names,
    )


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(changes(), min_size=1, max_size=8, unique_by=lambda each: each[0].target),
    st.sampled_from([1.0, 0.0, -1.0, 0.35, 2.0]),
)
def test_any_mixture_of_kinds_ranks_alphas_dtypes_and_names_is_what_the_formulas_say(
    tmp_path_factory: pytest.TempPathFactory,
    mixed: list[tuple[Module, Made, str, dict[str, str]]],
    strength: float,
) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for _, made, name, names in mixed:
        tensors |= named(made, name, names)
    file = save(tmp_path_factory.mktemp("mixed") / "a.safetensors", tensors)
    fitted = read_adapter(file).fit(layers_of(PLAN))
    assert fitted.warnings == ()
    assert set(fitted.changes) == {str(module.target) for module, *_ in mixed}
    for module, made, *_ in mixed:
        weight = torch.randn(module.shape, dtype=torch.float64)
        bias = torch.randn(module.shape[0], dtype=torch.float64)
        ours = merged(fitted.changes[str(module.target)], weight, bias, strength=strength)
        hand = made.merge(weight.numpy(), bias.numpy(), strength)
        for one, other in zip(ours, hand, strict=True):
            wanted = torch.as_tensor(other)
            assert one is not None
            assert (one - wanted).abs().max() <= 1e-9 * max(1.0, float(wanted.abs().max()))
