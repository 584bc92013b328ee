"""Tells whether a ControlNet was made for a network of a model's shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from imagine_plugins.loaders.control_networks import LoadedControl
from imagine_plugins.loaders.control_slots import residual_widths
from imagine_plugins.loaders.t2i_layouts import adapter_scales, adapter_widths

Compared = Iterator[tuple[str, object, object]]
"""What is compared, in words; what a ControlNet wants, and what a UNet has."""

ADDED = ("addition_embed_type", "projection_class_embeddings_input_dim")


def misfit(net: object, unet: Any, downsampling: int) -> str | None:
    """Why a ControlNet does not fit a model, as the end of a sentence; None where it does.

    Args:
        net: The ControlNet.
        unet: The configuration of the model's UNet2DConditionModel.
        downsampling: Pixels per cell of its latents.
    """
    if not isinstance(net, LoadedControl):
        return "is of a format that this model cannot use"
    config = net.network.config
    compared = _adapter(config, unet, downsampling) if net.is_adapter else _net(config, unet)
    for what, theirs, ours in compared:
        if theirs != ours:
            return f"is for models whose {what} is {theirs}; the model's is {ours}"
    return None


def _net(net: Any, unet: Any) -> Compared:
    yield "number of latent channels", net.in_channels, unet.out_channels
    yield "width of the text", net.cross_attention_dim, unet.cross_attention_dim
    yield "width of each layer", residual_widths(net), residual_widths(unet)
    if net.addition_embed_type is not None:
        theirs, ours = ([each.get(name) for name in ADDED] for each in (net, unet))
        yield "further input", theirs, ours


def _adapter(adapter: Any, unet: Any, downsampling: int) -> Compared:
    """As many levels as both have; features are added before a level with attention shrinks."""
    widths, scales = list(unet.block_out_channels), []
    for level, kind in enumerate(unet.down_block_types):
        is_shrunk = "CrossAttn" not in kind and level < len(widths) - 1
        scales.append(downsampling << (level + is_shrunk))
    count = min(len(widths), len(adapter_widths(adapter)))
    yield "width of each level", adapter_widths(adapter)[:count], widths[:count]
    yield "size of each level's cells", adapter_scales(adapter)[:count], scales[:count]
