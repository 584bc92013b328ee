"""The values of an infotext's fields: read, and put into the words of `meta`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from imagine_core.kinds import SEEDS

__all__ = [
    "MODES",
]

FILLS = {"original": "original", "average": "fill", "noise": "latent noise"} | {
    "blank": "latent nothing"
}
"""What A1111 calls what the masked part starts from."""

MODES = {
    "balanced": "Balanced",
    "prompt": "My prompt is more important",
    "control": "ControlNet is more important",
}
"""What A1111's extension calls the modes of a ControlNet."""

TILINGS = {"xy": "True", "x": "x", "y": "y"}
"""What an infotext says of the axes along which a picture is seamless."""

_PLAIN_SCHEDULES = ("automatic", "default", "discrete", "uniform")
_COMPOUND = re.compile(
    r"(.+?)[ _](karras|exponential|beta|simple|normal|sgm[ _]uniform|kl[ _]optimal|"
    r"automatic|discrete)",
    re.DOTALL,
)
_MODEL_FILES = ("safetensors", "sft", "ckpt", "pt", "pth", "bin", "gguf")


def _whole(value: str) -> int | None:
    return int(value) if re.fullmatch("[0-9]{1,9}", value) else None


def _decimal(value: str) -> float | None:
    if len(value) > 40 or not re.fullmatch(
        r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", value
    ):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _factor(value: str) -> float | None:
    factor = _decimal(value)  # others have the upscaler's name under this label
    return factor if factor is not None and factor >= 1 else None


def _seed(value: str) -> str | None:
    if not re.fullmatch("[0-9]{1,20}", value) or int(value) >= SEEDS:
        return None
    return str(int(value))


def _size(value: str) -> tuple[int, int] | None:
    size = re.fullmatch("([0-9]{1,6}) ?x ?([0-9]{1,6})", value)
    return (int(size[1]), int(size[2])) if size else None


def _name(value: str) -> str | None:
    return value.lower() or None


def _sampler(value: str) -> str | None:
    return None if value.lower() == "use same sampler" else _name(value)


def _model(value: str) -> str | None:
    """Its name here: of a file, which other tools name with its folder, the stem."""
    stem, dot, ending = value.rpartition(".")
    if stem and dot and ending.lower() in _MODEL_FILES:
        value = re.split(r"[/\\]", stem)[-1]
    return value or None


def _schedule(value: str) -> str | None:
    name = value.lower().replace(" ", "_")
    return None if name in ("", *_PLAIN_SCHEDULES) else name


def _upscaler(value: str) -> str | None:
    """A1111's latent ones are none of ours: the usual one takes their place."""
    name = value.lower()
    return None if not name or name == "none" or name.startswith("latent") else name


def _fill(value: str) -> str | None:
    return {label: name for name, label in FILLS.items()}.get(value.lower())


def _borders(value: str) -> list[int] | None:
    sides = re.fullmatch(r"([0-9]{1,5}), ?([0-9]{1,5}), ?([0-9]{1,5}), ?([0-9]{1,5})", value)
    return [int(side) for side in sides.groups()] if sides else None


def _axes(value: str) -> str | bool | None:
    axes: dict[str, str | bool] = {"true": True, "x": "x", "y": "y"}
    return axes.get(value.lower())


# By field; None where the value makes no sense, or says nothing.
READERS: dict[str, Callable[[str], Any]] = {
    "steps": _whole,
    "sampler": _name,
    "schedule": _schedule,
    "guidance": _decimal,
    "distilled_guidance": _decimal,
    "seed": _seed,
    "size": _size,
    "model": _model,
    "vae": _model,
    "model_hash": lambda value: value or None,
    "strength": _decimal,
    "clip": _whole,
    "hires": _factor,
    "hires_size": _size,
    "keep_size": lambda value: value.lower() == "true" or None,
    "hires_strength": _decimal,
    "hires_upscaler": _upscaler,
    "hires_steps": lambda value: _whole(value) or None,
    "hires_sampler": _sampler,
    "subseed": _seed,
    "subseed_strength": _decimal,
    "mask_blur": _decimal,
    "mask_fill": _fill,
    "mask_invert": lambda value: value.lower() == "inpaint not masked" or None,
    "mask_padding": _whole,
    "extend": _borders,
    "tiling": _axes,
}


def in_our_words(values: dict[str, Any]) -> dict[str, Any]:
    """The values under the keys of `meta`: a sampler may name its schedule, a size is two keys."""
    meta = dict(values)
    if compound := _COMPOUND.fullmatch(values.get("sampler", "")):
        meta["sampler"] = compound[1]
        if schedule := _schedule(compound[2]):
            meta.setdefault("schedule", schedule)
    width, height = values.get("size", (0, 0))
    if width and height:
        meta |= {"width": width, "height": height}
        large = values.get("hires_size", (0, 0))
        wide, high = (a / b for a, b in zip(large, (width, height), strict=True))
        if wide > 1 and abs(wide - high) < 0.02:
            meta.setdefault("hires", wide)
    return meta
