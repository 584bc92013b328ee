"""The noise that models are trained on, as one sigma space with two ways into it.

In sigma space (Karras et al. 2022) noised data are x = x0 + sigma eps. A model reads a latent,
which is x times the share of signal at that level: `latent = signal(sigma) * x`.

References:
    Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis",
        arXiv:2403.03206.
    Ho et al. 2020, "Denoising Diffusion Probabilistic Models", arXiv:2006.11239.
    Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models",
        arXiv:2206.00364.
    Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed",
        arXiv:2305.08891.
    Liu et al. 2023, "Flow Straight and Fast: Learning to Generate and Transfer Data with
        Rectified Flow", arXiv:2209.03003.
    Salimans & Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models",
        arXiv:2202.00512.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

__all__ = [
    "NO_SIGNAL",
    "NoiseModel",
    "RectifiedFlow",
    "VariancePreserving",
]

NO_SIGNAL = 2**-24
"""abar of a level that has none, as diffusers has it: an exact zero is an infinite sigma."""


@runtime_checkable
class NoiseModel(Protocol):
    """The noise levels that a model was trained on, and what it predicts."""

    @property
    def kind(self) -> str:
        """How signal and noise mix: "vp" or "flow"; a `SamplerSpec` says which it knows."""

    @property
    def prediction_type(self) -> str:
        """What the model predicts: "epsilon", "v_prediction", "sample", "flow"."""

    @property
    def train_steps(self) -> int:
        """Noise levels of the training."""

    @property
    def sigma_min(self) -> float:
        """The cleanest trained noise level."""

    @property
    def sigma_max(self) -> float:
        """The noisiest trained noise level, or what stands for it where that is infinite."""

    def signal(self, sigma: float) -> float:
        """The factor of x0 in a latent at a noise level, 0..1."""

    def level(self, share: float) -> float:
        """The noise level at a share of the training's range, from 0, the cleanest, to 1."""

    def timestep(self, sigma: float) -> float:
        """What the model is told of a noise level, a fraction between trained ones."""

    def sigma(self, timestep: float) -> float:
        """The noise level of a timestep: the inverse of `timestep`."""

    def denoised(self, x: torch.Tensor, sigma: float, prediction: torch.Tensor) -> torch.Tensor:
        """x0 from an `x` of sigma space and the model's prediction for its latent."""

    def original(
        self, latent: torch.Tensor, timestep: float, prediction: torch.Tensor
    ) -> torch.Tensor:
        """x0 from a `latent` and the model's prediction for it."""

    def prediction(
        self, latent: torch.Tensor, timestep: float, original: torch.Tensor
    ) -> torch.Tensor:
        """What the model would predict for a `latent` whose x0 is `original`."""


class VariancePreserving:
    """Noise as Ho et al. 2020 add it: a latent is sqrt(abar_t) x0 + sqrt(1 - abar_t) eps.

    So sigma_t = sqrt((1 - abar_t) / abar_t), and the signal is 1 / sqrt(1 + sigma^2).

    Args:
        config: A diffusers scheduler configuration: `num_train_timesteps`, `beta_start`,
            `beta_end`, `beta_schedule` (or `trained_betas`), `prediction_type`,
            `rescale_betas_zero_snr`, `timestep_spacing`, `steps_offset`, ...
    """

    kind = "vp"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)
        self.prediction_type: str = self.config.get("prediction_type", "epsilon")
        self.train_steps: int = self.config.get("num_train_timesteps", 1000)

    @cached_property
    def alphas_cumprod(self) -> torch.Tensor:
        """abar_t for t = 0 .. train_steps-1, float64, on the CPU."""
        import torch

        trained = self.config.get("trained_betas")
        start = self.config.get("beta_start", 0.00085)
        end = self.config.get("beta_end", 0.012)
        kind = self.config.get("beta_schedule", "scaled_linear")
        if trained is not None:
            betas = torch.as_tensor(trained, dtype=torch.float64)
        elif kind == "scaled_linear":
            betas = torch.linspace(start**0.5, end**0.5, self.train_steps, dtype=torch.float64) ** 2
        elif kind == "linear":
            betas = torch.linspace(start, end, self.train_steps, dtype=torch.float64)
        else:
            raise ValueError(f"beta schedule {kind!r} is not known")
        alphas = torch.cumprod(1 - betas, dim=0)
        if self.config.get("rescale_betas_zero_snr"):
            alphas = _zero_terminal_snr(alphas)
        return alphas

    @cached_property
    def sigmas(self) -> torch.Tensor:
        """sigma_t for t = 0 .. train_steps-1, ascending, float64, on the CPU."""
        alphas = self.alphas_cumprod
        return ((1 - alphas) / alphas) ** 0.5

    @property
    def sigma_min(self) -> float:
        """The cleanest trained noise level."""
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """The noisiest trained noise level; 4096 stands for none of the signal."""
        return float(self.sigmas[-1])

    def signal(self, sigma: float) -> float:
        """The factor of x0 in a latent, sqrt(abar)."""
        return 1 / math.sqrt(1 + sigma**2)

    def level(self, share: float) -> float:
        """The noise level at a share of the trained timesteps."""
        return self.sigma((self.train_steps - 1) * share)

    @cached_property
    def _log_sigmas(self) -> torch.Tensor:
        return self.sigmas.log()

    def timestep(self, sigma: float) -> float:
        """The timestep of a noise level, 0 .. train_steps-1: linear in log sigma in between."""
        import torch

        logs = self._log_sigmas
        if sigma <= 0 or math.log(sigma) <= float(logs[0]):
            return 0.0
        log = torch.tensor(math.log(sigma), dtype=torch.float64)
        high = int(torch.searchsorted(logs, log).clamp(1, len(logs) - 1))
        low = high - 1
        fraction = (log - logs[low]) / (logs[high] - logs[low])
        return low + float(fraction.clamp(0, 1))

    def sigma(self, timestep: float) -> float:
        """The noise level of a timestep: the inverse of `timestep`."""
        position = min(max(float(timestep), 0.0), self.train_steps - 1.0)
        low = min(int(position), self.train_steps - 2)
        fraction = position - low
        logs = self._log_sigmas
        return math.exp(float(logs[low]) * (1 - fraction) + float(logs[low + 1]) * fraction)

    def denoised(self, x: torch.Tensor, sigma: float, prediction: torch.Tensor) -> torch.Tensor:
        """x0 from an `x` of sigma space and the model's prediction for its latent."""
        if self.prediction_type == "v_prediction":
            scale = 1 + sigma**2
            return x / scale - prediction * (sigma / math.sqrt(scale))
        if self.prediction_type == "sample":
            return prediction
        return x - prediction * sigma

    def original(
        self, latent: torch.Tensor, timestep: float, prediction: torch.Tensor
    ) -> torch.Tensor:
        """x0 from a `latent` and the model's prediction for it.

        v = sqrt(abar) eps - sqrt(1 - abar) x0: Salimans & Ho 2022, appendix D.
        """
        signal, noise = self._mixture(timestep)
        if self.prediction_type == "v_prediction":
            return latent * signal - prediction * noise
        if self.prediction_type == "sample":
            return prediction
        return (latent - prediction * noise) / signal

    def prediction(
        self, latent: torch.Tensor, timestep: float, original: torch.Tensor
    ) -> torch.Tensor:
        """What the model would predict for a `latent` whose x0 is `original`."""
        signal, noise = self._mixture(timestep)
        if self.prediction_type == "v_prediction":
            return (latent * signal - original) / noise
        if self.prediction_type == "sample":
            return original
        return (latent - original * signal) / noise

    def _mixture(self, timestep: float) -> tuple[float, float]:
        """The factors of x0 and of eps in a latent."""
        sigma = self.sigma(timestep)
        signal = self.signal(sigma)
        return signal, sigma * signal


def _zero_terminal_snr(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Rescale so that the last step has (almost) no signal left: Lin et al. 2024, algorithm 1."""
    roots = alphas_cumprod.sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    roots = (roots - last) * first / (first - last)
    rescaled = roots**2
    rescaled[-1] = NO_SIGNAL
    return rescaled


class RectifiedFlow:
    """Noise on straight lines (Liu et al. 2023): a latent is (1 - t) x0 + t eps, t = 0 .. 1.

    So sigma = t / (1 - t), and the signal is 1 - t = 1 / (1 + sigma). The model predicts the
    velocity eps - x0, and is told t times `train_steps`.

    Args:
        shift: How far levels that are even in time move to the noisy end: Esser et al. 2024,
            equation 23, which multiplies sigma by it.
        train_steps: Levels of the training: t = 1 / train_steps .. 1.
        last: The last time, before it is shifted, of the levels that its family samples on; None
            for 1 / steps.
    """

    kind = "flow"
    prediction_type = "flow"
    sigma_max = 1e4
    """Stands for infinity, at t = 1: sampling from here is off by 4e-4, and float32 by 1e-4."""

    def __init__(
        self, *, shift: float = 1.0, train_steps: int = 1000, last: float | None = None
    ) -> None:
        self.shift = shift
        self.train_steps = train_steps
        self.last = last

    def own_levels(self, steps: int) -> list[float]:
        """The levels that its family samples on: from t = 1 evenly to the last, then shifted."""
        last = 1 / steps if self.last is None else self.last
        shares = [1 + i / max(steps - 1, 1) * (last - 1) for i in range(steps)]
        return [self._shifted(share) for share in shares]

    @property
    def sigma_min(self) -> float:
        """The cleanest trained noise level."""
        return self.level(0)

    def signal(self, sigma: float) -> float:
        """The factor of x0 in a latent, 1 - t."""
        return 1 / (1 + sigma)

    def level(self, share: float) -> float:
        """The noise level at a share of the trained times, shifted."""
        first, last = 1 / self.train_steps, self.sigma_max / (self.sigma_max + self.shift)
        return self._shifted(1.0 if share >= 1 else first + share * (last - first))

    def timestep(self, sigma: float) -> float:
        """T of a noise level, times `train_steps`; the noisiest level is t = 1."""
        return self.train_steps * (1.0 if sigma >= self.sigma_max else sigma / (1 + sigma))

    def sigma(self, timestep: float) -> float:
        """The noise level of a timestep: the inverse of `timestep`."""
        t = max(float(timestep), 0.0) / self.train_steps
        return min(t / (1 - t), self.sigma_max) if t < 1 else self.sigma_max

    def denoised(self, x: torch.Tensor, sigma: float, prediction: torch.Tensor) -> torch.Tensor:
        """x0 from an `x` of sigma space and the velocity at its latent."""
        return (x - prediction * sigma) * self.signal(sigma)

    def original(
        self, latent: torch.Tensor, timestep: float, prediction: torch.Tensor
    ) -> torch.Tensor:
        """x0 from a `latent` and the velocity there: the end of a straight line."""
        return latent - prediction * self._time(timestep)

    def prediction(
        self, latent: torch.Tensor, timestep: float, original: torch.Tensor
    ) -> torch.Tensor:
        """The velocity at a `latent` whose x0 is `original`."""
        return (latent - original) / self._time(timestep)

    def _shifted(self, t: float) -> float:
        return self.sigma_max if t >= 1 else min(self.shift * t / (1 - t), self.sigma_max)

    def _time(self, timestep: float) -> float:
        sigma = self.sigma(timestep)
        return sigma * self.signal(sigma)
