"""Checks a request against the server's limits, before any work is done for it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from imagine_core.engine.drawing import hires_size
from imagine_core.errors import FieldError
from imagine_core.settings import Limits
from imagine_core.types import GenerationRequest

SEEDS = 2**64
SMALLEST_SIDE = 64
GREATEST_GUIDANCE = 1000
"""Far beyond what draws anything; predictions stay finite."""


def check_request(request: GenerationRequest, limits: Limits) -> list[FieldError]:
    """Everything about `request` that cannot be served, all at once, in the core's field names."""
    return [FieldError(name, message) for name, message in _problems(request, limits)]


def _problems(request: GenerationRequest, limits: Limits) -> Iterator[tuple[str, str]]:
    yield from _sizes(request, limits)
    for name, fine, rule in _rules(request, limits):
        if not fine:
            yield name, rule


def _rules(request: GenerationRequest, limits: Limits) -> Iterator[tuple[str, bool, str]]:
    """Field, whether it is fine, and what it must be."""
    r = request
    longest = f"must have at most {limits.prompt:,} characters"
    guidance = 0 <= r.guidance_scale <= GREATEST_GUIDANCE
    yield "prompt", bool(r.prompt.strip()), "must not be empty"
    for name in ("model", "sampler", "noise_schedule"):
        given = getattr(r, name)
        yield name, given is None or bool(given.strip()), "must not be empty"
    yield "prompt", len(r.prompt) <= limits.prompt, longest
    yield "negative_prompt", len(r.negative_prompt) <= limits.prompt, longest
    yield "original_prompt", len(r.original_prompt or "") <= limits.prompt, longest
    yield "steps", 1 <= r.steps <= limits.steps, f"must be from 1 to {limits.steps}"
    yield "guidance_scale", guidance, f"must be from 0 to {GREATEST_GUIDANCE}"
    yield "seed", r.seed is None or 0 <= r.seed < SEEDS, "must be from 0 to 2^64-1"
    yield "strength", 0 <= r.strength <= 1, "must be from 0.0 to 1.0"
    yield "clip_skip", r.clip_skip >= 1, "must be 1 (the last layer) or more"
    yield "preview_every", r.preview_every >= 0, "must be 0 (none) or more"
    yield "preview", r.preview in {"fast", "vae"}, "must be 'fast' or 'vae'"
    yield "images", 1 <= r.images <= limits.images, f"must be from 1 to {limits.images}"


def _sizes(request: GenerationRequest, limits: Limits) -> Iterator[tuple[str, str]]:
    fine = True
    for name in ("width", "height"):
        side = getattr(request, name)
        if side < SMALLEST_SIDE or side % 8:
            fine = False
            yield name, f"must be a multiple of 8, {SMALLEST_SIDE} or more"
    if not fine:
        return
    if request.width * request.height > limits.pixels:
        yield "width", f"width x height must be at most {limits.pixels:,} pixels"
        yield "height", f"width x height must be at most {limits.pixels:,} pixels"
    scale = request.hires_scale
    if scale is None:
        return
    if not (math.isfinite(scale) and 1 < scale <= 8):
        yield "hires_scale", "must be more than 1 and at most 8"
    elif math.prod(hires_size(request)) > limits.pixels:
        yield "hires_scale", f"the scaled size must be at most {limits.pixels:,} pixels"
