"""The values of an infotext's fields: read, and put into the words of `meta`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from imagine_core.kinds import SEEDS

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
    return factor if factor is not None and factor > 1 else None


def _seed(value: str) -> str | None:
    if not re.fullmatch("[0-9]{1,20}", value) or int(value) >= SEEDS:
        return None
    return str(int(value))


def _size(value: str) -> tuple[int, int] | None:
    size = re.fullmatch("([0-9]{1,6}) ?x ?([0-9]{1,6})", value)
    return (int(size[1]), int(size[2])) if size else None


def _name(value: str) -> str | None:
    return value.lower() or None


def _model(value: str) -> str | None:
    """Its name here: of a file, which other tools name with its folder, the stem."""
    stem, dot, ending = value.rpartition(".")
    if dot and ending.lower() in _MODEL_FILES:
        value = re.split(r"[/\\]", stem)[-1]
    return value or None


def _schedule(value: str) -> str | None:
    name = value.lower().replace(" ", "_")
    return None if name in ("", *_PLAIN_SCHEDULES) else name


# By field; None where the value makes no sense, or says nothing.
READERS: dict[str, Callable[[str], Any]] = {
    "steps": _whole,
    "sampler": _name,
    "schedule": _schedule,
    "guidance": _decimal,
    "seed": _seed,
    "size": _size,
    "model": _model,
    "vae": _model,
    "model_hash": lambda value: value or None,
    "strength": _decimal,
    "clip": _whole,
    "hires": _factor,
    "hires_size": _size,
    "hires_strength": _decimal,
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
