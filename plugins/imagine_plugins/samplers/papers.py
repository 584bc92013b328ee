"""Samplers written from their papers, where diffusers lacks, misnames or approximates them.

All are in sigma space (Karras et al. 2022): x = x0 + sigma eps, with lambda = -log sigma for the
log of the signal-to-noise ratio. A step goes from noise level s to the lower level t and takes
h = lambda_t - lambda_s = log(s / t).

References:
    Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models",
        arXiv:2206.00364.
    Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds",
        arXiv:2202.09778.
    Lu et al. 2022, "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic
        Models", arXiv:2211.01095.
    Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations",
        arXiv:2011.13456.
    Xu et al. 2023, "Restart Sampling for Improving Generative Processes", arXiv:2306.14878.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from imagine_core import SamplerSpec, hookimpl
from imagine_core.sampling import sigma_sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from imagine_core.sampling import SigmaWalk

    Walk = Callable[[torch.Tensor, Sequence[float], "Noise"], SigmaWalk]
    Noise = Callable[[], torch.Tensor]
    Past = list[tuple[float, torch.Tensor]]


def dpmpp_sde(x: torch.Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    """The diffusion SDE by the midpoint rule: SDE-DPM-Solver++ of Lu et al. 2022 at r = 1/2.

    The noise of a step is the stochastic integral of sqrt(2) e^lambda dW times t^2, and that
    integral has variance 1/t^2 - 1/s^2. The half step to the midpoint sees the first part of the
    very path that the whole step takes.
    """
    for s, t in pairwise(sigmas):
        x0 = yield x, s
        if t == 0:
            return x0
        m = math.sqrt(s * t)
        early = noise() * math.sqrt(m**-2 - s**-2)
        late = noise() * math.sqrt(t**-2 - m**-2)
        x0 = yield _toward(x, x0, (m / s) ** 2) + early * m**2, m
        x = _toward(x, x0, (t / s) ** 2) + (early + late) * t**2
    return x


def dpmpp_2s_ancestral(x: torch.Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    """DPM-Solver++(2S), Lu et al. 2022, algorithm 1 with r = 1/2, down to less noise than t.

    The rest of the noise is fresh: the ancestral split t^2 = down^2 + up^2 of Song et al. 2021.
    """
    for s, t in pairwise(sigmas):
        x0 = yield x, s
        if t == 0:
            return x0
        down = t**2 / s
        up = math.sqrt(t**2 - down**2)
        m = math.sqrt(s * down)
        x0 = yield _toward(x, x0, m / s), m
        x = _toward(x, x0, down / s) + noise() * up
    return x


def dpmpp_3m(x: torch.Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    """DPM-Solver++(3M), deterministic: see `_multistep`."""
    return _multistep(x, sigmas, noise, eta=0)


def dpmpp_3m_sde(x: torch.Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    """DPM-Solver++(3M) on the diffusion SDE: see `_multistep`."""
    return _multistep(x, sigmas, noise, eta=1)


def _multistep(x: torch.Tensor, sigmas: Sequence[float], noise: Noise, *, eta: int) -> SigmaWalk:
    """Third-order exponential Adams-Bashforth in lambda, on equation 8 of Lu et al. 2022.

    x_t = e^-u x_s + integral over 0..h of a e^(-a (h - v)) x0(lambda_s + v) dv (+ noise), with
    a = 1 + eta, u = a h, and for x0 the parabola through the last three predictions. Its terms of
    first and second order integrate to h (1 - (1 - e^-u) / u) and, with that over h as c,
    to h^2 (1/2 - c / u) for a second derivative of 1.
    """
    past: Past = []  # (lambda, x0), the newest first
    for s, t in pairwise(sigmas):
        x0 = yield x, s
        if t == 0:
            return x0
        h = math.log(s / t)
        past = _within_reach([(-math.log(s), x0), *past[:2]], h)
        u = (1 + eta) * h
        linear = 1 + math.expm1(-u) / u
        slope, curve = _derivatives(past)
        x = (
            _toward(x, x0, math.exp(-u))
            + slope * (h * linear)
            + curve * (h**2 * (0.5 - linear / u))
        )
        if eta:
            x = x + noise() * (t * math.sqrt(-math.expm1(-2 * h)))
    return x


def _within_reach(past: Past, h: float) -> Past:
    """As many predictions as a step of h can build on: it goes at most twice their mean distance.

    "normal" ends on a step several times as long as the one before, where a parabola goes astray.
    """
    while len(past) > 1 and h > 2 * (past[0][0] - past[-1][0]) / (len(past) - 1):
        past = past[:-1]
    return past


def _derivatives(past: Past) -> tuple[torch.Tensor | float, torch.Tensor | float]:
    """First and second derivative of x0 by lambda at the newest point; 0 where not known."""
    match past:
        case [(l0, d0), (l1, d1)]:
            return (d0 - d1) / (l0 - l1), 0.0
        case [(l0, d0), (l1, d1), (l2, d2)]:  # Newton's divided differences
            slope = (d0 - d1) / (l0 - l1)
            bend = (slope - (d1 - d2) / (l1 - l2)) / (l0 - l2)
            return slope + bend * (l0 - l1), bend * 2
    return 0.0, 0.0


ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def plms(x: torch.Tensor, sigmas: Sequence[float], _noise: Noise) -> SigmaWalk:
    """Adams-Bashforth of order four on epsilon: the linear multi-step method of Liu et al. 2022.

    The first step is a Heun step and costs a second evaluation; then the order rises. The weights
    are those of even steps. Unlike diffusers' PNDM, img2img steps on the levels that it noised.
    """
    past: list[torch.Tensor] = []
    for s, t in pairwise(sigmas):
        past = [(x - (yield x, s)) / s, *past[:3]]
        mean = sum(e * w for e, w in zip(past, ADAMS_BASHFORTH[len(past) - 1], strict=True))
        if len(past) == 1 and t > 0:
            guess = x + mean * (t - s)
            mean = (mean + (guess - (yield guess, t)) / t) / 2
        x = x + mean * (t - s)
    return x


RESTART_LOW, RESTART_HIGH = 0.1, 2.0  # where pictures take shape; below are only details


def restart(x: torch.Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    """Heun's method that goes back up once or twice: Xu et al. 2023.

    Adding noise at the low end of an interval and solving it again contracts the errors so far.
    Restarts are paid from the steps asked for: every step is one Heun step, wherever it is.
    """
    for s, t in _with_restarts(sigmas):
        if t > s:
            x = x + noise() * math.sqrt(t**2 - s**2)
            continue
        slope = (x - (yield x, s)) / s
        if t > 0:
            guess = x + slope * (t - s)
            slope = (slope + (guess - (yield guess, t)) / t) / 2
        x = x + slope * (t - s)
    return x


def _with_restarts(sigmas: Sequence[float]) -> list[tuple[float, float]]:
    """The steps (from, to) of `restart`: as many downward ones as `sigmas` has."""
    steps = len(sigmas) - 1
    times, again = min(steps // 16, 2), steps // 4
    levels = _resample(sigmas, steps - times * again)
    low = min((s for s in levels if s >= RESTART_LOW), default=math.inf)
    high = max((s for s in levels if s <= RESTART_HIGH), default=0.0)
    if times == 0 or low >= high:
        return list(pairwise(sigmas))
    plan, bottom = list(pairwise(levels)), levels.index(low)
    loop = [*(high * (low / high) ** (i / again) for i in range(again)), low]
    return plan[:bottom] + [(low, high), *pairwise(loop)] * times + plan[bottom:]


def _resample(sigmas: Sequence[float], steps: int) -> list[float]:
    """The same descent in `steps` steps: log-linear between the levels, 0 at the end."""
    stride = (len(sigmas) - 1) / steps
    levels = []
    for i in range(steps):
        low, part = divmod(i * stride, 1)
        here, there = sigmas[int(low)], sigmas[int(low) + 1]
        levels.append(here * (there / here) ** part if part and there else here)
    return [*levels, 0.0]


def _toward(x: torch.Tensor, x0: torch.Tensor, keep: float) -> torch.Tensor:
    """The mixture that keeps the share `keep` of x and takes the rest from x0."""
    return x * keep + x0 * (1 - keep)


ODE, SDE = False, True  # whether noise is added on the way


def row(  # noqa: PLR0913, PLR0917 - the columns of the table
    walk: Walk,
    name: str,
    label: str,
    evaluations: int,
    stochastic: bool,  # noqa: FBT001 - ODE or SDE
    default: str,
    startup: int = 0,
) -> SamplerSpec:
    """A row, short enough for a line; the function's name is what ComfyUI calls the sampler."""
    return sigma_sampler(
        walk,
        name=name,
        label=label,
        aliases=() if walk.__name__ == name else (walk.__name__,),
        evaluations=evaluations,
        stochastic=stochastic,
        default=default,
        startup=startup,
    )


# fmt: off
SAMPLERS = (
    row(dpmpp_sde,          "dpm++ sde",    "DPM++ SDE",    2, SDE, "karras"),
    row(dpmpp_2s_ancestral, "dpm++ 2s a",   "DPM++ 2S a",   2, SDE, "karras"),
    row(dpmpp_3m,           "dpm++ 3m",     "DPM++ 3M",     1, ODE, "exponential"),
    row(dpmpp_3m_sde,       "dpm++ 3m sde", "DPM++ 3M SDE", 1, SDE, "exponential"),
    row(plms,               "plms",         "PLMS",         1, ODE, "normal", startup=1),
    row(restart,            "restart",      "Restart",      2, SDE, "karras"),
)
# fmt: on


@hookimpl
def register_samplers(register: Callable[[SamplerSpec], None]) -> None:
    """Register the table."""
    for each in SAMPLERS:
        register(each)
