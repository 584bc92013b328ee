"""The networks that enlarge pictures: RRDBNet and SRVGGNetCompact."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from imagine_plugins.loaders.upscaler_layouts import COLOURS, CONVOLUTIONS, DENSE, UpscalerFile

RESIDUAL = 0.2
"""How much of a block is added to what went into it (Wang et al. 2018, section 3.1)."""

SLOPE = 0.2
"""Of the leaky ReLUs for negative numbers."""


def network(plan: UpscalerFile) -> nn.Module:
    """The network of a file, without its weights."""
    return Compact(plan) if plan.family == "compact" else RRDBNet(plan)


def _convolution(into: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, padding=1)


def _leaky(values: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(values, SLOPE, inplace=True)


class DenseBlock(nn.Module):
    """Convolutions that each read what all before them gave."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        outs = [growth] * (CONVOLUTIONS - 1) + [features]
        self.layers = nn.ModuleList(
            _convolution(features + number * growth, out) for number, out in enumerate(outs)
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """[1, features, height, width] to the same."""
        *growing, last = self.layers
        known = values
        for layer in growing:
            known = torch.cat([known, _leaky(layer(known))], 1)
        return torch.add(values, last(known), alpha=RESIDUAL)


class RRDBNet(nn.Module):
    """ESRGAN's generator (Wang et al. 2018, section 3.1), and Real-ESRGAN's.

    Blocks of dense blocks at the picture's size, then the features are doubled (or tripled) by
    repetition, and smoothed, as often as needed. Networks of smaller factors turn squares of
    pixels into channels first (Wang et al. 2021, section 3.3).
    """

    def __init__(self, plan: UpscalerFile) -> None:
        super().__init__()
        features = plan.features
        self.unshuffle = plan.unshuffle
        self.step = plan.step
        self.first = _convolution(COLOURS * plan.unshuffle**2, features)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(DenseBlock(features, plan.growth) for _ in range(DENSE)))
            for _ in range(plan.blocks)
        )
        self.trunk = _convolution(features, features)
        self.ups = nn.ModuleList(_convolution(features, features) for _ in range(plan.doublings))
        self.smooth = _convolution(features, features)
        self.last = _convolution(features, COLOURS)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[1, 3, height, width], 0 .. 1, sides multiples of `unshuffle`, to the larger one."""
        first = self.first(functional.pixel_unshuffle(pixels, self.unshuffle))
        values = first
        for block in self.blocks:
            values = torch.add(values, block(values), alpha=RESIDUAL)
        values = self.trunk(values).add_(first)
        for up in self.ups:
            larger = functional.interpolate(values, scale_factor=self.step, mode="nearest")
            values = _leaky(up(larger))
        result: torch.Tensor = self.last(_leaky(self.smooth(values)))
        return result


class Compact(nn.Module):
    """SRVGGNetCompact: convolutions in a row, which give what a picture of larger pixels lacks."""

    def __init__(self, plan: UpscalerFile) -> None:
        super().__init__()
        self.factor = plan.factor
        layers: list[nn.Module] = []
        into = COLOURS
        for _ in range(plan.blocks + 1):
            layers += [_convolution(into, plan.features), nn.PReLU(plan.features)]
            into = plan.features
        self.layers = nn.Sequential(*layers, _convolution(into, COLOURS * plan.factor**2))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[1, 3, height, width], 0 .. 1, to the larger one."""
        detail: torch.Tensor = functional.pixel_shuffle(self.layers(pixels), self.factor)
        return detail + functional.interpolate(pixels, scale_factor=self.factor, mode="nearest")
