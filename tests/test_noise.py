"""The noise of models: variance preserving and flow, one sigma space for both."""

from __future__ import annotations

import math
from typing import Any

import diffusers
import pytest
import torch

from imagine_core.noise import NoiseModel, RectifiedFlow, VariancePreserving
from imagine_core.testing.sampler_driving import task_of
from imagine_plugins.samplers.diffusers_schedulers import SAMPLERS, spec

SD15 = VariancePreserving(
    {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
)
FLOW = RectifiedFlow()
NOISE = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
MODELS = [
    *(
        VariancePreserving(SD15.config | {"prediction_type": kind})
        for kind in ("epsilon", "v_prediction", "sample")
    ),
    FLOW,
]
EACH = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.prediction_type)


def test_noise_levels_of_stable_diffusion_are_the_published_ones() -> None:
    assert SD15.sigma_min == pytest.approx(0.0292, abs=1e-4)
    assert SD15.sigma_max == pytest.approx(14.6146, abs=1e-4)


@pytest.mark.parametrize("timestep", [0.0, 0.25, 17.5, 500.0, 998.9, 999.0])
@pytest.mark.parametrize("model", [SD15, FLOW])
def test_timestep_and_noise_level_are_inverse_to_each_other(
    model: NoiseModel, timestep: float
) -> None:
    assert model.timestep(model.sigma(timestep)) == pytest.approx(timestep, abs=1e-6)


def test_timesteps_of_levels_outside_the_training_are_clamped() -> None:
    assert SD15.timestep(0.0) == 0
    assert SD15.timestep(1e-9) == 0
    assert SD15.timestep(1e9) == 999


def test_zero_terminal_snr_makes_the_noisiest_level_all_but_pure_noise() -> None:
    model = VariancePreserving(SD15.config | {"rescale_betas_zero_snr": True})
    assert model.sigma_max == pytest.approx(4096, rel=1e-3)
    assert model.sigma_min == pytest.approx(SD15.sigma_min, rel=1e-3)


@EACH
@pytest.mark.parametrize("timestep", [3.0, 400.5, 999.0])
def test_the_two_ways_to_the_original_agree(model: NoiseModel, timestep: float) -> None:
    sigma = model.sigma(timestep)
    x, prediction = NOISE * sigma, NOISE.flip(0).roll(1)
    expected = model.original(x * model.signal(sigma), timestep, prediction)
    assert torch.allclose(model.denoised(x, sigma, prediction), expected, atol=1e-4)


@EACH
@pytest.mark.parametrize("timestep", [3.0, 400.5, 999.0])
def test_a_prediction_is_what_the_original_is_found_from(
    model: NoiseModel, timestep: float
) -> None:
    latent, original = NOISE.double(), NOISE.double().roll(1)
    prediction = model.prediction(latent, timestep, original)
    assert torch.allclose(model.original(latent, timestep, prediction), original, atol=1e-9)


@EACH
def test_a_latent_is_signal_and_noise_in_the_proportion_of_its_level(model: NoiseModel) -> None:
    """The variance of a latent is 1 in the one kind; in the other, signal and noise add up to 1."""
    for share in (0.0, 0.3, 0.8):
        sigma = model.level(share)
        signal, noise = model.signal(sigma), sigma * model.signal(sigma)
        whole = signal + noise if model.kind == "flow" else math.hypot(signal, noise)
        assert whole == pytest.approx(1)


def test_a_flow_is_told_the_time_in_thousandths_and_begins_at_one() -> None:
    assert FLOW.sigma(500.0) == pytest.approx(1)
    assert FLOW.timestep(3.0) == pytest.approx(750)
    assert FLOW.timestep(FLOW.sigma_max) == 1000
    assert FLOW.sigma(1000.0) == FLOW.sigma_max == 1e4
    assert FLOW.timestep(FLOW.sigma_min) == pytest.approx(1)


def test_a_flow_predicts_the_velocity_from_the_picture_to_the_noise() -> None:
    x0, epsilon = NOISE.double().roll(1), NOISE.double()
    latent = 0.25 * x0 + 0.75 * epsilon
    assert torch.allclose(FLOW.prediction(latent, 750.0, x0), epsilon - x0)


def test_a_shift_moves_the_levels_as_the_paper_says() -> None:
    """Esser et al. 2024, equation 23: t = shift t / (1 + (shift - 1) t)."""
    even, shifted = (RectifiedFlow(shift=shift).level(0.4) for shift in (1.0, 3.0))
    t = even / (1 + even)
    assert shifted / (1 + shifted) == pytest.approx(3 * t / (1 + 2 * t), rel=1e-3)
    assert RectifiedFlow(shift=3.0).sigma(500.0) == pytest.approx(1), "the network sees no shift"


def cleanest(shift: float) -> float:
    """The last time that diffusers' scheduler samples on, before it is shifted a second time."""
    return shift * 0.001 / (1 + (shift - 1) * 0.001)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_flow_is_sampled_as_by_diffusers_flow_match_euler(shift: float, family: str) -> None:
    """SD3's pipeline leaves the times to the scheduler; FLUX's gives 1 .. 1 / steps."""
    theirs: Any = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    if family == "sd3":
        theirs.set_timesteps(7)
        model = RectifiedFlow(shift=shift, last=cleanest(shift))
    else:
        theirs.set_timesteps(sigmas=[1 - i / 7 for i in range(7)])
        model = RectifiedFlow(shift=shift)
    told, ours = sampled("euler", model)
    assert told == pytest.approx(theirs.timesteps.tolist(), abs=1e-2)
    assert (ours - stepped(theirs)).abs().max() < 1e-3


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_heuns_method_is_diffusers_flow_match_heun(shift: float) -> None:
    theirs: Any = diffusers.FlowMatchHeunDiscreteScheduler(shift=shift)
    theirs.set_timesteps(7)
    told, ours = sampled("heun", RectifiedFlow(shift=shift, last=cleanest(shift)))
    assert told == pytest.approx(theirs.timesteps.tolist(), abs=1e-2)
    assert (ours - stepped(theirs)).abs().max() < 2e-3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dpm++ 2m", {}),
        ("dpm++ 2m sde", {"algorithm_type": "sde-dpmsolver++"}),
    ],
)
def test_multistep_solvers_are_diffusers_with_flow_sigmas(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs: Any = diffusers.DPMSolverMultistepScheduler(
        use_flow_sigmas=True,
        prediction_type="flow_prediction",
        flow_shift=3.0,
        final_sigmas_type="zero",
        **options,
    )
    theirs.set_timesteps(9)
    model = RectifiedFlow(shift=1.0)
    times = theirs.sigmas[:-1].tolist()
    levels = [t / (1 - t) if t < 0.9999 else 1e4 for t in times]
    monkeypatch.setattr(model, "own_levels", lambda _steps: levels)
    _, ours = sampled(name, model, steps=9)
    assert (ours - stepped(theirs, noisy=True)).abs().max() < 5e-3


def sampled(name: str, model: RectifiedFlow, steps: int = 7) -> tuple[list[float], torch.Tensor]:
    """The timesteps of a built-in sampler with `network`, and its result."""
    found = next(row for row in SAMPLERS if row.name == name)
    sampling = spec(found).sample(task_of(steps=steps, noise_model=model))
    prediction: Any = None
    told: list[float] = []
    while True:
        try:
            latent, timestep, _ = sampling.send(prediction)
        except StopIteration as stop:
            return told, stop.value
        told.append(float(timestep))
        prediction = network(latent, float(timestep))


def stepped(scheduler: Any, *, noisy: bool = False) -> torch.Tensor:
    """What a scheduler of diffusers makes of the same noise with `network`."""
    task = task_of(steps=1, noise_model=FLOW)
    x, options = task.noise, {"generator": task.generator} if noisy else {}
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, float(t)), t, x, return_dict=False, **options)[0]
    return x


def network(latent: torch.Tensor, timestep: float) -> torch.Tensor:
    """A velocity that is neither linear nor the same at all times."""
    return torch.tanh(latent.roll(1, 1) * 2 + timestep / 1000) + latent * 0.5
