"""Samplers from papers, each tested against its definition."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from imagine_core.schedules import noise_levels
from imagine_core.testing.sampler_driving import GAUSSIAN, SD15, task_of
from samplers.driving import drive


def black(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """A denoiser that sees nothing but black: what a sampler returns then is noise alone."""
    return torch.zeros_like(x)


def test_the_half_step_of_dpmpp_sde_sees_the_first_half_of_the_path_of_the_whole_step() -> None:
    run = drive("dpm++ sde", task_of((1, 4, 128, 128), steps=4), black)
    start, middle, end = (e.latent.double() for e in run.evaluations[:3])
    s, m, t = (SD15.sigma(float(e.timestep)) for e in run.evaluations[:3])
    start, middle, end = (
        latent * (1 + sigma**2) ** 0.5 / sigma**2
        for latent, sigma in ((start, s), (middle, m), (end, t))
    )
    # With x0 = 0, x / sigma^2 is the stochastic integral itself: independent increments.
    early, late = (middle - start).flatten(), (end - middle).flatten()
    assert early.var() == pytest.approx(m**-2 - s**-2, rel=0.03)
    assert late.var() == pytest.approx(t**-2 - m**-2, rel=0.03)
    assert torch.corrcoef(torch.stack([early, late]))[0, 1].abs() < 0.02


@pytest.mark.parametrize("name", ["dpm++ 2s a", "dpm++ 3m sde", "dpm++ sde", "euler a"])
def test_noise_on_the_way_keeps_the_variance_of_each_level(name: str) -> None:
    """Of a black picture, x at level sigma is noise of variance sigma^2, whatever the method."""
    levels = noise_levels(SD15, 8, "karras")
    run = drive(name, task_of((1, 4, 64, 64), steps=8, schedule="karras"), black)
    whole = [
        e for e, before in zip(run.evaluations, [-1, *run.steps], strict=False) if e.step > before
    ]
    for evaluation, sigma in zip(whole[1:], levels[1:], strict=False):
        deviation = float(evaluation.latent.std()) * (1 + sigma**2) ** 0.5
        assert deviation == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize(("steps", "times"), [(10, 0), (20, 1), (40, 2)])
def test_restart_goes_back_up_within_the_steps_asked_for(steps: int, times: int) -> None:
    run = drive("restart", task_of(steps=steps), GAUSSIAN.denoised)
    levels = [SD15.sigma(float(e.timestep)) for e in run.evaluations]
    rises = [(low, high) for low, high in pairwise(levels) if high > low * 1.01]
    assert len(rises) == times
    assert all(0.05 < low < 0.3 and 1 < high <= 2 for low, high in rises)
    assert len(run.evaluations) == 2 * steps - 1


def test_restart_that_starts_below_its_interval_is_heun() -> None:
    init = GAUSSIAN.draw((1, 4, 8, 8)).float()
    few: dict[str, Any] = {"steps": 300, "schedule": "karras", "init": init, "strength": 0.1}
    runs = [drive(name, task_of(**few), GAUSSIAN.denoised) for name in ("restart", "heun")]
    assert len(runs[0].evaluations) == 2 * 30 - 1
    assert (runs[0].latent - runs[1].latent).abs().max() < 1e-4


def test_dpmpp_3m_does_not_leap_further_than_it_has_seen() -> None:
    """ "normal" ends on a leap; from a parabola through what came before it would go astray."""
    for name in ("dpm++ 3m", "dpm++ 3m sde"):
        task = task_of((1, 4, 64, 64), steps=10, schedule="normal")
        latent = drive(name, task, GAUSSIAN.denoised).latent
        assert 0.7 < latent.std() / GAUSSIAN.draw(tuple(latent.shape)).std() < 1.1


def test_plms_is_pndm_but_for_the_timesteps() -> None:
    """On levels that both can take, they are one method."""
    steps = 50
    plms, pndm = (drive(n, task_of(steps=steps), GAUSSIAN.denoised) for n in ("plms", "pndm"))
    assert len(plms.evaluations) == len(pndm.evaluations) == steps + 1
    assert (plms.latent - pndm.latent).abs().max() < 0.1
