"""Recognises T2I-Adapters by their headers: their layouts, sizes and tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from imagine_plugins.loaders.architectures import Config
from imagine_plugins.loaders.components import Stored
from imagine_plugins.loaders.layout import Slot
from imagine_plugins.loaders.problems import ProblemError

ROOT = "adapter."
FULL, XL, LIGHT = "full_adapter", "full_adapter_xl", "light_adapter"
FACTORS = {1 * 8**2: FULL, 3 * 8**2: FULL, 1 * 16**2: XL, 3 * 16**2: XL}
"""By the channels of the first layer: colours, or grey, of squares of 8 or 16 pixels a side."""

RESNETS = 2  # in each block of those that their authors published
NUMBERED = re.compile(r"body\.(\d{1,2})\.(in_conv|block1|block2)\.(weight|bias)", re.ASCII)
INNER = re.compile(r"body\.(\d{1,2})\.body\.(\d{1,2})\.(.+)", re.ASCII)
CONVOLUTIONS = (".down_opt.op.", ".skep.")  # between blocks, in variants that nothing here computes


def adapter_names(names: Iterable[str]) -> dict[str, str]:
    """The tensors of a T2I-Adapter by diffusers' names, each with its own; {} for another file."""
    there = set(names)
    for root in ("", ROOT):
        if f"{root}body.0.resnets.0.block1.weight" in there:
            return {ROOT + name.removeprefix(root): name for name in there if name.startswith(root)}
        full = {f"{root}conv_in.weight", f"{root}body.0.block1.weight"}
        light = {f"{root}body.0.in_conv.weight", f"{root}body.0.out_conv.weight"}
        if full <= there or light <= there:
            inner = ((name.removeprefix(root), name) for name in there if name.startswith(root))
            return {ROOT + _usual(bare, is_light=light <= there): name for bare, name in inner}
    return {}


def _usual(name: str, *, is_light: bool) -> str:
    """What diffusers calls a tensor, but for `ROOT`: its blocks have several of the authors'."""
    if is_light:
        return INNER.sub(r"body.\1.resnets.\2.\3", name)
    if match := NUMBERED.fullmatch(name):
        block, resnet = divmod(int(match[1]), RESNETS)
        inner = "" if match[2] == "in_conv" else f"resnets.{resnet}."
        return f"body.{block}.{inner}{match[2]}.{match[3]}"
    return name


def adapter_config(weights: Mapping[str, Stored]) -> Config:
    """The configuration of a T2I-Adapter of the usual sizes, by its tensors."""
    blocks = sorted(_numbers(weights, r"adapter\.body\.(\d{1,2})\..+"))
    resnets = _numbers(weights, r"adapter\.body\.0\.resnets\.(\d{1,2})\..+")
    is_light = "adapter.body.0.out_conv.weight" in weights
    part = "out_conv" if is_light else "resnets.0.block1"
    channels = [_shape(weights, f"adapter.body.{block}.{part}.weight")[0] for block in blocks]
    first = "adapter.body.0.in_conv.weight" if is_light else "adapter.conv_in.weight"
    entering = _shape(weights, first)[1]
    kind = FACTORS.get(entering)
    odd = any(part in name for name in weights for part in CONVOLUTIONS)
    if kind is None or odd or not channels:
        problem = "this T2I-Adapter has unknown layers; take its diffusers folder"
        raise ProblemError(problem, family="controlnet")
    factor = 16 if kind == XL else 8
    return {
        "in_channels": entering // factor**2,
        "channels": channels[:-1] if is_light else channels,
        "num_res_blocks": len(resnets),
        "downscale_factor": factor,
        "adapter_type": LIGHT if is_light else kind,
    }


def adapter_slots(config: Config) -> Iterator[Slot]:
    """The tensors of a T2IAdapter, by its own names."""
    channels, kind = list(config["channels"]), config["adapter_type"]
    entering = config["in_channels"] * config["downscale_factor"] ** 2
    resnets = range(config["num_res_blocks"])
    if kind == LIGHT:
        for number, (read, out) in enumerate(_light(entering, channels)):
            block, inner = f"adapter.body.{number}", out // 4
            yield from _pair(f"{block}.in_conv", inner, read, 1)
            for resnet in resnets:
                for layer in ("block1", "block2"):
                    yield from _pair(f"{block}.resnets.{resnet}.{layer}", inner, inner, 3)
            yield from _pair(f"{block}.out_conv", out, inner, 1)
        return
    yield from _pair("adapter.conv_in", channels[0], entering, 3)
    for number, out in enumerate(channels):
        block = f"adapter.body.{number}"
        read = out if number == 0 or (kind == XL and number > 2) else channels[number - 1]
        if read != out:
            yield from _pair(f"{block}.in_conv", out, read, 1)
        for resnet in resnets:
            yield from _pair(f"{block}.resnets.{resnet}.block1", out, out, 3)
            yield from _pair(f"{block}.resnets.{resnet}.block2", out, out, 1)


def adapter_scales(config: Config) -> list[int]:
    """How many pixels wide a value of each feature is."""
    factor, count = int(config["downscale_factor"]), len(config["channels"])
    if config["adapter_type"] == XL:
        return [factor * (1 if number < 2 else 2) for number in range(count)]
    return [factor * 2**number for number in range(count + (config["adapter_type"] == LIGHT))]


def adapter_widths(config: Config) -> list[int]:
    """Channels of each feature."""
    channels = list(config["channels"])
    return [*channels, channels[-1]] if config["adapter_type"] == LIGHT else channels


def _light(entering: int, channels: list[int]) -> Iterator[tuple[int, int]]:
    """What each block reads and makes."""
    return zip((entering, *channels), (*channels, channels[-1]), strict=True)


def _numbers(names: Iterable[str], pattern: str) -> set[int]:
    found = (re.fullmatch(pattern, name, re.ASCII) for name in names)
    return {int(match[1]) for match in found if match}


def _shape(weights: Mapping[str, Stored], name: str) -> tuple[int, ...]:
    shape = weights[name].tensor.shape if name in weights else ()
    return shape if len(shape) > 1 else (0, 0)


def _pair(name: str, out: int, entering: int, side: int) -> Iterator[Slot]:
    yield Slot(f"{name}.weight", (out, entering, side, side), (f"{name}.weight",))
    yield Slot(f"{name}.bias", (out,), (f"{name}.bias",))
