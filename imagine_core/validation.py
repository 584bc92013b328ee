"""Checks a request against the server's limits, before any work is done for it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from imagine_core.drawing import hires_size
from imagine_core.errors import FieldError
from imagine_core.settings import Limits
from imagine_core.types import GenerationRequest

SEEDS = 2**64
SMALLEST_SIDE = 64


def check_request(request: GenerationRequest, limits: Limits) -> list[FieldError]:
    """Everything about `request` that cannot be served, all at once, in the core's field names."""
    return [FieldError(name, message) for name, message in _problems(request, limits)]


def _problems(request: GenerationRequest, limits: Limits) -> Iterator[tuple[str, str]]:
    if not request.prompt.strip():
        yield "prompt", "must not be empty"
    for name in ("prompt", "negative_prompt"):
        if len(getattr(request, name)) > limits.prompt:
            yield name, f"must have at most {limits.prompt:,} characters"
    yield from _sizes(request, limits)
    if not 1 <= request.steps <= limits.steps:
        yield "steps", f"must be from 1 to {limits.steps}"
    if not (math.isfinite(request.guidance_scale) and request.guidance_scale >= 0):
        yield "guidance_scale", "must be a finite number, 0 or more"
    if request.seed is not None and not 0 <= request.seed < SEEDS:
        yield "seed", "must be from 0 to 2^64-1"
    if not 0 <= request.strength <= 1:
        yield "strength", "must be from 0.0 to 1.0"
    if request.clip_skip < 1:
        yield "clip_skip", "must be 1 (the last layer) or more"
    if request.preview_every < 0:
        yield "preview_every", "must be 0 (none) or more"
    if request.preview not in ("fast", "vae"):
        yield "preview", "must be 'fast' or 'vae'"
    if not 1 <= request.images <= limits.images:
        yield "images", f"must be from 1 to {limits.images}"


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
