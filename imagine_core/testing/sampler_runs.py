"""A sampler under test: driven on the Gaussian problem, and watched wherever it runs."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import torch

from imagine_core.interfaces import Evaluation, SamplerSpec, Sampling, SamplingTask
from imagine_core.noise import NoiseModel
from imagine_core.plugins import Plugins
from imagine_core.testing.plugin_registration import beside_the_installed
from imagine_core.testing.sampler_driving import FLOW, GAUSSIAN, SD15, SMALL, drive, task_of

INIT = GAUSSIAN.draw(SMALL).float()


@dataclass
class Sampled:
    """A sampler under test.

    Attributes:
        plugin: The plugin that registers it.
        name: Its name.
        order: How fast it converges, if it is deterministic.
        distilled: Whether it wants a model that jumps to the end of the path, not a denoiser.
        steps: The numbers of steps to try for latents that are not finite.
    """

    plugin: object
    name: str
    order: float
    distilled: bool
    steps: Sequence[int]

    @cached_property
    def plugins(self) -> Plugins:
        """The installed plugins and this one."""
        return beside_the_installed(self.plugin)

    @cached_property
    def spec(self) -> SamplerSpec:
        """The sampler, which is held to what it must yield wherever it runs."""
        spec = self.plugins.samplers.get(self.name)
        return replace(spec, sample=lambda task: _watched(spec, task))

    @property
    def knows_vp(self) -> bool:
        """Whether it knows the noise of models with betas, which it is tried on then."""
        return "vp" in self.plugins.samplers.get(self.name).noise

    @property
    def noise_model(self) -> NoiseModel:
        """The noise that it is tried on, unless a rule says otherwise."""
        return SD15 if self.knows_vp else FLOW

    @cached_property
    def runs(self) -> list[tuple[str, SamplingTask]]:
        """Seven steps of every schedule, from noise and from a picture, and what that is called."""
        return [self.task(*run, 7) for run in product(self.spec.schedules, (None, 0.6))]

    def task(self, schedule: str, strength: float | None, steps: int) -> tuple[str, SamplingTask]:
        """A task, and what it is called in complaints."""
        where = f"in {steps} steps of the schedule {schedule!r}"
        if strength is None:
            return where, self.task_of(steps=steps, schedule=schedule)
        task = self.task_of(steps=steps, schedule=schedule, init=INIT, strength=strength)
        return f"{where} at strength {strength}", task

    def task_of(self, shape: tuple[int, ...] = SMALL, **options: Any) -> SamplingTask:
        """A task with noise of the kind that is tried."""
        return task_of(shape, **{"noise_model": self.noise_model, **options})

    def latent(self, shape: tuple[int, ...] = SMALL, **options: Any) -> torch.Tensor:
        """What it makes of the Gaussian problem."""
        return drive(self.spec, self.task_of(shape, **options), self.predict).latent

    def predict(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """What its model predicts: the mean of what x may have been, or the end of x's path."""
        return (GAUSSIAN.flowed if self.distilled else GAUSSIAN.denoised)(x, sigma)


def _watched(spec: SamplerSpec, task: SamplingTask) -> Sampling:
    sampling: object = spec.sample(task)
    assert isinstance(sampling, Generator), "its `sample` is no generator function"
    enough = 4 * (task.steps + 1) * max(spec.evaluations, 1) + 20
    prediction: Any = None
    try:
        for _ in range(enough):
            try:
                wanted = sampling.send(prediction)
            except StopIteration as stop:
                _check_tensor("the latent that it returns", stop.value, task)
                return stop.value  # type: ignore[no-any-return]
            _check_evaluation(wanted, task)
            prediction = yield wanted
    finally:
        sampling.close()
    raise AssertionError(f"it wants more than {enough} evaluations for {task.steps} steps")


def _check_evaluation(wanted: object, task: SamplingTask) -> None:
    assert isinstance(wanted, Evaluation), f"it yields {wanted!r:.60}, which is no Evaluation"
    _check_tensor("the latent that it wants evaluated", wanted.latent, task)
    last = task.noise_model.timestep(task.noise_model.sigma_max)
    assert 0 <= float(wanted.timestep) <= last + 1e-3, (
        f"its timestep {wanted.timestep} is not in 0..{last:.0f}"
    )
    assert isinstance(wanted.step, int), f"the number of its step is {wanted.step!r}"


def _check_tensor(what: str, tensor: object, task: SamplingTask) -> None:
    assert isinstance(tensor, torch.Tensor), f"{what} is no tensor, but {tensor!r:.60}"
    shape, wanted = tuple(tensor.shape), tuple(task.noise.shape)
    assert shape == wanted, f"{what} has the shape {shape}, not {wanted}"
    assert tensor.dtype == torch.float32, f"{what} is {tensor.dtype}, not float32"
