"""Noise schedules: how the noise levels of a sampling are spaced.

A schedule gives, for a model and a number of steps, that many descending noise levels in sigma
space; `noise_levels` adds the final zero. Explicit schedules span the trained range whatever the
sampler, so that "karras" means the same levels for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from imagine_core.errors import UnknownName
from imagine_core.noise import RectifiedFlow

if TYPE_CHECKING:
    from imagine_core.noise import NoiseModel

__all__ = [
    "SCHEDULES",
    "noise_levels",
    "schedule_label",
]


def _default(model: NoiseModel, steps: int) -> list[float]:
    """The levels that a flow model's family samples on; for other noise, the normal ones."""
    return model.own_levels(steps) if isinstance(model, RectifiedFlow) else _normal(model, steps)


def _normal(model: NoiseModel, steps: int) -> list[float]:
    """Even in the timestep, from the noisiest trained level to the cleanest."""
    return [model.level(1 - i / max(steps - 1, 1)) for i in range(steps)]


def _sgm_uniform(model: NoiseModel, steps: int) -> list[float]:
    """Even in the timestep, with the last step from one stride above the cleanest level."""
    return [model.level(1 - i / steps) for i in range(steps)]


def _simple(model: NoiseModel, steps: int) -> list[float]:
    """Every (train_steps / steps)th trained level, counted from the noisiest."""
    last, stride = model.train_steps - 1, model.train_steps / steps
    if stride < 1:  # more steps than levels
        return _sgm_uniform(model, steps)
    return [model.level((last - math.floor(i * stride)) / last) for i in range(steps)]


def _karras(model: NoiseModel, steps: int) -> list[float]:
    """Karras et al. 2022, equation 5, with rho = 7."""
    high, low = model.sigma_max ** (1 / 7), model.sigma_min ** (1 / 7)
    return [(high + i / max(steps - 1, 1) * (low - high)) ** 7 for i in range(steps)]


def _exponential(model: NoiseModel, steps: int) -> list[float]:
    """Even in log sigma."""
    ratio = model.sigma_min / model.sigma_max
    return [model.sigma_max * ratio ** (i / max(steps - 1, 1)) for i in range(steps)]


def _beta(model: NoiseModel, steps: int) -> list[float]:
    """Quantiles of Beta(0.6, 0.6) over the timestep: "Beta Sampling", Lee et al. 2024."""
    from scipy.stats import beta

    return [model.level(float(beta.ppf(1 - i / steps, 0.6, 0.6))) for i in range(steps)]


def _kl_optimal(model: NoiseModel, steps: int) -> list[float]:
    """Even in arctan sigma: "Align Your Steps", Sabour et al. 2024, on Gaussian data."""
    high, low = math.atan(model.sigma_max), math.atan(model.sigma_min)
    return [math.tan(high + i / max(steps - 1, 1) * (low - high)) for i in range(steps)]


SCHEDULES: Mapping[str, Callable[[NoiseModel, int], list[float]]] = MappingProxyType(
    {
        "default": _default,
        "normal": _normal,
        "karras": _karras,
        "exponential": _exponential,
        "beta": _beta,
        "sgm_uniform": _sgm_uniform,
        "simple": _simple,
        "kl_optimal": _kl_optimal,
    }
)
"""The noise schedules: descending noise levels for a number of steps, without the final zero."""


def noise_levels(model: NoiseModel, steps: int, schedule: str = "default") -> list[float]:
    """The steps + 1 noise levels of a schedule, descending, the last one 0."""
    try:
        levels = SCHEDULES[schedule]
    except KeyError:
        raise UnknownName("schedule", schedule, known=SCHEDULES) from None
    return [*levels(model, steps), 0.0]


def schedule_label(name: str) -> str:
    """The name of a schedule for people, as A1111 spells it: "SGM Uniform"."""
    return name.replace("_", " ").title().replace("Sgm", "SGM").replace("Kl", "KL")
