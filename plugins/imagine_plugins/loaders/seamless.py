"""Lets convolutions wrap around, along some axes and in some rows of one forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional


@contextmanager
def acting(network: nn.Module, rows: Sequence[str]) -> Iterator[None]:
    """For the time of a forward, pad with the opposite edge where convolutions pad with zeros.

    Convolutions get inputs that are padded already, so that hooks which see these inputs, as those
    of LoRAs, wrap around as well. Where no row wraps, nothing is touched.

    Args:
        network: Any network of convolutions: a UNet, a ControlNet, an autoencoder.
        rows: For each row of the forward the axes along which it wraps around: "x", "y", "xy" or
            none; those of a single one hold for all that there are.
    """
    if not any(rows):
        yield
        return
    hooks, layers = [], []
    layer: Any  # torch types attributes of layers as modules, and padding as text or numbers
    padding: Any
    try:
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d) and any(layer.padding):
                padding = layer.padding
                hooks.append(layer.register_forward_pre_hook(partial(_padded, rows, padding)))
                layers.append((layer, padding))
                layer.padding = (0, 0)
            elif _pads_itself(layer):
                hooks.append(layer.conv.register_forward_pre_hook(partial(_joined, rows)))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, padding in layers:
            layer.padding = padding


def _pads_itself(layer: Any) -> bool:
    """Whether it is a Downsample2D that pads to the right and below, and its convolution does not.

    So those of autoencoders are.
    """
    from diffusers.models.downsampling import Downsample2D

    return isinstance(layer, Downsample2D) and layer.use_conv and layer.padding == 0


def _padded(
    rows: Sequence[str], padding: tuple[int, int], _layer: object, inputs: tuple[torch.Tensor]
) -> torch.Tensor:
    """The input with a border: of zeros, or of what the row has at its other end."""
    (x,) = inputs
    above, left = padding
    below, right = above + x.shape[2], left + x.shape[3]
    padded = functional.pad(x, (left, left, above, above))
    if across := _along("x", rows):
        padded[across, :, :, :left] = padded[across, :, :, right - left : right]
        padded[across, :, :, right:] = padded[across, :, :, left : 2 * left]
    if down := _along("y", rows):
        padded[down, :, :above] = padded[down, :, below - above : below]
        padded[down, :, below:] = padded[down, :, above : 2 * above]
    return padded


def _joined(rows: Sequence[str], _layer: object, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    """The input whose last column and row, which are zero, become the first ones."""
    (x,) = inputs
    joined = x.clone()
    if across := _along("x", rows):
        joined[across, :, :, -1] = joined[across, :, :, 0]
    if down := _along("y", rows):
        joined[down, :, -1] = joined[down, :, 0]
    return joined


def _along(axis: str, rows: Sequence[str]) -> slice | list[int]:
    """The rows that wrap around along an axis; an empty list for none."""
    if len(rows) == 1:
        return slice(None) if axis in rows[0] else []
    return [number for number, axes in enumerate(rows) if axis in axes]
