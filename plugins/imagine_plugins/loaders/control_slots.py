"""The tensors of a ControlNet, by its configuration."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from imagine_plugins.loaders.architectures import Config
from imagine_plugins.loaders.components import is_laid_out
from imagine_plugins.loaders.layout import Slot, unet_slots

ENCODER = ("time_embed.", "label_emb.", "input_blocks.", "middle_block.")
HINT_WIDTHS = (16, 32, 96, 256)
"""Of the layers that read the hint (Zhang et al. 2023)."""

COLOURS = 3
"""Channels of a hint."""


def control_slots(config: Config) -> list[Slot] | None:
    """The tensors of a ControlNetModel in the original layout; None where only loading can tell."""
    down = [str(kind) for kind in config["down_block_types"]]
    up = [kind.replace("Down", "Up") for kind in reversed(down)]
    encoder = {**config, "out_channels": config["in_channels"], "up_block_types": up}
    if not is_laid_out(encoder):
        return None
    slots = [slot for slot in unet_slots(encoder) if slot.key.startswith(ENCODER)]
    return [*slots, *_hint_slots(config), *_zero_slots(config)]


def _hint_slots(config: Config) -> Iterator[Slot]:
    """The layers that read the hint."""
    read = list(config.get("conditioning_embedding_out_channels") or HINT_WIDTHS)
    name, number = "controlnet_cond_embedding", 0
    yield from _convolution("input_hint_block.0", f"{name}.conv_in", read[0], COLOURS, 3)
    for entering, leaving in pairwise(read):
        for out in (entering, leaving):
            old, new = f"input_hint_block.{2 * number + 2}", f"{name}.blocks.{number}"
            yield from _convolution(old, new, out, entering, 3)
            number += 1
    width = config["block_out_channels"][0]
    old = f"input_hint_block.{2 * number + 2}"
    yield from _convolution(old, f"{name}.conv_out", width, read[-1], 3)


def _zero_slots(config: Config) -> Iterator[Slot]:
    """The convolutions that begin their training at zero: one for each residual."""
    for place, width in enumerate(residual_widths(config)):
        old, new = f"zero_convs.{place}.0", f"controlnet_down_blocks.{place}"
        yield from _convolution(old, new, width, width, 1)
    deepest = config["block_out_channels"][-1]
    yield from _convolution("middle_block_out.0", "controlnet_mid_block", deepest, deepest, 1)


def residual_widths(config: Config) -> list[int]:
    """Channels of the maps that a UNet's encoder hands to its decoder."""
    widths = list(config["block_out_channels"])
    layers = config.get("layers_per_block", 2)
    found = [widths[0]]
    for level, width in enumerate(widths):
        count = layers if isinstance(layers, int) else layers[level]
        found += [width] * (count + (level < len(widths) - 1))
    return found


def _convolution(old: str, new: str, out: int, entering: int, side: int) -> Iterator[Slot]:
    yield Slot(f"{old}.weight", (out, entering, side, side), (f"{new}.weight",))
    yield Slot(f"{old}.bias", (out,), (f"{new}.bias",))
