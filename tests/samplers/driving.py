"""The built-in samplers, and a second model whose right answer is known."""

from __future__ import annotations

from functools import cache

import torch

from imagine_core import SamplerSpec, SamplingTask
from imagine_core.plugins import build_plugins
from imagine_core.registry import Registry
from imagine_core.testing import sampler_driving
from imagine_core.testing.sampler_driving import Predict, Run
from imagine_plugins.samplers import diffusers_schedulers, papers

PLUGINS = {"diffusers": diffusers_schedulers, "papers": papers}


@cache
def registry() -> Registry[SamplerSpec]:
    """The built-in samplers; a new row is tested by being in it."""
    return build_plugins(found=[], extra=[*PLUGINS.items()]).samplers


def names(**wanted: bool) -> list[str]:
    """The names of the samplers whose attributes are as wanted: `names(stochastic=False)`."""
    chosen = [s for s in registry() if all(getattr(s, k) == v for k, v in wanted.items())]
    return [spec.name for spec in chosen]


def drive(name: str, task: SamplingTask, predict: Predict) -> Run:
    """Run a built-in sampler to its end on an exact model."""
    return sampler_driving.drive(registry().get(name), task, predict)


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
