"""Recognises ControlNets and T2I-Adapters by their headers: for which models, in which layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagine_core.models.folders import KINDS, place_of
from imagine_plugins.loaders.architectures import SD1, SD2, SDXL, Architecture, Config
from imagine_plugins.loaders.components import Component, Stored
from imagine_plugins.loaders.header import Header
from imagine_plugins.loaders.layout import Slot, own_names, unet_slots
from imagine_plugins.loaders.problems import ProblemError

PREFIX, TRAINED = "control_model.", "state_dict."  # the latter in files as training saves them
ORIGINAL, DIFFUSERS = "input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight"
ENCODER = ("time_embed.", "label_emb.", "input_blocks.", "middle_block.")
WIDTHS = (16, 32, 96, 256)  # of the layers that read the hint, Zhang et al. 2023
TEXT = ("attn2.to_k.weight", "attn2.to_k_ip.weight")
FAMILIES: tuple[Architecture, ...] = (SD1, SD2, SDXL)
OWN_SIZES = "sd"  # as models have whose network is none of the usual ones
POOLED = "shuffle"  # this ControlNet pools its output, and its file does not say so
KIND = "controlnet"

# What steers a model and is none of these: what its tensors' names hold, its kind, what it is.
OTHERS = (
    ("lora_controlnet", KIND, "a Control-LoRA, a ControlNet cut down to small factors"),
    ("task_embedding", KIND, "a ControlNet for several kinds of hints at once (union, ProMax)"),
    ("lllite_", KIND, "a ControlNet-LLLite"),
    ("ip_adapter.", "ip-adapter", "an IP-Adapter, which steers a model by pictures"),
    ("image_proj.", "ip-adapter", "an IP-Adapter, which steers a model by pictures"),
    ("adapter.body.", KIND, "a T2I-Adapter alone; take its diffusers folder, with config.json"),
)
BODY = {"body.0.block1.weight", "conv_in.weight"}
"""A T2I-Adapter as its authors publish it has both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlFile:
    """A ControlNet as its header and its configuration describe it.

    Attributes:
        kind: The class of diffusers' that it is.
        config: The configuration of its network.
        component: Its tensors.
        family: The family of the models that it steers.
    """

    kind: str
    config: Config
    component: Component
    family: str


def control_problem(header: Header) -> ProblemError | None:
    """Where a ControlNet belongs, or why no model can use it; None for a file that is none."""
    foreign = _foreign(header)
    if foreign is not None or root_of(header.tensors) is None:
        return foreign
    return ProblemError(f"{KINDS[KIND]}; it belongs {place_of(KIND)}", family=KIND)


def _foreign(header: Header) -> ProblemError | None:
    """What a file is that steers a model in a way that is not supported."""
    for part, family, what in OTHERS:
        if any(part in name for name in header.tensors):
            return ProblemError(f"this is {what}; it is not supported", family=family)
    if header.tensors.keys() >= BODY:
        what = "a T2I-Adapter in its original layout; take its diffusers folder"
        return ProblemError(f"this is {what}", family=KIND)
    return None


def root_of(names: Iterable[str]) -> str | None:
    """What a ControlNet's file has before its names; None for a file of anything else."""
    there = set(names)
    for root in (PREFIX, f"{TRAINED}{PREFIX}"):
        if any(name.startswith(root) for name in there):
            return root
    found = (root for root in ("", TRAINED) if {root + ORIGINAL, root + DIFFUSERS} & there)
    return next(found, None)


def control_in_file(path: Path, header: Header) -> ControlFile:
    """The ControlNet in a file that is one; raises `ProblemError` where no model can use it."""
    foreign = _foreign(header)
    if foreign is not None:
        raise foreign
    root = root_of(header.tensors) or ""
    weights = {
        name.removeprefix(root): Stored(path, tensor)
        for name, tensor in header.tensors.items()
        if name.startswith(root)
    }
    return control_of(weights, told=path.stem, prefix=root)


def control_of(
    weights: Mapping[str, Stored],
    *,
    config: Config | None = None,
    told: str = "",
    prefix: str = "",
) -> ControlFile:
    """The ControlNet that tensors are; raises `ProblemError` where no model can use it.

    Args:
        weights: Its tensors.
        config: Its configuration; None for that of its family's UNet.
        told: Its name.
        prefix: What the file has before the names.
    """
    family = _family(weights, config)
    if config is None:
        plan = next((each for each in FAMILIES if each.family == family), None)
        if plan is None:
            raise ProblemError(
                "this ControlNet is for none of Stable Diffusion 1, 2 and XL; take its diffusers "
                "folder, whose config.json says for what",
                family=KIND,
            )
        config = _config(plan.unet, weights, told)
    slots: list[Slot] = list(control_slots(config))
    if DIFFUSERS in weights:
        slots = own_names(slots)
    component = Component(title="ControlNet", slots=slots, weights=weights, prefix=prefix)
    if component.problem is not None:
        raise ProblemError(component.problem, family=KIND)
    return ControlFile(kind="ControlNetModel", config=config, component=component, family=family)


def adapter_of(weights: Mapping[str, Stored], config: Config) -> ControlFile:
    """The T2I-Adapter of a diffusers folder."""
    channels = list(config.get("channels", ()))
    families = {tuple(each.unet["block_out_channels"]): each.family for each in (SD1, SDXL)}
    xl = config.get("adapter_type") == "full_adapter_xl"
    family = "sdxl" if xl else families.get(tuple(channels), OWN_SIZES)
    component = Component(title="T2I-Adapter", slots=None, weights=weights)
    return ControlFile(kind="T2IAdapter", config=config, component=component, family=family)


def control_slots(config: Config) -> Iterator[Slot]:
    """The tensors of a ControlNetModel in the original layout, without a prefix."""
    widths = list(config["block_out_channels"])
    encoder = {**config, "out_channels": config["in_channels"]}
    encoder.setdefault("up_block_types", _up(config["down_block_types"]))
    yield from (slot for slot in unet_slots(encoder) if slot.key.startswith(ENCODER))
    read = list(config.get("conditioning_embedding_out_channels") or WIDTHS)
    first = config.get("conditioning_channels", 3)
    name = "controlnet_cond_embedding"
    yield from _convolution("input_hint_block.0", f"{name}.conv_in", read[0], first, 3)
    number = 0
    for place in range(len(read) - 1):
        for out in (read[place], read[place + 1]):
            old, new = f"input_hint_block.{2 * number + 2}", f"{name}.blocks.{number}"
            yield from _convolution(old, new, out, read[place], 3)
            number += 1
    last = f"input_hint_block.{2 * number + 2}"
    yield from _convolution(last, f"{name}.conv_out", widths[0], read[-1], 3)
    for place, width in enumerate(_skips(config)):
        yield from _convolution(
            f"zero_convs.{place}.0", f"controlnet_down_blocks.{place}", width, width, 1
        )
    yield from _convolution("middle_block_out.0", "controlnet_mid_block", widths[-1], widths[-1], 1)


def _skips(config: Config) -> Iterator[int]:
    """The widths of the maps that a UNet's encoder hands to its decoder."""
    widths = list(config["block_out_channels"])
    layers = config.get("layers_per_block", 2)
    yield widths[0]
    for level, width in enumerate(widths):
        count = layers if isinstance(layers, int) else layers[level]
        yield from [width] * (count + (level < len(widths) - 1))


def _convolution(old: str, new: str, out: int, entering: int, side: int) -> Iterator[Slot]:
    yield Slot(f"{old}.weight", (out, entering, side, side), (f"{new}.weight",))
    yield Slot(f"{old}.bias", (out,), (f"{new}.bias",))


def _up(down: Iterable[str]) -> list[str]:
    return [kind.replace("Down", "Up") for kind in reversed(list(down))]


def _family(weights: Mapping[str, Stored], config: Config | None) -> str:
    """The family by the width of the text, and by the network's own where that is told."""
    width = None
    if config is not None:
        width = config.get("cross_attention_dim")
    else:
        for name, stored in weights.items():
            if name.endswith(TEXT) and len(stored.tensor.shape) > 1:
                width = stored.tensor.shape[1]
                break
    for plan in FAMILIES:
        same = config is None or list(config.get("block_out_channels", ())) == list(
            plan.unet["block_out_channels"]
        )
        if plan.unet["cross_attention_dim"] == width and same:
            return plan.family
    return OWN_SIZES


def _config(unet: Config, weights: Mapping[str, Stored], told: str) -> Config:
    """The configuration of a ControlNet of a family's usual size."""
    entering = next((weights[name] for name in (ORIGINAL, DIFFUSERS) if name in weights), None)
    shape = () if entering is None else entering.tensor.shape
    return {
        **unet,
        "in_channels": 4,
        "conditioning_channels": shape[1] if len(shape) > 1 else 3,
        "conditioning_embedding_out_channels": WIDTHS,
        "global_pool_conditions": POOLED in told.lower(),
    }
