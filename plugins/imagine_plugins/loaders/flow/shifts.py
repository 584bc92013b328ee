"""How far the noise levels of flow models move to the noisy end, by the size of the picture.

A shift multiplies sigma = t / (1 - t), as `RectifiedFlow` has it: Esser et al. 2024,
"Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", equation 23. diffusers'
exponential shift by mu (`FlowMatchEulerDiscreteScheduler.time_shift`) is a factor of exp(mu).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

BASE_TOKENS, MOST_TOKENS = 256, 4096
BASE_SHIFT, MAX_SHIFT = 0.5, 1.15


class Shift(Protocol):
    """The shift of a variant."""

    def factor(self, tokens: int, steps: int) -> float:
        """What sigma is multiplied by, for a picture of `tokens` tokens drawn in `steps` steps."""


@dataclass(frozen=True, slots=True)
class FixedShift:
    """The same for all pictures."""

    value: float

    def factor(self, tokens: int, steps: int) -> float:  # noqa: ARG002 - those of other shifts
        """`value`."""
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftBySize:
    """Exp(mu), where mu is linear in the number of tokens: `calculate_shift` of diffusers' FLUX.

    Attributes:
        base: mu at `base_tokens` tokens.
        most: mu at `most_tokens` tokens.
        terminal: The time that the last level is stretched to; None for none.
    """

    base: float = BASE_SHIFT
    most: float = MAX_SHIFT
    base_tokens: int = BASE_TOKENS
    most_tokens: int = MOST_TOKENS
    terminal: float | None = None

    def factor(self, tokens: int, steps: int) -> float:  # noqa: ARG002 - that of other shifts
        """Exp(mu)."""
        slope = (self.most - self.base) / (self.most_tokens - self.base_tokens)
        return math.exp(self.base + slope * (tokens - self.base_tokens))


@dataclass(frozen=True, slots=True)
class EmpiricalShift:
    """Exp(mu) of FLUX.2, which was fitted at 10 and at 200 steps.

    `compute_empirical_mu` of black-forest-labs/flux2, src/flux2/sampling.py.
    """

    def factor(self, tokens: int, steps: int) -> float:
        """Exp(mu), linear in the steps up to 4300 tokens and the same for all beyond."""
        at_200 = 0.00016927 * tokens + 0.45666666
        if tokens > 4300:
            return math.exp(at_200)
        at_10 = 8.73809524e-05 * tokens + 1.89833333
        return math.exp(at_200 + (at_200 - at_10) / 190 * (steps - 200))


def configured(scheduler: Mapping[str, Any], usual: Shift) -> Shift:
    """The shift that a folder's scheduler_config.json has; `usual` where it has none.

    That of FLUX.2 is the pipeline's own, whatever the configuration says.
    """
    if isinstance(usual, EmpiricalShift) or not scheduler:
        return usual
    if not scheduler.get("use_dynamic_shifting"):
        value = scheduler.get("shift", 1.0)
        return FixedShift(float(value)) if _is_number(value) and value > 0 else usual
    values = (
        scheduler.get("base_shift", BASE_SHIFT),
        scheduler.get("max_shift", MAX_SHIFT),
        scheduler.get("base_image_seq_len", BASE_TOKENS),
        scheduler.get("max_image_seq_len", MOST_TOKENS),
    )
    if not all(map(_is_number, values)) or values[2] == values[3]:
        return usual
    base, most, base_tokens, most_tokens = values
    terminal = scheduler.get("shift_terminal") or None
    return ShiftBySize(
        base=base,
        most=most,
        base_tokens=base_tokens,
        most_tokens=most_tokens,
        terminal=terminal if _is_number(terminal) else None,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
