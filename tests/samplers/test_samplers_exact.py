"""Samplers against problems with a known answer, beyond those that every sampler must solve."""

from __future__ import annotations

import pytest
import torch

from imagine_core.testing.sampler_driving import GAUSSIAN, WIDE, task_of
from samplers.driving import Mixture, drive, names, registry
from samplers.test_samplers_contract import DISTILLED

MIXTURE = Mixture()


def test_lcm_samples_exactly_with_an_exact_consistency_function() -> None:
    latent = drive("lcm", task_of(WIDE, steps=4), GAUSSIAN.flowed).latent
    assert GAUSSIAN.distance(latent) < 0.08


@pytest.mark.parametrize("name", sorted({*names()} - DISTILLED))
def test_a_sampler_draws_both_humps_of_a_mixture(name: str) -> None:
    steps = 200 if registry().get(name).stochastic else 100
    latent = drive(name, task_of(WIDE, steps=steps), MIXTURE.denoised).latent.double().flatten()
    ranks = torch.linspace(0, 1, latent.numel())
    distance = (MIXTURE.below(latent.sort().values) - ranks).abs().max()
    assert distance < 0.02  # Kolmogorov-Smirnov; perfect draws stay below 0.007
