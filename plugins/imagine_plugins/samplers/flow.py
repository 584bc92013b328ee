"""The methods of diffusers' schedulers for flow models, where those know another noise.

A flow model's latent is z = (1 - t) x0 + t eps, and its velocity is dz/dt = eps - x0. Methods of
second order take their means over t: in sigma space the first step, from t = 1, would be as long as
all others together. Those of the DPM++ kind step in lambda = -log sigma, as for any other noise.

References:
    Karras et al. 2022, arXiv:2206.00364: euler, heun, dpm2 (algorithm 1 and its midpoint rule).
    Liu et al. 2023, arXiv:2209.03003: the flow.
    Lu et al. 2022, arXiv:2211.01095: dpm++ 2m, 2s, and the SDE solvers.
    Luo et al. 2023, arXiv:2310.04378: lcm.
    Song et al. 2021, arXiv:2011.13456: the ancestral split of noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from imagine_core.sampling import SigmaWalk

    Noise = Callable[[], torch.Tensor]
    Walk = Callable[[torch.Tensor, Sequence[float], Noise], SigmaWalk]

LMS_ORDER = 4


def euler(x: torch.Tensor, sigmas: Sequence[float], _noise: Noise) -> SigmaWalk:
    """Euler's method; it is the same over t and over sigma, and DDIM without noise too."""
    for s, t in pairwise(sigmas):
        x0 = yield x, s
        x = x0 + (x - x0) * (t / s)
    return x


def euler_ancestral(x: torch.Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    """Euler's method down to less noise than t, and fresh noise up to it."""
    for s, t in pairwise(sigmas):
        x0 = yield x, s
        down = t**2 / s
        x = x0 + (x - x0) * (down / s)
        if t > 0:
            x = x + noise() * math.sqrt(t**2 - down**2)
    return x


def heun(x: torch.Tensor, sigmas: Sequence[float], _noise: Noise) -> SigmaWalk:
    """Heun's method over t; the last step is Euler's, as the velocity ends there."""
    for s, t in pairwise(sigmas):
        velocity = _velocity(x, s, (yield x, s))
        guess = _moved(x, velocity, s, t)
        if t > 0:
            velocity = (velocity + _velocity(guess, t, (yield guess, t))) / 2
        x = _moved(x, velocity, s, t)
    return x


def midpoint(x: torch.Tensor, sigmas: Sequence[float], _noise: Noise) -> SigmaWalk:
    """The midpoint rule over t."""
    for s, t in pairwise(sigmas):
        velocity = _velocity(x, s, (yield x, s))
        if t > 0:
            middle = _sigma((_time(s) + _time(t)) / 2)
            guess = _moved(x, velocity, s, middle)
            velocity = _velocity(guess, middle, (yield guess, middle))
        x = _moved(x, velocity, s, t)
    return x


def lms(x: torch.Tensor, sigmas: Sequence[float], _noise: Noise) -> SigmaWalk:
    """Adams-Bashforth's linear multistep method over t, for steps of any length."""
    past: list[tuple[float, torch.Tensor]] = []  # (t, velocity), the newest first
    for s, t in pairwise(sigmas):
        velocity = _velocity(x, s, (yield x, s))
        past = [(_time(s), velocity), *past[: LMS_ORDER - 1]]
        weights = _weights([time for time, _ in past], _time(s), _time(t))
        z = x / (1 + s)
        for weight, (_, each) in zip(weights, past, strict=True):
            z = z + each * weight
        x = z * (1 + t)
    return x


def dpmpp_2m(x: torch.Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    """DPM-Solver++(2M), Lu et al. 2022, algorithm 2."""
    return _dpmpp_2m(x, sigmas, noise, eta=0)


def dpmpp_2m_sde(x: torch.Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    """SDE-DPM-Solver++(2M) by the midpoint rule."""
    return _dpmpp_2m(x, sigmas, noise, eta=1)


def _dpmpp_2m(x: torch.Tensor, sigmas: Sequence[float], noise: Noise, *, eta: int) -> SigmaWalk:
    """x_t = e^-u x_s + (1 - e^-u) D (+ noise), with u = (1 + eta) h, h = log(s / t).

    D is x0 extrapolated to the middle of the step along the last one.
    """
    before: tuple[float, torch.Tensor] | None = None  # the last h and x0
    for s, t in pairwise(sigmas):
        x0 = yield x, s
        if t == 0:
            return x0
        h = math.log(s / t)
        target = x0 if before is None else x0 + (x0 - before[1]) * (h / (2 * before[0]))
        keep = (t / s) ** (1 + eta)
        x = x * (keep if not eta else t**2 / s**2) + target * (1 - keep)
        if eta:
            x = x + noise() * (t * math.sqrt(1 - (t / s) ** 2))
        before = h, x0
    return x


def dpmpp_2s(x: torch.Tensor, sigmas: Sequence[float], _noise: Noise) -> SigmaWalk:
    """DPM-Solver++(2S), Lu et al. 2022, algorithm 1, with its inner step at the middle of t."""
    for s, t in pairwise(sigmas):
        x0 = yield x, s
        if t == 0:
            return x0
        middle = _sigma((_time(s) + _time(t)) / 2)
        guess = x0 + (x - x0) * (middle / s)
        part = math.log(s / middle) / math.log(s / t)
        inner = yield guess, middle
        x = _toward(x, x0 + (inner - x0) / (2 * part), t / s)
    return x


def lcm(x: torch.Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    """A consistency model's: to the picture at once, and fresh noise up to the next level."""
    for s, t in pairwise(sigmas):
        x0 = yield x, s
        x = x0 + noise() * t if t > 0 else x0
    return x


WALKS: Mapping[str, Walk] = MappingProxyType(
    {
        "ddim": euler,
        "euler": euler,
        "euler a": euler_ancestral,
        "heun": heun,
        "lms": lms,
        "dpm++ 2m": dpmpp_2m,
        "dpm++ 2s": dpmpp_2s,
        "dpm2": midpoint,
        "dpm++ 2m sde": dpmpp_2m_sde,
        "lcm": lcm,
    }
)
"""The method of each sampler for flow models, in sigma space."""


def _time(sigma: float) -> float:
    return sigma / (1 + sigma)


def _sigma(time: float) -> float:
    return time / (1 - time)


def _velocity(x: torch.Tensor, sigma: float, x0: torch.Tensor) -> torch.Tensor:
    """Eps - x0, from `x` of sigma space and its x0."""
    return (x - x0) / sigma - x0


def _moved(x: torch.Tensor, velocity: torch.Tensor, s: float, t: float) -> torch.Tensor:
    """`x` of noise level s, moved along a velocity to noise level t."""
    return (x / (1 + s) + velocity * (_time(t) - _time(s))) * (1 + t)


def _toward(x: torch.Tensor, x0: torch.Tensor, keep: float) -> torch.Tensor:
    return x * keep + x0 * (1 - keep)


def _weights(times: Sequence[float], start: float, end: float) -> list[float]:
    """The integrals from `start` to `end` of the Lagrange polynomials through `times`.

    By Gauss's rule of two nodes, which is exact for cubics.
    """
    middle, half = (end + start) / 2, (end - start) / 2
    nodes = middle - half / math.sqrt(3), middle + half / math.sqrt(3)
    found = []
    for own in times:
        others = [time for time in times if time != own]
        value = sum(math.prod((node - o) / (own - o) for o in others) for node in nodes)
        found.append(half * value)
    return found
