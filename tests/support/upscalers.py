"""Writes networks that enlarge pictures, in the layouts of their trainers, and computes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

Tensors = dict[str, torch.Tensor]

NAMED = {
    "second": ("RRDB_trunk.{}.RDB{}.conv{}", "trunk_conv", "upconv{}", "HRconv"),
    "basicsr": ("body.{}.rdb{}.conv{}", "conv_body", "conv_up{}", "conv_hr"),
}
"""Names of a block's layer, the trunk, a doubling and the smoothing, by layout."""


def names(layout: str, *, blocks: int, doublings: int) -> dict[str, str]:
    """What a layout calls the layers: "first", "0.1.2" (block, dense, layer), "up0", ..."""
    if layout == "first":
        block, trunk, up = "model.1.sub.{}.RDB{}.conv{}.0", f"model.1.sub.{blocks}", "model.{}"
        ups = [up.format(3 + 3 * number) for number in range(doublings)]
        ends = ["model.0", f"model.{2 + 3 * doublings}", f"model.{4 + 3 * doublings}"]
    else:
        block, trunk, up, smooth = NAMED[layout]
        ups = [up.format(number + 1) for number in range(doublings)]
        ends = ["conv_first", smooth, "conv_last"]
    found = {"first": ends[0], "trunk": trunk, "smooth": ends[1], "last": ends[2]}
    found |= {f"up{number}": up for number, up in enumerate(ups)}
    cells = [(b, d, i) for b in range(blocks) for d in range(3) for i in range(5)]
    return found | {f"{b}.{d}.{i}": block.format(b, d + 1, i + 1) for b, d, i in cells}


def rrdb(  # noqa: PLR0913 - the sizes of a network
    layout: str = "basicsr",
    *,
    features: int = 8,
    growth: int = 4,
    blocks: int = 2,
    doublings: int = 2,
    channels: int = 3,
    colours: int = 3,
    seed: int = 0,
) -> Tensors:
    """The tensors of an RRDBNet of random weights, under a layout's names."""
    generator = torch.Generator().manual_seed(seed)
    found: Tensors = {}
    for layer, name in names(layout, blocks=blocks, doublings=doublings).items():
        into = channels if layer == "first" else features
        out = colours if layer == "last" else features
        if layer[0].isdigit():
            number = int(layer[-1])
            into, out = features + number * growth, features if number == 4 else growth
        scale = (2 / (9 * into)) ** 0.5
        found[f"{name}.weight"] = torch.randn(out, into, 3, 3, generator=generator) * scale
        found[f"{name}.bias"] = torch.rand(out, generator=generator) * 0.1
    return found


def compact(*, features: int = 8, blocks: int = 3, factor: int = 4, seed: int = 0) -> Tensors:
    """The tensors of an SRVGGNetCompact of random weights."""
    generator = torch.Generator().manual_seed(seed)
    found: Tensors = {}
    for number in range(blocks + 2):
        into = 3 if number == 0 else features
        out = 3 * factor**2 if number == blocks + 1 else features
        scale = 0.5 * (2 / (9 * into)) ** 0.5
        found[f"body.{2 * number}.weight"] = (
            torch.randn(out, into, 3, 3, generator=generator) * scale
        )
        found[f"body.{2 * number}.bias"] = torch.zeros(out)
        if number <= blocks:
            found[f"body.{2 * number + 1}.weight"] = torch.rand(features, generator=generator)
    return found


def repeating(layout: str = "basicsr", *, doublings: int = 2, features: int = 4) -> Tensors:
    """An RRDBNet that repeats each pixel, exactly: its kernels pass the colours on."""
    found = {
        name: torch.zeros_like(value)
        for name, value in rrdb(layout, doublings=doublings, features=features, blocks=1).items()
    }
    for layer, name in names(layout, blocks=1, doublings=doublings).items():
        if not layer[0].isdigit() and layer != "trunk":
            weight = found[f"{name}.weight"]
            for colour in range(3):
                weight[colour, colour, 1, 1] = 1.0
    return found


def reference(tensors: Mapping[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """What the papers say of an RRDBNet in BasicSR's layout, or of a compact one; float64."""

    def layer(name: str, values: torch.Tensor) -> torch.Tensor:
        weight, bias = tensors[f"{name}.weight"].double(), tensors[f"{name}.bias"].double()
        return functional.conv2d(values, weight, bias, padding=1)

    values = pixels.double()
    if "conv_first.weight" not in tensors:
        return _compact(tensors, layer, values)
    side = round((tensors["conv_first.weight"].shape[1] / 3) ** 0.5)
    first = layer("conv_first", _squares(values, side))
    values = first
    for block in range(_count(tensors, "body.{}.rdb1.conv1.weight")):
        whole = values
        for dense in (1, 2, 3):
            known = [values]
            for number in (1, 2, 3, 4):
                given = layer(f"body.{block}.rdb{dense}.conv{number}", torch.cat(known, 1))
                known.append(torch.where(given > 0, given, 0.2 * given))
            last = layer(f"body.{block}.rdb{dense}.conv5", torch.cat(known, 1))
            values = values + 0.2 * last
        values = whole + 0.2 * values
    values = first + layer("conv_body", values)
    for number in range(_count(tensors, "conv_up{}.weight", start=1)):
        larger = values.repeat_interleave(2, 2).repeat_interleave(2, 3)
        given = layer(f"conv_up{number + 1}", larger)
        values = torch.where(given > 0, given, 0.2 * given)
    given = layer("conv_hr", values)
    result: torch.Tensor = layer("conv_last", torch.where(given > 0, given, 0.2 * given))
    return result


def _compact(tensors: Mapping[str, torch.Tensor], layer: Any, pixels: torch.Tensor) -> torch.Tensor:
    last = max(int(name.split(".")[1]) for name in tensors)
    values = pixels
    for number in range(0, last, 2):
        given = layer(f"body.{number}", values)
        slope = tensors[f"body.{number + 1}.weight"].double()[None, :, None, None]
        values = torch.where(given > 0, given, slope * given)
    squares = layer(f"body.{last}", values)
    _, count, height, width = squares.shape
    factor = round((count / 3) ** 0.5)
    detail = squares.view(1, 3, factor, factor, height, width).permute(0, 1, 4, 2, 5, 3)
    larger = pixels.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    result: torch.Tensor = larger + detail.reshape(larger.shape)
    return result


def _squares(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """Squares of pixels as channels."""
    parts = [
        pixels[:, c, y::side, x::side] for c in range(3) for y in range(side) for x in range(side)
    ]
    return torch.stack(parts, 1)


def _count(tensors: Mapping[str, Any], pattern: str, *, start: int = 0) -> int:
    return sum(pattern.format(number) in tensors for number in range(start, start + 100))


def save(path: Path, tensors: Any, **options: Any) -> Path:
    """A file of `torch.save`, or a safetensors one, as the ending says."""
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(tensors, path)
    else:
        torch.save(tensors, path, **options)
    return path


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of random pixels."""
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def to_tensor(image: Image.Image) -> torch.Tensor:
    """[1, 3, height, width], 0 .. 1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].double() / 255


def to_pixels(values: torch.Tensor) -> np.ndarray[Any, Any]:
    """[height, width, 3], bytes."""
    scaled = values[0].clamp(0, 1).mul(255).round().to(torch.uint8)
    return scaled.permute(1, 2, 0).numpy()


def run(steps: Iterator[float]) -> tuple[Image.Image, list[float]]:
    """What a generator returns, and all that it yielded."""
    given = []
    while True:
        try:
            given.append(next(steps))
        except StopIteration as ended:
            return ended.value, given
