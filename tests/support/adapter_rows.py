"""LoRAs of any kind for tiny models, and the models that they are merged into by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapter_files import KERNEL, LINEAR, Made, dora, full, lora, named, norm, save
from imagine_core.parts import AppliedLora, Layers
from imagine_core.types import LoraUse
from imagine_plugins.loaders.adapters.blocks import blocks
from imagine_plugins.loaders.adapters.lora_file import LoraFile
from imagine_plugins.loaders.adapters.modules import Module, modules_of, target_of
from imagine_plugins.loaders.adapters.reading import read_adapter

Make = Callable[[Module, int], Made | None]


@dataclass(frozen=True, eq=False)
class MadeLora:
    """A LoRA and what it is to do to each layer."""

    lora: LoraFile
    made: Mapping[str, Made]

    def used(self, weight: float = 1.0, **how: Any) -> Used:
        """The LoRA in a request."""
        return Used(self, LoraUse(name="x", weight=weight, **how))


@dataclass(frozen=True, eq=False)
class Used:
    """A LoRA as a request uses it."""

    made: MadeLora
    use: LoraUse

    @property
    def applied(self) -> AppliedLora:
        return AppliedLora(self.made.lora, self.use)

    def strength(self, module: Module) -> float:
        """How much of a module's change acts."""
        unet = module.target.component == "unet"
        weight = self.use.weight if unet else self.applied.text_weight
        return weight * (blocks(self.use.blocks).factor(module) if self.use.blocks else 1.0)


def made_lora(path: Path, layers: Layers, make: Make) -> MadeLora:
    """A LoRA file with what `make` makes for each layer of a model."""
    tensors: dict[str, torch.Tensor] = {}
    made: dict[str, Made] = {}
    for number, module in enumerate(modules_of(layers)):
        each = make(module, number)
        if each is not None:
            made[str(module.target)] = each
            tensors |= named(each, stem(module))
    save(path, tensors)
    return MadeLora(LoraFile(path.stem, read_adapter(path)), made)


def stem(module: Module) -> str:
    """kohya's name of a module."""
    component, name = module.target
    flat = name.replace(".", "_")
    if component == "unet":
        return f"lora_unet_{flat}"
    return f"lora_te{'2' * component.endswith('_2')}_text_model_{flat}"


def of_kind(kind: str, *, rank: int = 2, alpha: float | None = 1.0, seed: int = 0) -> Make:
    """Makes changes of one kind: of `KINDS`, small enough that activations stay in range."""

    def make(module: Module, number: int) -> Made | None:
        how: dict[str, Any] = {
            "rank": rank,
            "alpha": alpha,
            "seed": seed + number,
            "dtype": torch.float32,
        }
        if module.kind == "norm":
            return norm(module.shape, **how) if kind in {"norm", "all"} else None
        if module.kind == "table":
            maker = {"full": _weight_alone, "LoRA": lora}.get(kind)
            return None if maker is None else maker(module.shape, **how)
        makers = KERNEL if len(module.shape) == 4 else LINEAR
        if kind == "all":
            name = list(makers)[number % len(makers)]
            made = makers[name](module.shape, **how)
            return dora(made, module.shape, ("out", "in")[number % 2], seed=seed + number)
        name, _, axis = kind.partition(", DoRA ")
        if name not in makers:
            return None
        made = makers[name](module.shape, **how)
        return dora(made, module.shape, axis, seed=seed + number) if axis else made

    return make


KINDS = [
    *KERNEL,
    "norm",
    "all",
    *(f"{kind}, DoRA {axis}" for kind in ("LoRA", "full", "Tucker") for axis in ("out", "in")),
]


def _weight_alone(shape: tuple[int, ...], **how: Any) -> Made:
    made = full(shape, **how)
    return Made({"diff": made.parts["diff"]}, made.delta)


def merged_by_hand(network: Any, component: str, layers: Layers, used: Iterable[Used]) -> Any:
    """A copy of a network with LoRAs merged into its weights in float64."""
    copied = copy.deepcopy(network)
    found = {name.removeprefix("text_model."): each for name, each in copied.named_modules()}
    old = {name: copy.deepcopy(each) for name, each in found.items() if hasattr(each, "weight")}
    for each in used:
        for name, made in each.made.made.items():
            target = target_of(name)
            if target.component == component:
                strength = each.strength(modules_of(layers)[target])
                _add(found[target.module], old[target.module], made, strength)
    return copied


def _add(layer: Any, old: Any, made: Made, strength: float) -> None:
    weight = old.weight.detach().double().reshape(made.delta.shape).numpy()
    bias = getattr(old, "bias", None)
    given = None if bias is None else bias.detach().double().numpy()
    new, new_bias = made.merge(weight, given, strength)
    change = torch.as_tensor(new - weight).reshape(layer.weight.shape)
    layer.weight.data = (layer.weight.double() + change).to(layer.weight.dtype)
    if made.bias is None:
        return
    more = torch.as_tensor(new_bias - (0 if given is None else given))
    start = 0 if layer.bias is None else layer.bias.double()
    layer.bias = torch.nn.Parameter((start + more).to(old.weight.dtype), requires_grad=False)
