"""Recognises networks that enlarge pictures by their tensors: which network, and how large.

Three layouts of RRDBNet (Wang et al. 2018, "ESRGAN") have the same tensors under other names: that
of the paper's first code, where a layer's name is its number; that of its second; and BasicSR's,
which Real-ESRGAN (Wang et al. 2021) has too. SRVGGNetCompact is Real-ESRGAN's small network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagine_core.models.folders import KINDS, place_of
from imagine_plugins.loaders.components import Component, Stored
from imagine_plugins.loaders.header import Header, Tensor
from imagine_plugins.loaders.layout import Slot
from imagine_plugins.loaders.problems import ProblemError

Tensors = Mapping[str, Tensor]

ESRGAN, COMPACT = "ESRGAN (RRDBNet)", "Real-ESRGAN compact (SRVGGNetCompact)"
COLOURS = 3
CONVOLUTIONS = 5  # of a dense block
DENSE = 3  # blocks of a residual block
MOST_FEATURES = 256
MOST_FACTOR = 16

WRAPPERS = (
    *("", "params_ema.", "params-ema.", "params.", "state_dict.", "model_state_dict."),
    *("model.", "net.", "generator.", "netG.", "module."),
)
"""What trainers put before the names of a network's tensors; the smoothed weights come first."""

FIRST = ("model.0.weight", "conv_first.weight", "body.0.weight")
"""Where a picture enters, in the layouts that are known."""

THRICE = re.compile(r"(?<![a-z0-9])(?:3x|x3)(?![a-z0-9])", re.IGNORECASE)
"""In the names of networks that enlarge by 3, whose tensors are those of 2x: "3x_Name"."""

OTHERS = (
    ("layers.0.residual_group.blocks.0.conv_block.cab.0.weight", "HAT"),
    ("layers.0.residual_group.blocks.0.attn.relative_position_bias_table", "SwinIR"),
    ("layers.0.residual_group.blocks.0.attn.cpb_mlp.0.weight", "Swin2SR"),
    ("layers.0.blocks.0.ffn.sg.conv.weight", "DAT"),
    ("layers.0.residual_group.layers.0.sigma", "ATD"),
    ("layers.0.swin1.attn.relative_position_bias_table", "DRCT"),
    ("block_1.c1_r.sk.weight", "SPAN"),
    ("feats.1.refine.weight", "PLKSR"),
    ("unet1.conv1_down.weight", "Real-CUGAN"),
    ("residual_layer.0.residual_layer.0.layer.0.fn.0.weight", "OmniSR"),
    ("m_head.0.weight", "SCUNet"),
    ("model.1.sub.0.RDB1.conv1x1.weight", "ESRGAN+"),
)
"""A tensor that each network has which is known, and not supported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscalerFile:
    """A network that enlarges pictures, as a header describes it.

    Attributes:
        architecture: What people call it.
        family: "esrgan" or "compact".
        factor: How many times larger each side becomes.
        features: Channels inside it.
        growth: Channels that each convolution of a dense block adds; 0 where there are none.
        blocks: How many blocks or convolutions are in a row.
        doublings: How often its features become larger at the end.
        step: How many times larger each time.
        unshuffle: Side of the squares of pixels that become channels at the beginning.
        component: Its tensors.
    """

    architecture: str
    family: str
    factor: int
    features: int
    growth: int = 0
    blocks: int
    doublings: int = 0
    step: int = 2
    unshuffle: int = 1
    component: Component

    @property
    def reach(self) -> int:
        """Pixels of the picture on each side that one pixel of the result depends on, at most."""
        if self.family == "compact":
            return self.blocks + 2
        return (self.blocks * DENSE * CONVOLUTIONS + 6) * self.unshuffle


def upscaler_in(path: Path, header: Header) -> UpscalerFile | None:
    """The network in a file; None for a file of anything else.

    Raises:
        ProblemError: It is one, and cannot serve.
    """
    for wrapper in WRAPPERS:
        if not any(f"{wrapper}{key}" in header.tensors for key in FIRST):
            continue
        names = [name for name in header.tensors if name.startswith(wrapper)]
        tensors = {name.removeprefix(wrapper): header.tensors[name] for name in names}
        found = _rrdb(path, tensors, wrapper) or _compact(path, tensors, wrapper)
        if found is not None:
            return found
    for key, title in OTHERS:
        if any(f"{wrapper}{key}" in header.tensors for wrapper in WRAPPERS):
            raise ProblemError(
                f"this is an upscaler of the kind {title}, which is not supported; ESRGAN, "
                "Real-ESRGAN and its compact networks are",
                family="upscaler",
            )
    return None


def upscaler_problem(header: Header) -> str | None:
    """Where an upscaler belongs, or why it cannot serve; None for a file that is none."""
    try:
        found = upscaler_in(Path(), header)
    except ProblemError as error:
        return str(error)
    return None if found is None else f"{KINDS['upscaler']}; it belongs {place_of('upscaler')}"


# ------------------------------------------------------------------------------------- RRDBNet


def _numbered(tensors: Tensors) -> dict[str, str] | None:
    """Prefixes of the layers in the layout whose names are numbers, by ours."""
    found = (re.fullmatch(r"model\.(\d{1,3})\.weight", name, re.ASCII) for name in tensors)
    numbers = sorted(int(match[1]) for match in found if match)
    trunk = _highest(tensors, r"model\.1\.sub\.(\d{1,3})\.weight")
    if trunk is None or len(numbers) < 3 or numbers[0] != 0:
        return None
    ups = {f"ups.{place}": f"model.{number}." for place, number in enumerate(numbers[1:-2])}
    return {
        "first": "model.0.",
        "block": "model.1.sub.{block}.RDB{dense}.conv{layer}.0.",
        "trunk": f"model.1.sub.{trunk}.",
        **ups,
        "smooth": f"model.{numbers[-2]}.",
        "last": f"model.{numbers[-1]}.",
    }


def _named(tensors: Tensors) -> dict[str, str] | None:
    """Prefixes of the layers in the two layouts that name them, by ours."""
    for block, trunk, up, smooth in (
        ("body.{block}.rdb{dense}.conv{layer}.", "conv_body.", "conv_up", "conv_hr."),
        ("RRDB_trunk.{block}.RDB{dense}.conv{layer}.", "trunk_conv.", "upconv", "HRconv."),
    ):
        if f"{trunk}weight" in tensors:
            count = _highest(tensors, rf"{up}(\d)\.weight") or 0
            ups = {f"ups.{number}": f"{up}{number + 1}." for number in range(count)}
            ends = {"smooth": smooth, "last": "conv_last."}
            return {"first": "conv_first.", "block": block, "trunk": trunk, **ups, **ends}
    return None


def _rrdb(path: Path, tensors: Tensors, wrapper: str) -> UpscalerFile | None:
    layers = _numbered(tensors) or _named(tensors)
    if layers is None:
        return None
    block = layers.pop("block")
    probe = block.format(block=0, dense=1, layer=1)
    first, growing = _shape(tensors, layers["first"]), _shape(tensors, probe)
    last = _shape(tensors, layers["last"])
    if len(first) != 4 or len(growing) != 4 or len(last) != 4:
        return None
    if any(".conv1x1." in name for name in tensors):
        return None  # ESRGAN+, which has more layers
    features, growth = first[0], growing[0]
    unshuffle = {1: 1, 4: 2, 16: 4}.get(first[1] // COLOURS, 0)
    doublings = sum(layer.startswith("ups.") for layer in layers)
    pattern = re.escape(block).replace(r"\{block\}", r"(\d{1,3})")
    pattern = pattern.replace(r"\{dense\}", "1").replace(r"\{layer\}", "1")
    blocks = (_highest(tensors, pattern + "weight") or 0) + 1
    _require(colours=(first[1] / max(1, unshuffle**2), last[0]), features=max(features, growth))
    step = 3 if doublings == unshuffle == 1 and THRICE.search(path.stem) else 2
    slots = list(_rrdb_slots(layers, block, (features, growth, blocks), first[1]))
    return UpscalerFile(
        architecture=ESRGAN,
        family="esrgan",
        factor=_factor(step**doublings, unshuffle),
        features=features,
        growth=growth,
        blocks=blocks,
        doublings=doublings,
        step=step,
        unshuffle=unshuffle,
        component=_component(path, tensors, wrapper, slots),
    )


def _rrdb_slots(
    layers: Mapping[str, str], block: str, sizes: tuple[int, int, int], channels: int
) -> Iterator[Slot]:
    features, growth, blocks = sizes
    sides = {"first": (features, channels), "last": (COLOURS, features)}
    for name, prefix in layers.items():
        yield from _convolution(prefix, f"{name}.", *sides.get(name, (features, features)))
    for number in range(blocks):
        for dense in range(DENSE):
            for layer in range(CONVOLUTIONS):
                prefix = block.format(block=number, dense=dense + 1, layer=layer + 1)
                target = f"blocks.{number}.{dense}.layers.{layer}."
                out = features if layer == CONVOLUTIONS - 1 else growth
                yield from _convolution(prefix, target, out, features + layer * growth)


# ----------------------------------------------------------------------------- SRVGGNetCompact


def _compact(path: Path, tensors: Tensors, wrapper: str) -> UpscalerFile | None:
    first, slope = tensors.get("body.0.weight"), tensors.get("body.1.weight")
    end = _highest(tensors, r"body\.(\d{1,3})\.weight")
    if first is None or slope is None or end is None or end % 2 or end < 2:
        return None
    last = tensors.get(f"body.{end}.weight")
    if last is None or [len(each.shape) for each in (first, slope, last)] != [4, 1, 4]:
        return None
    features = first.shape[0]
    factor = round((last.shape[0] / COLOURS) ** 0.5)
    _require(colours=(first.shape[1], last.shape[0] / max(1, factor**2)), features=features)
    slots: list[Slot] = []
    for number in range(0, end + 1, 2):
        out = last.shape[0] if number == end else features
        into = COLOURS if number == 0 else features
        slots += _convolution(f"body.{number}.", f"layers.{number}.", out, into)
        if number < end:
            key = f"body.{number + 1}.weight"
            slots.append(Slot(key, (features,), (f"layers.{number + 1}.weight",)))
    return UpscalerFile(
        architecture=COMPACT,
        family="compact",
        factor=_factor(factor, 1),
        features=features,
        blocks=end // 2 - 1,
        component=_component(path, tensors, wrapper, slots),
    )


# --------------------------------------------------------------------------------------- common


def _component(path: Path, tensors: Tensors, wrapper: str, slots: list[Slot]) -> Component:
    component = Component(
        title="upscaler",
        slots=slots,
        weights={name: Stored(path, tensor) for name, tensor in tensors.items()},
        prefix=wrapper,
    )
    if component.problem is not None:
        raise ProblemError(component.problem, family="upscaler")
    return component


def _convolution(prefix: str, target: str, out: int, into: int) -> Iterator[Slot]:
    yield Slot(f"{prefix}weight", (out, into, 3, 3), (f"{target}weight",))
    yield Slot(f"{prefix}bias", (out,), (f"{target}bias",))


def _shape(tensors: Tensors, prefix: str) -> tuple[int, ...]:
    stored = tensors.get(f"{prefix}weight")
    return () if stored is None else stored.shape


def _highest(tensors: Tensors, pattern: str) -> int | None:
    """The highest number in the names that match."""
    found = (re.fullmatch(pattern, name, re.ASCII) for name in tensors)
    return max((int(match[1]) for match in found if match), default=None)


def _require(*, colours: tuple[float, float], features: int) -> None:
    into, out = colours
    if into != COLOURS or out != COLOURS:
        raise ProblemError(
            f"this is an upscaler for pictures of {into:g} channels, which makes such of {out:g}; "
            "only RGB is supported",
            family="upscaler",
        )
    if not 0 < features <= MOST_FEATURES:
        raise ProblemError(
            f"this upscaler has {features} features, and at most {MOST_FEATURES} are supported",
            family="upscaler",
        )


def _factor(enlarged: int, unshuffle: int) -> int:
    factor, rest = divmod(enlarged, unshuffle)
    if rest or not 1 <= factor <= MOST_FACTOR:
        raise ProblemError(
            f"this upscaler makes pictures {enlarged / unshuffle:g} times as large; whole numbers "
            f"up to {MOST_FACTOR} are supported",
            family="upscaler",
        )
    return factor
