"""Samplers: what turns noise into a latent, step by step."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from imagine_core.noise import NoiseModel

__all__ = [
    "Evaluation",
    "SamplerSpec",
    "Sampling",
    "SamplingTask",
    "steps_to_run",
]


class Evaluation(NamedTuple):
    """One evaluation of the model that a sampler wants.

    Attributes:
        latent: The model's input, [1, channels, height, width], float32, scaled as the model was
            trained on it: `signal` times x of sigma space.
        timestep: What the model is told of the noise level, 0 .. 999 (flow: 0 .. 1000), a
            fraction where that lies between two trained ones.
        step: Zero-based number of the step that this evaluation belongs to.
    """

    latent: torch.Tensor
    timestep: torch.Tensor | float
    step: int


Sampling = Generator[Evaluation, "torch.Tensor", "torch.Tensor"]
"""A sampler at work: it yields evaluations, is sent each guided prediction (epsilon, v, ...
as the model predicts), and returns the finished latent. Closing it cancels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingTask:
    """What a sampler starts from.

    Attributes:
        noise: Unit normal noise, [1, channels, height, width], float32, on the device.
        steps: Steps of the whole schedule, as asked for.
        schedule: Name of the noise schedule: "default", "karras", ...
        noise_model: The noise levels that the model was trained on, and what it predicts.
        generator: The picture's own CPU generator, for samplers that add noise on the way.
        init: The latent to start from (img2img), same shape as `noise`; None for txt2img.
        strength: How much of the schedule runs on `init`, 0..1.
    """

    noise: torch.Tensor
    steps: int
    schedule: str
    noise_model: NoiseModel
    generator: torch.Generator
    init: torch.Tensor | None = None
    strength: float = 1.0

    @property
    def first_step(self) -> int:
        """The step of the schedule to start at: 0, or later for img2img."""
        if self.init is None:
            return 0
        return self.steps - steps_to_run(self.steps, self.strength)


def steps_to_run(steps: int, strength: float) -> int:
    """How many of `steps` run at a strength: at least one, unless nothing is to change at all."""
    return min(max(int(steps * strength), 1 if strength > 0 else 0), steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSpec:
    """A sampler under the name that the field uses.

    Attributes:
        name: What requests ask for, lower case: "dpm++ 2m".
        label: A1111's spelling, for people and for infotext: "DPM++ 2M".
        sample: Starts a sampling.
        aliases: Other names for it.
        schedules: The noise schedules that it takes, "default" among them.
        evaluations: Model evaluations per step: 1 for first-order and multistep methods.
        stochastic: Whether it adds noise on the way, so that it never converges in steps.
        noise: The kinds of noise that it knows: of "vp" and "flow", see `NoiseModel.kind`.
    """

    name: str
    label: str
    sample: Callable[[SamplingTask], Sampling]
    aliases: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ("default",)
    evaluations: int = 1
    stochastic: bool = False
    noise: frozenset[str] = frozenset(("vp",))
