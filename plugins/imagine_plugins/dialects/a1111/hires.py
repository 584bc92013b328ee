"""A1111's hires fix and its upscalers, in the core's words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from imagine_core.errors import FieldError, UnknownName, UnusableModel
from imagine_core.fields import DEFAULTS
from imagine_core.kinds import SIDE_STEP
from imagine_core.sampling import resolve_or_default

if TYPE_CHECKING:
    from imagine_core import SamplerSpec
    from imagine_core.service import Service

LANCZOS = str(DEFAULTS["hires_upscaler"])
FIELDS = tuple(name for name in DEFAULTS if name.startswith("hires_"))
SAME = ("use same sampler", "use same scheduler")
MOST_SCALE = 8
SCALE = 4
"""What the list says of upscalers for any factor, as A1111 does."""


def hires_fields(
    values: dict[str, Any],
    service: Service,
    first: SamplerSpec,
    *,
    warnings: list[str],
    errors: list[FieldError],
) -> dict[str, Any]:
    """The second pass; `first` is the first one's sampler."""
    if not values["enable_hr"]:
        return {name: DEFAULTS[name] for name in FIELDS}
    most = service.engine.settings.limits.pixels
    return {
        "hires_scale": _scale(values, most, warnings, errors),
        "hires_keeps": True,
        "hires_upscaler": _upscaler(values["hr_upscaler"] or "", service, warnings),
        "hires_steps": values["hr_second_pass_steps"] or None,
        "hires_strength": values["denoising_strength"],
        "hires_sampler": _sampler(values, service, first, warnings),
    }


def find_upscaler(service: Service, text: str) -> tuple[str, str]:
    """The name and the label of the upscaler that a client means by its label or its name.

    Raises:
        UnknownName, UnusableModel: There is none, or it is broken.
    """
    wanted, known = text.strip().casefold(), service.plugins.upscalers
    for spec in known:
        if wanted in (spec.label.casefold(), *map(str.casefold, (spec.name, *spec.aliases))):
            return spec.name, spec.label
    try:
        name = service.engine.catalogue.match(text, "upscaler").name
    except UnknownName as error:
        files = [info.name for info in service.engine.catalogue.usable("upscaler")]
        labels = [spec.label for spec in known]
        raise UnknownName("upscaler", text, known=[*labels, *files]) from error
    return name, name


def upscaler_list(service: Service) -> list[dict[str, Any]]:
    """The upscalers, as A1111 lists them."""
    files = service.engine.catalogue.usable("upscaler")
    rest = {"model_path": None, "model_url": None}
    labels = ["None", *(spec.label for spec in service.plugins.upscalers)]
    return [
        *({"name": label, "model_name": None, **rest, "scale": SCALE} for label in labels),
        *(
            {"name": info.name, "model_name": info.name, **rest, "model_path": info.path.name}
            | {"scale": info.details.get("factor") or SCALE}
            for info in files
        ),
    ]


def _scale(
    values: dict[str, Any], most: int, warnings: list[str], errors: list[FieldError]
) -> float:
    """The factor; of two sizes, the one that covers both. At most `most` pixels are drawn."""
    before = [values["width"], values["height"]]
    asked = [values["hr_resize_x"], values["hr_resize_y"]]
    scales = [after / side for after, side in zip(asked, before, strict=True)]
    scale: float = max(scales)
    if not scale:
        return float(values["hr_scale"])
    field = ("hr_resize_x", "hr_resize_y")[scales.index(scale)]
    sides = [round(side * scale / SIDE_STEP) * SIDE_STEP for side in before]
    if not 1 <= scale <= MOST_SCALE:
        side = before[scales.index(scale)]
        message = f"must be from {side} to {side * MOST_SCALE}: as large to {MOST_SCALE} times"
        errors.append(FieldError(field, message))
        return 1.0
    if math.prod(sides) > most:
        errors.append(FieldError(field, f"the scaled size must be at most {most:,} pixels"))
        return 1.0
    drawn = " x ".join(map(str, sides))
    if min(scales) and scales[0] != scales[1]:
        warnings.append(f"hr_resize_x x hr_resize_y is not cut out here: {drawn} are kept")
    elif any(after not in (0, side) for after, side in zip(asked, sides, strict=True)):
        warnings.append(f"{field} makes {drawn}: sides are multiples of {SIDE_STEP}")
    return scale


def _upscaler(text: str, service: Service, warnings: list[str]) -> str:
    name = text.strip().casefold()
    if name in ("", "none", LANCZOS):
        return LANCZOS
    if name.startswith("latent"):
        warnings.append(f"hr_upscaler {text[:100]!r} enlarges latents: Lanczos enlarges instead")
        return LANCZOS
    try:
        return find_upscaler(service, text)[0]
    except (UnknownName, UnusableModel) as error:
        warnings.append(f"{error}; Lanczos enlarges instead")
        return LANCZOS


def _sampler(
    values: dict[str, Any], service: Service, first: SamplerSpec, warnings: list[str]
) -> str | None:
    """The second pass's sampler, with its schedule behind it; None for the first one's."""
    named = [values["hr_sampler_name"] or "", values["hr_scheduler"] or ""]
    name, schedule = ("" if each.strip().casefold() in SAME else each for each in named)
    if not name.strip() and not schedule.strip():
        return None
    asked = name if name.strip() else first.name
    spec, schedule, remarks = resolve_or_default(
        service.plugins.samplers, asked, schedule or "default"
    )
    warnings += remarks
    return spec.name if schedule == "default" else f"{spec.name} {schedule}"
