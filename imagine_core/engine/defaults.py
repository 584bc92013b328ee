"""What a request gets that leaves it to its model: size, steps, guidance and sampler."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from imagine_core.kinds import SIDE_STEP, SMALLEST_SIDE
from imagine_core.types import GenerationRequest, ResolvedRequest

if TYPE_CHECKING:
    from imagine_core.interfaces import ModelInfo
    from imagine_core.settings import Limits


def resolved(request: GenerationRequest, info: ModelInfo | None, limits: Limits) -> ResolvedRequest:
    """`request` with its model's own values for what it leaves open, as far as `limits` go.

    Args:
        request: The request.
        info: Its model; None where there is none, and the usual values stand for its own.
        limits: The bounds of one request.
    """
    found = ResolvedRequest.of(request, {} if info is None else info.own)
    if request.steps is None:
        found = replace(found, steps=min(found.steps, limits.steps))
    unsaid = [name for name in ("width", "height") if getattr(request, name) is None]
    if unsaid and found.width * found.height > limits.pixels:
        sizes = _fitting(found, unsaid, limits.pixels)
        found = replace(found, **sizes)
    return found


def _fitting(request: ResolvedRequest, sides: list[str], most: int) -> dict[str, Any]:
    """Smaller `sides` of a picture, of at most so many pixels; the smallest if none are."""
    share = most / (request.width * request.height)
    scale = math.sqrt(share) if len(sides) > 1 else share
    steps = {name: int(getattr(request, name) * scale) // SIDE_STEP for name in sides}
    return {name: max(SMALLEST_SIDE, count * SIDE_STEP) for name, count in steps.items()}
