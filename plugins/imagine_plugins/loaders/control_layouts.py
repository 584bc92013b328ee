"""Recognises ControlNets by their headers: for which models, in which layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagine_core.models.folders import KINDS, place_of
from imagine_plugins.loaders import configs
from imagine_plugins.loaders.architectures import SD1, SD2, SDXL, Config
from imagine_plugins.loaders.components import Component, Stored, understood
from imagine_plugins.loaders.control_slots import COLOURS, HINT_WIDTHS, control_slots
from imagine_plugins.loaders.header import Header
from imagine_plugins.loaders.layout import Slot, own_names
from imagine_plugins.loaders.problems import ProblemError
from imagine_plugins.loaders.t2i_layouts import adapter_config, adapter_names, adapter_slots

PREFIX, TRAINED = "control_model.", "state_dict."  # the latter in files as training saves them
ORIGINAL, DIFFUSERS = "input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight"
TEXT = ("attn2.to_k.weight", "label_emb.0.0.weight", "add_embedding.linear_1.weight")
FIRST = ("input_blocks.0.0.weight", "conv_in.weight")
PLANS = {(320, 768): SD1, (320, 1024): SD2, (320, 2048): SDXL, (320, 2816): SDXL}
"""By the width of the first layer and that of the text, or of all further inputs."""

OWN_SIZES = "sd"  # as models have whose network is none of the usual ones
POOLED = "shuffle"  # this ControlNet pools its output, and its file does not say so
KIND = "controlnet"
NET, ADAPTER = "ControlNetModel", "T2IAdapter"
EMBEDDED = "controlnet/config.json"
UNKNOWN = (
    "this ControlNet is for none of Stable Diffusion 1, 2 and XL; take its diffusers folder, "
    "whose config.json says for what"
)

# What steers a model and is none of these: what a name of its tensors holds, its kind, what it is.
OTHERS = (
    ("lora_controlnet", KIND, "a Control-LoRA, a ControlNet cut down to small factors"),
    ("lllite_", KIND, "a ControlNet-LLLite"),
    ("ip_adapter.", "ip-adapter", "an IP-Adapter, which steers a model by pictures"),
    ("image_proj.", "ip-adapter", "an IP-Adapter, which steers a model by pictures"),
    ("style_embedding", KIND, "a T2I-Adapter for styles"),
    ("controlnet_blocks.", KIND, "a ControlNet for a transformer, such as Flux"),
)
# The same beside the tensors that ControlNets have.
KIN = (
    ("task_embedding", KIND, "a ControlNet for several kinds of hints at once (union, ProMax)"),
    ("control_add_embedding", KIND, "a ControlNet for several kinds of hints at once (union)"),
    ("base_to_ctrl", KIND, "a ControlNet-XS"),
    ("enc_zero_convs", KIND, "a ControlNet-XS"),
    ("motion_modules", KIND, "a ControlNet for videos (SparseCtrl)"),
    ("difference", KIND, "the difference of a ControlNet and Stable Diffusion 1"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlFile:
    """A ControlNet or a T2I-Adapter as its header and its configuration describe it.

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


# ------------------------------------------------------------------------------------- files


def control_problem(header: Header) -> ProblemError | None:
    """Where a ControlNet belongs, or why no model can use it; None for a file that is none."""
    foreign, is_adapter = _foreign(header), bool(adapter_names(header.tensors))
    if foreign is not None or not (is_adapter or root_of(header.tensors) is not None):
        return foreign
    what = KINDS[KIND].replace("ControlNet", "T2I-Adapter") if is_adapter else KINDS[KIND]
    return ProblemError(f"{what}; it belongs {place_of(KIND)}", family=KIND)


def _foreign(header: Header) -> ProblemError | None:
    """What a file is that steers a model in a way that is not supported."""
    tells = OTHERS if root_of(header.tensors) is None else OTHERS + KIN
    for part, family, what in tells:
        if any(part in name for name in header.tensors):
            return ProblemError(f"this is {what}; it is not supported", family=family)
    return None


def root_of(names: Iterable[str]) -> str | None:
    """What a ControlNet's file has before its names; None for a file of anything else."""
    there = set(names)
    for root in (PREFIX, f"{TRAINED}{PREFIX}"):
        if any(name.startswith(root) for name in there):
            return root
    found = (root for root in ("", TRAINED) if {root + ORIGINAL, root + DIFFUSERS} & there)
    return next(found, None)


def control_in_file(
    path: Path, header: Header, *, config: Config | None = None
) -> ControlFile | None:
    """The ControlNet in a file; None for a file of anything else.

    Args:
        path: The file.
        header: Its header.
        config: Its configuration; None for the one in the file, or for that of its family.

    Raises:
        ProblemError: No model can use it.
    """
    foreign = _foreign(header)
    if foreign is not None:
        raise foreign
    embedded = configs.embedded(header.metadata).get(EMBEDDED)
    if config is None and isinstance(embedded, dict):
        config = embedded
    if names := adapter_names(header.tensors):
        weights = {usual: Stored(path, header.tensors[name]) for usual, name in names.items()}
        return adapter_of(weights, config)
    root = root_of(header.tensors)
    if root is None:
        return None
    weights = {
        name.removeprefix(root): Stored(path, tensor)
        for name, tensor in header.tensors.items()
        if name.startswith(root)
    }
    return control_of(weights, config=config, told=path.stem, prefix=root)


# ------------------------------------------------------------------------------- the networks


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
    config = _usual(weights, told) if config is None else config
    if config.get("conditioning_channels", COLOURS) != COLOURS:
        channels = config["conditioning_channels"]
        problem = f"this is a ControlNet for hints of {channels!s:.20} channels, not of {COLOURS}"
        raise ProblemError(f"{problem}; it is not supported", family=KIND)
    slots = understood(KIND, lambda: control_slots(config))
    if slots is not None and DIFFUSERS in weights:
        slots = own_names(slots)
    return ControlFile(
        kind=NET,
        config=config,
        component=_complete("ControlNet", slots, weights, prefix),
        family=_family(config),
    )


def adapter_of(weights: Mapping[str, Stored], config: Config | None) -> ControlFile:
    """The T2I-Adapter that tensors are, by the names that diffusers has; as `control_of`."""
    config = adapter_config(weights) if config is None else config
    slots = understood(KIND, lambda: list(adapter_slots(config)))
    channels = config.get("channels")
    families = {tuple(plan.unet["block_out_channels"]): plan.family for plan in (SD1, SDXL)}
    family = families.get(tuple(channels), OWN_SIZES) if isinstance(channels, list) else OWN_SIZES
    if family != OWN_SIZES and config.get("adapter_type") == "full_adapter_xl":
        family = SDXL.family
    elif config.get("adapter_type") == "light_adapter" and channels == [320, 640, 1280]:
        family = SD1.family  # it repeats the last one itself
    return ControlFile(
        kind=ADAPTER,
        config=config,
        component=_complete("T2I-Adapter", slots, weights),
        family=family,
    )


def _complete(
    title: str, slots: list[Slot] | None, weights: Mapping[str, Stored], prefix: str = ""
) -> Component:
    component = Component(title=title, slots=slots, weights=weights, prefix=prefix)
    if component.problem is not None:
        raise ProblemError(component.problem, family=KIND)
    return component


# -------------------------------------------------------------------------- configurations


def _family(config: Config) -> str:
    """As models of that configuration have it."""
    if config.get("addition_embed_type") == "text_time":
        return SDXL.family
    widths, text = config.get("block_out_channels"), config.get("cross_attention_dim")
    first = widths[0] if isinstance(widths, list | tuple) and widths else None
    if not (isinstance(first, int) and isinstance(text, int)):
        return OWN_SIZES
    return configs.FAMILIES.get((first, text), OWN_SIZES)


def _usual(weights: Mapping[str, Stored], told: str) -> Config:
    """The configuration of a ControlNet of a family's usual width."""
    ends = [_size(weights, name, 1) for name in weights if name.endswith(TEXT)]
    first = max((_size(weights, name, 0) for name in FIRST), default=0)
    plan = next((PLANS[first, width] for width in ends if (first, width) in PLANS), None)
    if plan is None:
        raise ProblemError(UNKNOWN, family=KIND)
    entering = ORIGINAL if ORIGINAL in weights else DIFFUSERS
    return {
        **plan.unet,
        **(_blocks(plan.unet, weights) if entering == DIFFUSERS else {}),
        "in_channels": max(_size(weights, name, 1) for name in FIRST),
        "conditioning_channels": _size(weights, entering, 1) or COLOURS,
        "conditioning_embedding_out_channels": list(HINT_WIDTHS),
        "global_pool_conditions": POOLED in told.lower(),
    }


def _size(weights: Mapping[str, Stored], name: str, axis: int) -> int:
    shape = weights[name].tensor.shape if name in weights else ()
    return shape[axis] if len(shape) > axis else 0


def _blocks(unet: Config, weights: Mapping[str, Stored]) -> Config:
    """Which blocks of a ControlNet have how many transformers: some are cut down."""
    levels = [f"down_blocks.{level}" for level in range(len(unet["down_block_types"]))]
    depths = [_depth(weights, block) for block in (*levels, "mid_block")]
    cross = ["CrossAttn" * bool(depth) for depth in depths[:-1]]
    usual = [f"{each}DownBlock2D" for each in cross]
    last = max(depths[-2:]) or 1
    return {
        "down_block_types": usual,
        "mid_block_type": configs.MIDDLE if depths[-1] else "UNetMidBlock2D",
        "transformer_layers_per_block": [*(depth or 1 for depth in depths[:-2]), last],
    }


def _depth(weights: Mapping[str, Stored], block: str) -> int:
    """How many transformers each attention of a block has."""
    name = f"{block}.attentions.0.transformer_blocks."
    found = {key.removeprefix(name).partition(".")[0] for key in weights if key.startswith(name)}
    return len(found)
