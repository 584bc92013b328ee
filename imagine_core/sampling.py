"""NoiseModel: the noise levels of a trained model, in the two parameterisations of the field.

The variance-preserving form (Ho et al. 2020) is x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps; the
variance-exploding form (Karras et al. 2022, "sigma space") is x = x0 + sigma eps, with
sigma_t = sqrt((1 - abar_t) / abar_t), and equals the first times sqrt(1 + sigma^2).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class NoiseModel:
    """The noise levels that a model was trained on, and what it predicts.

    Args:
        config: A diffusers scheduler configuration: `num_train_timesteps`, `beta_start`,
            `beta_end`, `beta_schedule` (or `trained_betas`), `prediction_type`,
            `rescale_betas_zero_snr`, `timestep_spacing`, `steps_offset`, ...
    """

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

    @cached_property
    def _log_sigmas(self) -> torch.Tensor:
        return self.sigmas.log()

    def timestep(self, sigma: float) -> float:
        """The fractional timestep of a noise level: linear between neighbours in log sigma."""
        import math

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
        """The noise level of a fractional timestep: the inverse of `timestep`."""
        import math

        position = min(max(float(timestep), 0.0), self.train_steps - 1.0)
        low = min(int(position), self.train_steps - 2)
        fraction = position - low
        logs = self._log_sigmas
        return math.exp(float(logs[low]) * (1 - fraction) + float(logs[low + 1]) * fraction)

    def predicted_original(
        self, latent: torch.Tensor, timestep: float, prediction: torch.Tensor
    ) -> torch.Tensor:
        """x0 from a variance-preserving `latent` and the model's prediction for it."""
        sigma = self.sigma(timestep)
        signal = 1 / (1 + sigma**2) ** 0.5  # sqrt(abar)
        noise = sigma * signal  # sqrt(1 - abar)
        if self.prediction_type == "v_prediction":  # Salimans & Ho 2022: v = a eps - s x0
            return signal * latent - noise * prediction
        if self.prediction_type == "sample":
            return prediction
        return (latent - noise * prediction) / signal


def _zero_terminal_snr(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Rescale so that the last step has (almost) no signal left: Lin et al. 2024, algorithm 1."""
    roots = alphas_cumprod.sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    roots = (roots - last) * first / (first - last)
    rescaled = roots**2
    rescaled[-1] = 2**-24  # an exact zero is an infinite sigma; diffusers takes the same number
    return rescaled
