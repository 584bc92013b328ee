"""Driving samplers without an engine, on models whose right answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from imagine_core import Evaluation, SamplerSpec, SamplingTask
from imagine_core.plugins import build_plugins
from imagine_core.registry import Registry
from imagine_core.sampling import NoiseModel
from imagine_plugins.samplers import diffusers_schedulers, papers

SD15 = NoiseModel(
    {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
)
Predict = Callable[[torch.Tensor, float], torch.Tensor]
"""The denoised x0 of a variance-exploding x at a noise level, in float64."""


@cache
def registry() -> Registry[SamplerSpec]:
    """The built-in samplers; a new row is tested by being in it."""
    plugins = [("diffusers", diffusers_schedulers), ("papers", papers)]
    return build_plugins(found=[], extra=plugins).samplers


def names(**wanted: bool) -> list[str]:
    """The names of the samplers whose attributes are as wanted: `names(stochastic=False)`."""
    chosen = [s for s in registry() if all(getattr(s, k) == v for k, v in wanted.items())]
    return [spec.name for spec in chosen]


@dataclass
class Run:
    """What a sampling did: its evaluations and its result."""

    latent: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    evaluations: list[Evaluation] = field(default_factory=list)

    @property
    def steps(self) -> list[int]:
        """The step of each evaluation."""
        return [evaluation.step for evaluation in self.evaluations]


def task_of(  # noqa: PLR0913 - the fields of a SamplingTask
    shape: tuple[int, ...] = (1, 4, 8, 8),
    *,
    steps: int = 10,
    schedule: str = "default",
    model: NoiseModel = SD15,
    seed: int = 0,
    init: torch.Tensor | None = None,
    strength: float = 1.0,
) -> SamplingTask:
    """A task as the engine makes it: noise first, then the sampler's own, from one generator."""
    generator = torch.Generator().manual_seed(seed)
    return SamplingTask(
        noise=torch.randn(shape, generator=generator),
        steps=steps,
        schedule=schedule,
        model=model,
        generator=generator,
        init=init,
        strength=strength,
    )


def drive(name: str, task: SamplingTask, predict: Predict) -> Run:
    """Run a sampler to its end on an exact model, by a loop that could not be plainer."""
    run = Run()
    sampling = registry().get(name).sample(task)
    prediction: Any = None
    while True:
        try:
            evaluation = sampling.send(prediction)
        except StopIteration as stop:
            run.latent = stop.value
            return run
        run.evaluations.append(evaluation)
        prediction = answer(task.model, evaluation, predict)


def answer(model: NoiseModel, evaluation: Evaluation, predict: Predict) -> torch.Tensor:
    """What a network with these predictions would output: epsilon or v."""
    sigma = model.sigma(float(evaluation.timestep))
    scale = math.sqrt(1 + sigma**2)
    x = evaluation.latent.double() * scale
    x0 = predict(x, sigma)
    if model.prediction_type == "v_prediction":  # v = a eps - s x0, with a = 1 / scale
        return (((x - x0) / sigma - x0 * sigma) / scale).float()
    return ((x - x0) / sigma).float()


class Gaussian:
    """Pixels whose four channels are drawn from N(mean, covariance), all independent."""

    mean = torch.tensor([0.4, -0.2, 0.0, 0.7], dtype=torch.float64)
    covariance = torch.tensor(
        [[0.9, 0.3, 0.0, 0.1], [0.3, 0.6, -0.2, 0.0], [0.0, -0.2, 0.5, 0.2], [0.1, 0.0, 0.2, 1.2]],
        dtype=torch.float64,
    )

    def __init__(self) -> None:
        self.values, self.vectors = torch.linalg.eigh(self.covariance)

    def denoised(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """E[x0 | x]: the Wiener filter C (C + sigma^2)^-1 around the mean."""
        return self._filter(x, self.values / (self.values + sigma**2))

    def flowed(self, x: torch.Tensor, high: float, low: float = 0.0) -> torch.Tensor:
        """Where the probability-flow ODE takes x from one noise level to another."""
        return self._filter(x, ((self.values + low**2) / (self.values + high**2)).sqrt())

    def draw(self, shape: tuple[int, ...], seed: int = 7) -> torch.Tensor:
        """Data."""
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()
        rooted = self.vectors @ torch.diag(self.values.sqrt())
        return torch.einsum("ij,bjhw->bihw", rooted, noise) + self.mean.view(1, 4, 1, 1)

    def _filter(self, x: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
        matrix = self.vectors @ torch.diag(gains) @ self.vectors.T
        mean = self.mean.view(1, 4, 1, 1)
        return torch.einsum("ij,bjhw->bihw", matrix, x - mean) + mean


class Mixture:
    """Pixels that are each drawn from a two-humped density, all independent."""

    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    means = torch.tensor([-1.0, 0.6], dtype=torch.float64)
    deviations = torch.tensor([0.25, 0.35], dtype=torch.float64)

    def denoised(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """E[x0 | x]: each hump's own, weighed by how likely it is the one."""
        x = x[..., None]
        variance = self.deviations**2 + sigma**2
        logits = self.weights.log() - variance.log() / 2 - (x - self.means) ** 2 / (2 * variance)
        each = (self.deviations**2 * x + sigma**2 * self.means) / variance
        return (logits.softmax(-1) * each).sum(-1)

    def below(self, x: torch.Tensor) -> torch.Tensor:
        """The distribution function."""
        each = torch.special.ndtr((x[..., None] - self.means) / self.deviations)
        return torch.sum(each * self.weights, -1)
