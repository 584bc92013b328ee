"""Infotext: generation parameters as A1111's web UI writes and reads them, and so do many others.

docs/pictures.md has the grammar; ui/js/infotext.js reads the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from imagine_core.errors import RequestError
from imagine_core.fields import DEFAULTS, FIELDS
from imagine_core.lora_field import Loras
from imagine_core.lora_tags import can_be_tag, read_tags, tag_of
from imagine_core.pictures.infotext_values import FILLS, MODES, READERS, TILINGS, in_our_words
from imagine_core.schedules import schedule_label
from imagine_core.types import USUAL

if TYPE_CHECKING:
    from imagine_core.types import ResolvedRequest

__all__ = [
    "infotext_details",
    "read_infotext",
]

NEGATIVE = "Negative prompt:"

LABELS = MappingProxyType(
    {
        **{each.infotext: each.wire for each in FIELDS if each.infotext and each.wire != "neg"},
        "Size": "size",
        "Scheduler": "schedule",
        "Sampler sigma": "schedule",
        "Guidance scale": "guidance",
        "Model hash": "model_hash",
        "Hires scale": "hires",
        "Hires resize": "hires_size",
        "Hires strength": "hires_strength",
    }
)
"""What is read of an infotext: labels of A1111 and of tools that write like it, to fields."""

_FIELDS = {label.lower(): field for label, field in LABELS.items()}
_ORDER = (
    *("model", "prompt", "width", "height", "steps", "guidance", "sampler", "seed", "neg", "clip"),
    "distilled_guidance",
    *("strength", "schedule", "hires", "keep_size", "hires_upscaler", "hires_steps"),
    *("hires_strength", "hires_sampler", "subseed", "subseed_strength", "mask_blur", "mask_fill"),
    *("mask_invert", "mask_padding", "extend", "tiling", "loras", "vae", "model_hash"),
)


def write_infotext(  # noqa: PLR0913 - what a picture tells
    request: ResolvedRequest,
    *,
    seed: int,
    sampler_label: str,
    model_hash: str | None,
    version: str,
    hashes: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The infotext of a picture.

    Args:
        request: The request as it ran.
        seed: The picture's own seed.
        sampler_label: The sampler in A1111's spelling.
        model_hash: First 10 hex digits of the checkpoint's sha256, where known.
        version: What made the picture.
        hashes: Of what changed the model, as in `GenerationResult`.
    """
    schedule = request.noise_schedule
    details = {
        "Steps": request.steps,
        "Sampler": sampler_label,
        "Schedule type": None if schedule == "default" else schedule_label(schedule),
        "CFG scale": float(request.guidance_scale),
        "Distilled CFG Scale": request.distilled_guidance,
        "Seed": seed,
        "Size": f"{request.width}x{request.height}",
        "Model hash": model_hash,
        "Model": request.model,
        "Denoising strength": None if request.init_image is None else request.strength,
        "Clip skip": request.clip_skip if request.clip_skip > 1 else None,
        **_variation_details(request),
        **_mask_details(request),
        **_control_details(request),
        **_hires_details(request),
        "Tiling": TILINGS.get(request.tiling),
        "VAE hash": hashes.get("vae"),
        "VAE": request.vae,
        "Lora hashes": _listed(hashes, "lora:"),
        "TI hashes": _listed(hashes, "embed:"),
        "Version": version,
    }
    tags = map(tag_of, filter(can_be_tag, request.loras))
    lines = [" ".join([request.prompt.strip(), *tags]).strip()]
    if request.negative_prompt.strip():
        lines.append(f"{NEGATIVE} {request.negative_prompt.strip()}")
    given = ((key, value) for key, value in details.items() if value is not None)
    lines.append(", ".join(f"{key}: {_quoted(str(value))}" for key, value in given))
    return "\n".join(lines)


def _variation_details(request: ResolvedRequest) -> dict[str, object]:
    if not request.subseed_strength:
        return {}
    strength = request.subseed_strength
    return {"Variation seed": request.subseed, "Variation seed strength": strength}


def _mask_details(request: ResolvedRequest) -> dict[str, object]:
    """What A1111 writes of a mask; of what it takes for granted, nothing.

    It knows no borders: the label is ours.
    """
    extends = any(request.extend)
    if request.mask is None and not extends:
        return {}
    alone = request.mask_padding is not None
    return {
        "Mask blur": request.mask_blur,
        "Mask mode": "Inpaint not masked" if request.mask_invert else None,
        "Masked content": None if request.mask_fill == "original" else FILLS[request.mask_fill],
        "Inpaint area": "Only masked" if alone else None,
        "Masked area padding": request.mask_padding,
        "Extend": ",".join(map(str, request.extend)) if extends else None,
    }


def _control_details(request: ResolvedRequest) -> dict[str, object]:
    """A line for each ControlNet, as A1111's extension writes it."""
    return {
        f"ControlNet {place}": ", ".join(
            (
                f"Module: {use.preprocessor or 'none'}",
                f"Model: {use.name}",
                f"Weight: {use.weight:g}",
                f"Guidance Start: {use.start:g}",
                f"Guidance End: {use.end:g}",
                f"Control Mode: {MODES[use.mode]}",
            )
        )
        for place, use in enumerate(request.controls)
    }


def _hires_details(request: ResolvedRequest) -> dict[str, object]:
    """What A1111 needs to switch its hires fix on: a factor and a denoising strength.

    It always keeps the larger picture, so that label is ours.

    A1111 has no hires fix of img2img, where the strength is the first pass's: the second pass's
    stands under SD.Next's label then.
    """
    if request.hires_scale is None:
        return {}
    strength = "Denoising strength" if request.init_image is None else "Hires strength"
    lanczos = request.hires_upscaler == DEFAULTS["hires_upscaler"]
    return {
        strength: request.hires_strength,
        "Hires upscale": request.hires_scale,
        "Keep size": True if request.hires_keeps else None,
        "Hires steps": request.hires_steps,
        "Hires upscaler": "Lanczos" if lanczos else request.hires_upscaler,
        "Hires sampler": request.hires_sampler,
    }


def _listed(hashes: Mapping[str, str], kind: str) -> str | None:
    """The hashes of a kind, as A1111 lists them."""
    listed = [
        f"{name.removeprefix(kind)}: {digits}"
        for name, digits in hashes.items()
        if name.startswith(kind)
    ]
    return ", ".join(listed) or None


def _quoted(value: str) -> str:
    """As JSON if the value holds what separates fields."""
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value


# ------------------------------------------------------------------------------------- reading

_BLANKS = " \t\n"
_KEY = re.compile(r"([^:,\n]*):[ \t]*")
_PLAIN = re.compile(r"[^,\n]*")
# Possessive: the engine would keep each character of a long value to come back to.
_QUOTED = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"[ \t]*(?=[,\n]|\Z)', re.DOTALL)
_BRACKETS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[{}[\]]', re.DOTALL)
_END = re.compile(r"[ \t]*(?=[,\n]|\Z)")
_SIDES = re.compile(r"([0-9]+)x([0-9]+)")
_STEPS = re.compile(r"Steps: ?[0-9]+")
_INLINE = re.compile(r"(?:^|,?\s|[.,])(?=Steps: ?[0-9]+,)")
_INLINE_NEGATIVE = re.compile(r"(?:^|,?\s|[.,])Negative prompt:")


def read_infotext(text: str) -> dict[str, Any] | None:
    """The `meta` object that an infotext amounts to, or None if `text` is none.

    What is missing or makes no sense is left out.
    """
    prompts, settings = _parts(_normal(text))
    if settings is None:
        return None
    prompt, negative = prompts
    labels, values = _read(settings)
    meta = {"prompt": prompt, "neg": negative, **in_our_words(values)}
    meta |= _loras(prompt, steps=values.get("steps", USUAL["steps"]))
    if "hires_strength" not in values and any(label.startswith("hires") for label in labels):
        strength = meta.pop("strength", None)  # it is the second pass's
        meta |= {} if strength is None else {"hires_strength": strength}
    return {key: meta[key] for key in _ORDER if key in meta}


def _loras(prompt: str, *, steps: int) -> dict[str, Any]:
    """The LoRAs of a prompt, and the prompt without them; {} if it names none that is one."""
    try:
        tagged = read_tags(prompt)
    except RequestError:
        return {}
    if not tagged.loras:
        return {}
    uses = tuple(tag.use(steps) for tag in tagged.loras)
    return {"prompt": tagged.prompt.strip(_BLANKS), "loras": Loras().write(uses)}


def infotext_details(text: str) -> dict[str, str]:
    """The fields of an infotext under their own labels, as A1111 names them; {} of no infotext.

    The prompts stand under "Prompt" and "Negative prompt", a size as "Size-1" and "Size-2".
    """
    prompts, settings = _parts(_normal(text))
    if settings is None:
        return {}
    details = dict(zip(("Prompt", "Negative prompt"), prompts, strict=True))
    for label, value in _details(settings):
        sides = _SIDES.fullmatch(value)
        named = {f"{label}-{n}": sides[n] for n in (1, 2)} if sides else {label: value}
        for name, written in named.items():
            details.setdefault(name, written)
    return details


def _normal(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip(_BLANKS + "\0")


def _parts(text: str) -> tuple[tuple[str, str], str | None]:
    """Prompt and negative prompt, and the settings behind them, if there are any."""
    lines = text.split("\n")
    for index in reversed(range(len(lines))):
        last = index == len(lines) - 1
        if _is_settings(lines[index]) or (last and _STEPS.match(lines[index])):
            return _prompts(lines[:index]), "\n".join(lines[index:])
    marks = list(_INLINE.finditer(text))
    settings = text[marks[-1].end() :] if marks else ""
    if _is_settings(settings.partition("\n")[0]):
        return _prompts_of_one_line(text[: marks[-1].start()]), settings
    return ("", ""), None


def _is_settings(line: str) -> bool:
    """Whether a line is a list of fields, with the number of steps and two more known here.

    One that begins with no label, or has a negative prompt in it, has prompts in front.
    """
    if "steps" not in line.lower() or NEGATIVE in line or not _KEY.match(line):
        return False
    values = _read(line)[1]
    return "steps" in values and len(values) >= 3


def _prompts(lines: list[str]) -> tuple[str, str]:
    for index, line in enumerate(lines):
        if line.startswith(NEGATIVE):
            negative = "\n".join([line[len(NEGATIVE) :], *lines[index + 1 :]])
            return "\n".join(lines[:index]).strip(_BLANKS), negative.strip(_BLANKS)
    return "\n".join(lines).strip(_BLANKS), ""


def _prompts_of_one_line(head: str) -> tuple[str, str]:
    """Some tools write one line; a full stop, a comma or a blank stands for its end."""
    negative = _INLINE_NEGATIVE.search(head)
    if negative is None:
        return head.strip(_BLANKS), ""
    return head[: negative.start()].strip(_BLANKS), head[negative.end() :].strip(_BLANKS)


def _read(settings: str) -> tuple[set[str], dict[str, Any]]:
    """The labels of some settings, and the values by field; of several readable ones the first."""
    labels, values = set(), {}
    for written, text in _details(settings):
        label = written.lower()
        labels.add(label)
        field = _FIELDS.get(label)
        if field is None or field in values:
            continue
        value = READERS[field](text)
        if value is not None:
            values[field] = value
    return labels, values


def _details(settings: str) -> Iterator[tuple[str, str]]:
    """The fields of `label: value, label: "quoted, value", ...`."""
    position, brackets = 0, True
    while position < len(settings):
        key = _KEY.match(settings, position)
        if key is None:  # what is left of a value that holds a comma
            position = _plain(settings, position)[1] + 1
            continue
        start = key.end()
        found = _quotation(settings, start)
        if found is None and brackets and settings.startswith(("{", "["), start):
            found = _bracketed(settings, start)
            brackets = found is not None  # one that fails is the last: each may scan to the end
        value, end = found or _plain(settings, start)
        yield " ".join(key[1].split()), value
        position = end + 1


def _quotation(settings: str, start: int) -> tuple[str, int] | None:
    """The quoted value at `start` and where it ends."""
    quoted = _QUOTED.match(settings, start)
    if quoted is None:
        return None
    try:
        return str(json.loads(f'"{quoted[1]}"')), quoted.end()
    except ValueError:
        return quoted[1], quoted.end()  # quoted, but not as JSON


def _bracketed(settings: str, start: int) -> tuple[str, int] | None:
    """The object or list at `start`, as JSON has them, and where it ends."""
    depth = 0
    for token in _BRACKETS.finditer(settings, start):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if depth == 0:
            end = _END.match(settings, token.end())
            return None if end is None else (settings[start : token.end()], end.end())
    return None


def _plain(settings: str, start: int) -> tuple[str, int]:
    """The value at `start` up to a comma, a newline or the end, and where it ends."""
    match = _PLAIN.match(settings, start)
    assert match is not None  # it matches nothing as well
    return match[0].strip(_BLANKS), match.end()
