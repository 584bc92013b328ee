"""Infotext: generation parameters as A1111's web UI writes and reads them, and so do many others.

prompt
Negative prompt: what to keep away from
Steps: 25, Sampler: DPM++ 2M, CFG scale: 7.0, Seed: 42, Size: 512x512, ...
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagine_core.types import GenerationRequest

NEGATIVE = "Negative prompt: "


def write_infotext(
    request: GenerationRequest,
    *,
    seed: int,
    sampler_label: str,
    model_hash: str | None,
    version: str,
) -> str:
    """The infotext of a picture.

    Args:
        request: The request as it ran.
        seed: The picture's own seed.
        sampler_label: The sampler in A1111's spelling.
        model_hash: First 10 hex digits of the checkpoint's sha256, where known.
        version: What made the picture.
    """
    details = {
        "Steps": request.steps,
        "Sampler": sampler_label,
        "Schedule type": _schedule_label(request.noise_schedule),
        "CFG scale": float(request.guidance_scale),
        "Seed": seed,
        "Size": f"{request.width}x{request.height}",
        "Model hash": model_hash,
        "Model": request.model,
        "Denoising strength": None if request.init_image is None else request.strength,
        "Clip skip": request.clip_skip if request.clip_skip > 1 else None,
        "Hires upscale": request.hires_scale,
        "Version": version,
    }
    lines = [request.prompt.strip()]
    if request.negative_prompt.strip():
        lines.append(NEGATIVE + request.negative_prompt.strip())
    given = ((key, value) for key, value in details.items() if value is not None)
    lines.append(", ".join(f"{key}: {_quoted(str(value))}" for key, value in given))
    return "\n".join(lines)


def read_infotext(text: str) -> dict[str, Any] | None:
    """The `meta` object that an infotext amounts to, or None if `text` is none.

    What is missing or makes no sense is left out.
    """
    *lines, last = text.strip().split("\n")
    if not last.startswith("Steps: "):
        return None
    prompt, _, negative = "\n".join(["", *lines]).partition("\n" + NEGATIVE.rstrip())
    meta: dict[str, Any] = {"prompt": prompt.strip(), "neg": negative.strip()}
    for key, value in _details(last):
        if key in _READERS:
            meta |= _READERS[key](value)
    return {key: meta[key] for key in _ORDER if key in meta}


def _schedule_label(schedule: str) -> str | None:
    if schedule == "default":
        return None
    return schedule.replace("_", " ").title().replace("Sgm", "SGM").replace("Kl", "KL")


def _quoted(value: str) -> str:
    """As JSON if the value holds what separates fields."""
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value


def _details(line: str) -> Iterator[tuple[str, str]]:
    """The fields of `key: value, key: "quoted, value", ...`."""
    position = 0
    while (colon := line.find(":", position)) >= 0:
        key = line[position:colon].strip(" ,")
        position = colon + 1
        while line[position : position + 1] == " ":
            position += 1
        value, position = _value(line, position)
        yield key, value


def _value(line: str, start: int) -> tuple[str, int]:
    if line.startswith('"', start):
        try:
            value, end = json.JSONDecoder().raw_decode(line, start)
        except ValueError:
            pass  # a quotation mark that quotes nothing
        else:
            return str(value), end
    comma = line.find(",", start)
    end = len(line) if comma < 0 else comma
    return line[start:end].strip(), end


def _whole(key: str) -> Callable[[str], dict[str, Any]]:
    return lambda value: {key: int(value)} if re.fullmatch(r"\d{1,9}", value) else {}


def _decimal(key: str) -> Callable[[str], dict[str, Any]]:
    def read(value: str) -> dict[str, Any]:
        try:
            number = float(value)
        except ValueError:
            return {}
        return {key: number} if math.isfinite(number) else {}

    return read


def _size(value: str) -> dict[str, Any]:
    size = re.fullmatch(r"(\d{1,6})x(\d{1,6})", value)
    return {"width": int(size[1]), "height": int(size[2])} if size else {}


def _schedule(value: str) -> dict[str, Any]:
    name = value.lower().replace(" ", "_")
    return {} if name == "automatic" else {"schedule": name}


_READERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "Steps": _whole("steps"),
    "Sampler": lambda value: {"sampler": value.lower()},
    "Schedule type": _schedule,
    "CFG scale": _decimal("guidance"),
    "Seed": lambda value: {"seed": value} if re.fullmatch(r"\d{1,20}", value) else {},
    "Size": _size,
    "Model": lambda value: {"model": value},
    "Model hash": lambda value: {"model_hash": value},
    "Denoising strength": _decimal("strength"),
    "Clip skip": _whole("clip"),
    "Hires upscale": _decimal("hires"),
}

_ORDER = (
    *("model", "prompt", "width", "height", "steps", "guidance", "sampler", "seed", "neg", "clip"),
    *("strength", "schedule", "hires", "model_hash"),
)
