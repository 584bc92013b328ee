"""Driving samplers without an engine, on a model whose right answer is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from imagine_core.interfaces import Evaluation, SamplerSpec, SamplingTask
from imagine_core.noise import NoiseModel, RectifiedFlow, VariancePreserving

SD15 = VariancePreserving(
    {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
)
"""What Stable Diffusion 1.5 was trained on."""

# A model whose cleanest level is next to nothing, so that what is left to the last step is too.
CLEAN = VariancePreserving({"beta_start": 1e-7, "beta_end": 0.02, "beta_schedule": "scaled_linear"})

FLOW = RectifiedFlow()

SMALL, WIDE = (1, 4, 8, 8), (1, 4, 64, 64)

Predict = Callable[[torch.Tensor, float], torch.Tensor]
"""The denoised x0 of a variance-exploding x at a noise level, in float64."""


@contextmanager
def quickly() -> Iterator[None]:
    """Without gradients, and on one thread: small tensors are quickest there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)


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
    shape: tuple[int, ...] = SMALL,
    *,
    steps: int = 10,
    schedule: str = "default",
    noise_model: NoiseModel = SD15,
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
        noise_model=noise_model,
        generator=generator,
        init=init,
        strength=strength,
    )


def drive(spec: SamplerSpec, task: SamplingTask, predict: Predict) -> Run:
    """Run a sampler to its end on an exact model, by a loop that could not be plainer."""
    run = Run()
    sampling = spec.sample(task)
    prediction: Any = None
    while True:
        try:
            evaluation = sampling.send(prediction)
        except StopIteration as stop:
            run.latent = stop.value
            return run
        run.evaluations.append(evaluation)
        prediction = answer(task.noise_model, evaluation, predict)


def answer(noise_model: NoiseModel, evaluation: Evaluation, predict: Predict) -> torch.Tensor:
    """What a network with these predictions would output: epsilon, v, x0 or a velocity."""
    timestep = float(evaluation.timestep)
    sigma, latent = noise_model.sigma(timestep), evaluation.latent.double()
    original = predict(latent / noise_model.signal(sigma), sigma)
    return noise_model.prediction(latent, timestep, original).float()


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

    def distance(self, latent: torch.Tensor) -> float:
        """The largest difference of a latent's mean and covariance from what they should be."""
        pixels = latent.double().permute(1, 0, 2, 3).reshape(4, -1)
        mean = (pixels.mean(1) - self.mean).abs().max()
        return float(torch.maximum(mean, (pixels.cov() - self.covariance).abs().max()))

    def _filter(self, x: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
        matrix = (self.vectors * gains) @ self.vectors.T
        mean = self.mean.view(1, 4, 1, 1)
        centred: torch.Tensor = matrix @ (x - mean).flatten(2)
        return centred.view_as(x) + mean


GAUSSIAN = Gaussian()
