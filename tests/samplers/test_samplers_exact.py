"""Every sampler against problems with a known answer."""

from __future__ import annotations

import math

import pytest
import torch

from imagine_core.sampling import NoiseModel
from samplers.driving import SD15, Gaussian, Mixture, drive, names, registry, task_of

# A model whose cleanest level is next to nothing, so that what is left to the last step is too.
CLEAN = NoiseModel({"beta_start": 1e-7, "beta_end": 0.02, "beta_schedule": "scaled_linear"})
GAUSSIAN, MIXTURE = Gaussian(), Mixture()

# LCM and TCD want a network that was distilled to jump along the ODE, not a denoiser.
DISTILLED = {"lcm", "tcd"}
ORDER = {
    "ddim": 1,
    "deis": 2,
    "dpm++ 2m": 2,
    "dpm++ 2s": 2,
    "dpm++ 3m": 3,
    "dpm2": 2,
    "euler": 1,
    "heun": 2,
    "lms": 3,  # of order 4 but for its start
    "plms": 2,  # the weights are those of even steps; sigma is not even
    "pndm": 2,
    "unipc": 3,
}
WIDE = (1, 4, 64, 64)


def error(name: str, steps: int) -> float:
    """The largest distance from the exact end of the path that the sampler set out on."""
    schedule = "exponential" if "exponential" in registry().get(name).schedules else "default"
    task = task_of(steps=steps, schedule=schedule, model=CLEAN)
    run = drive(name, task, GAUSSIAN.denoised)
    first = run.evaluations[0]
    sigma = CLEAN.sigma(float(first.timestep))
    exact = GAUSSIAN.flowed(first.latent.double() * (1 + sigma**2) ** 0.5, sigma)
    return float((run.latent - exact).abs().max())


@pytest.mark.parametrize("name", names(stochastic=False))
def test_a_deterministic_sampler_converges_at_its_order(name: str) -> None:
    coarse, fine = error(name, 24), error(name, 72)
    assert math.log(coarse / fine, 3) > ORDER[name] - 0.25
    assert fine < {1: 0.2, 2: 0.05, 3: 0.005}[ORDER[name]]


def assert_gaussian(latent: torch.Tensor, *, within: float) -> None:
    pixels = latent.double().permute(1, 0, 2, 3).reshape(4, -1)
    assert (pixels.mean(1) - GAUSSIAN.mean).abs().max() < within
    assert (pixels.cov() - GAUSSIAN.covariance).abs().max() < within


@pytest.mark.parametrize("name", sorted({*names(stochastic=True)} - DISTILLED))
def test_a_stochastic_sampler_reaches_mean_and_covariance(name: str) -> None:
    task = task_of(WIDE, steps=250, schedule="default", model=SD15)
    assert_gaussian(drive(name, task, GAUSSIAN.denoised).latent, within=0.08)


def test_lcm_samples_exactly_with_an_exact_consistency_function() -> None:
    task = task_of(WIDE, steps=4, schedule="default", model=SD15)
    assert_gaussian(drive("lcm", task, GAUSSIAN.flowed).latent, within=0.08)


@pytest.mark.parametrize("name", sorted({*names()} - DISTILLED))
def test_a_sampler_draws_both_humps_of_a_mixture(name: str) -> None:
    steps = 200 if registry().get(name).stochastic else 100
    latent = drive(name, task_of(WIDE, steps=steps), MIXTURE.denoised).latent.double().flatten()
    ranks = torch.linspace(0, 1, latent.numel())
    distance = (MIXTURE.below(latent.sort().values) - ranks).abs().max()
    assert distance < 0.02  # Kolmogorov-Smirnov; perfect draws stay below 0.007


# diffusers' PNDM repeats its second timestep and does not skip the repetition in img2img: from
# the second step on it takes the latent for one step cleaner than it is. "plms" does not.
STARTS_LATE = {"pndm"}


@pytest.mark.parametrize("strength", [0.35, 0.8])
@pytest.mark.parametrize("name", sorted({*names()} - DISTILLED - STARTS_LATE))
def test_img2img_of_data_ends_as_data(name: str, strength: float) -> None:
    """Noised data are what the model was trained on, at every level: nothing may shift or swell."""
    init = GAUSSIAN.draw(WIDE).float()
    task = task_of(WIDE, steps=120, init=init, strength=strength)
    assert_gaussian(drive(name, task, GAUSSIAN.denoised).latent, within=0.08)


# PNDM extrapolates whatever the model predicts, and v and epsilon do not extrapolate alike.
@pytest.mark.parametrize("name", sorted({*names()} - {"pndm"}))
def test_v_prediction_draws_what_epsilon_does(name: str) -> None:
    config = SD15.config | {"prediction_type": "v_prediction"}
    epsilon, v = (
        drive(name, task_of(steps=7, model=model), GAUSSIAN.denoised).latent
        for model in (SD15, NoiseModel(config))
    )
    assert (epsilon - v).abs().max() < 1e-3


@pytest.mark.parametrize("name", names())
def test_zero_terminal_snr_is_handled_by_every_sampler(name: str) -> None:
    config = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    model = NoiseModel(SD15.config | config | {"timestep_spacing": "trailing"})
    latent = drive(name, task_of(WIDE, steps=60, model=model), GAUSSIAN.denoised).latent
    assert latent.isfinite().all()
    if name not in DISTILLED:
        assert 0.7 < latent.std() / GAUSSIAN.draw(WIDE).std() < 1.2
