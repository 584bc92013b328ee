"""Runs an autoencoder layer by layer in strips of rows: the same numbers in less memory.

What is stored as a whole is the input of a residual block and what its first convolution makes of
it. Group norms take their statistics from all strips first, so that strips differ by nothing but
rounding from a picture that is computed at once, and there are no seams to hide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from imagine_plugins.loaders.maps import (
    Applied,
    Convolved,
    Doubled,
    Map,
    Normed,
    Stored,
    Sum,
    stored,
)

SCORES = 2**26  # of attention at once
BLOCKS = ("DownEncoderBlock2D", "UpDecoderBlock2D")  # and those with attention beside

Step = Callable[[Map], Map]


def decode(model: Any, latent: torch.Tensor, axes: str) -> torch.Tensor:
    """What `model.decode` makes of a latent [1, channels, height, width] in its own scale.

    Args:
        model: An AutoencoderKL or AutoencoderTiny.
        latent: On its device and in its dtype.
        axes: Those along which pictures wrap around: "x", "y", "xy", or none.
    """
    layers = _Layers(axes)
    if isinstance(getattr(model.decoder, "layers", None), nn.Sequential):
        clamped = torch.tanh(latent / 3) * 3
        return _run(clamped, layers.sequence(model.decoder.layers)).mul_(2).sub_(1)
    if model.post_quant_conv is not None:
        latent = model.post_quant_conv(latent)
    return _run(latent, layers.decoder(model.decoder))


def encode(model: Any, pixels: torch.Tensor, axes: str) -> torch.Tensor:
    """The moments of the posterior of [1, 3, height, width], -1..1; AutoencoderTiny's mean alone.

    The arguments are those of `decode`.
    """
    layers = _Layers(axes)
    if isinstance(getattr(model.encoder, "layers", None), nn.Sequential):
        return _run((pixels + 1) / 2, layers.sequence(model.encoder.layers))
    moments = _run(pixels, layers.encoder(model.encoder))
    return moments if model.quant_conv is None else model.quant_conv(moments)


def knows(model: Any) -> bool:
    """Whether all layers of an autoencoder are of the kinds that are understood here."""
    if isinstance(getattr(model.decoder, "layers", None), nn.Sequential):
        enlarging = [each for each in model.decoder.layers if isinstance(each, nn.Upsample)]
        return all((each.mode, each.scale_factor) == ("nearest", 2.0) for each in enlarging)
    blocks = [*getattr(model.encoder, "down_blocks", ()), *model.decoder.up_blocks]
    return all(type(block).__name__.removeprefix("Attn") in BLOCKS for block in blocks)


def _run(values: torch.Tensor, steps: Iterator[Step]) -> torch.Tensor:
    """A flat loop, so that no frame further up holds a map that is not needed any more."""
    x: Map = Stored(values)
    for step in steps:
        x = step(x)
    return stored(x).tensor


class _Layers:
    """The layers of an autoencoder as steps from map to map."""

    def __init__(self, axes: str) -> None:
        self._axes = axes

    def decoder(self, network: Any) -> Iterator[Step]:
        yield partial(self._convolved, layer=network.conv_in)
        yield from self._middle(network.mid_block)
        last = ([None] + [block for block in network.up_blocks if block.upsamplers])[-1]
        for block in network.up_blocks:
            yield from self._block(block)
            for layer in block.upsamplers or ():
                yield Doubled
                yield partial(self._convolved, layer=layer.conv)
                if block is not last:  # which is the largest map of all, and made once more instead
                    yield stored
        yield partial(self._leaving, network=network)

    def encoder(self, network: Any) -> Iterator[Step]:
        yield partial(self._convolved, layer=network.conv_in)
        for block in network.down_blocks:
            yield from self._block(block)
            for layer in block.downsamplers or ():
                yield partial(self._halved, layer=layer)
                yield stored
        yield from self._middle(network.mid_block)
        yield partial(self._leaving, network=network)

    def sequence(self, layers: Any) -> Iterator[Step]:
        """Those of an AutoencoderTiny."""
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                yield partial(self._convolved, layer=layer)
                yield stored
            elif isinstance(layer, nn.Upsample):
                yield Doubled
            elif hasattr(layer, "fuse"):
                yield partial(self._tiny, block=layer)
            else:
                yield partial(Applied, function=layer)

    def _middle(self, block: Any) -> Iterator[Step]:
        first, *rest = block.resnets
        yield partial(self._resnet, block=first)
        for attention, resnet in zip(block.attentions, rest, strict=True):
            if attention is not None:
                yield partial(_attention, layer=attention)
            yield partial(self._resnet, block=resnet)

    def _block(self, block: Any) -> Iterator[Step]:
        attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
        for resnet, attention in zip(block.resnets, attentions, strict=True):
            yield partial(self._resnet, block=resnet)
            if attention is not None:
                yield partial(_attention, layer=attention)

    def _convolved(self, x: Map, layer: Any) -> Map:
        return Convolved(x, layer, self._axes)

    def _halved(self, x: Map, layer: Any) -> Map:
        """A Downsample2D, which pads at the end alone where its convolution does not."""
        return Convolved(x, layer.conv, self._axes, after=layer.padding or 1)

    def _resnet(self, x: Map, block: Any) -> Map:
        entering = Normed(x, block.norm1, block.nonlinearity)
        hidden = stored(self._convolved(entering, block.conv1))
        leaving = Normed(hidden, block.norm2, block.nonlinearity)
        skip = x if block.conv_shortcut is None else self._convolved(x, block.conv_shortcut)
        return stored(Sum(skip, self._convolved(leaving, block.conv2)), over=hidden)

    def _tiny(self, x: Map, block: Any) -> Map:
        made = x
        for layer in block.conv:
            made = (
                self._convolved(made, layer) if hasattr(layer, "stride") else Applied(made, layer)
            )
        is_same = isinstance(block.skip, nn.Identity)
        total = Sum(made, x if is_same else self._convolved(x, block.skip))
        return stored(Applied(total, block.fuse), over=x if is_same else None)

    def _leaving(self, x: Map, network: Any) -> Map:
        normed = Normed(x, network.conv_norm_out, network.conv_act)
        return self._convolved(normed, network.conv_out)


def _attention(x: Map, layer: Any) -> Map:
    """An Attention over all cells, some of the queries at a time."""
    whole = stored(x).tensor
    tokens = layer.group_norm(whole.flatten(2)).transpose(1, 2)
    key, value = (_heads(each(tokens), layer.heads) for each in (layer.to_k, layer.to_v))
    made = [
        functional.scaled_dot_product_attention(_heads(layer.to_q(part), layer.heads), key, value)
        for part in tokens.split(max(1, SCORES // tokens.shape[1]), dim=1)
    ]
    out = layer.to_out[0](torch.cat(made, dim=2).transpose(1, 2).flatten(2))
    return Stored(whole + out.transpose(1, 2).reshape(whole.shape))


def _heads(tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """[1, tokens, width] as [1, heads, tokens, width of a head]."""
    return tokens.view(*tokens.shape[:2], heads, -1).transpose(1, 2)
