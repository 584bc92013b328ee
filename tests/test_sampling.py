"""Schedules, sampler names, and the helper that samplers are written with."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from imagine_core import Evaluation, ModelInfo, SamplerSpec, SamplingTask
from imagine_core.errors import RequestError, UnknownName
from imagine_core.noise import NoiseModel, RectifiedFlow, VariancePreserving
from imagine_core.registry import Registry
from imagine_core.sampling import SigmaWalk, require_noise, resolve_sampler, sigma_sampler
from imagine_core.schedules import SCHEDULES, noise_levels

Noise = Callable[[], torch.Tensor]
SD15 = VariancePreserving(
    {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
)
NOISE = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def euler(x: torch.Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    for s, t in pairwise(sigmas):
        x0 = yield x, s
        x = x0 + (x - x0) * (t / s)
    return x


def noisy(x: torch.Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    for s in sigmas[:-1]:
        x = (yield x, s) + noise()
    return x


def task(**changes: Any) -> SamplingTask:
    defaults: dict[str, Any] = {
        "noise": NOISE,
        "steps": 4,
        "schedule": "default",
        "noise_model": SD15,
        "generator": torch.Generator().manual_seed(1),
    }
    return SamplingTask(**defaults | changes)


def run(spec: SamplerSpec, task: SamplingTask) -> tuple[torch.Tensor, list[Evaluation]]:
    """Drive `spec` with a model that always sees the same picture: 0.5 all over."""
    sampling, x0 = spec.sample(task), torch.full_like(NOISE, 0.5)
    prediction: Any = None
    seen: list[Evaluation] = []
    while True:
        try:
            evaluation = sampling.send(prediction)
        except StopIteration as stop:
            return stop.value, seen
        seen.append(evaluation)
        sigma = task.noise_model.sigma(float(evaluation.timestep))
        signal = 1 / math.sqrt(1 + sigma**2)
        epsilon = (evaluation.latent - signal * x0) / (sigma * signal)
        v = signal * epsilon - sigma * signal * x0
        kinds = {"epsilon": epsilon, "v_prediction": v, "sample": x0}
        prediction = kinds[task.noise_model.prediction_type]


EULER = sigma_sampler(euler, name="euler", label="Euler")


# ---------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize("noise_model", [SD15, RectifiedFlow(), RectifiedFlow(shift=3.0)])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 31, 1000])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_falls_strictly_from_the_noisiest_level_to_zero(
    schedule: str, steps: int, noise_model: NoiseModel
) -> None:
    levels = noise_levels(noise_model, steps, schedule)
    assert len(levels) == steps + 1
    assert levels[0] == pytest.approx(noise_model.sigma_max)
    assert levels[-1] == 0
    assert levels[-2] >= noise_model.sigma_min * (1 - 1e-9)
    assert all(high > low for high, low in pairwise(levels))


def test_karras_levels_follow_equation_5_of_the_paper() -> None:
    high, low = SD15.sigma_max ** (1 / 7), SD15.sigma_min ** (1 / 7)
    middle = noise_levels(SD15, 3, "karras")[1]
    assert middle == pytest.approx(((high + low) / 2) ** 7)


def test_exponential_levels_have_one_ratio() -> None:
    levels = noise_levels(SD15, 9, "exponential")[:-1]
    ratios = [high / low for high, low in pairwise(levels)]
    assert ratios == pytest.approx([ratios[0]] * 8)


def test_beta_levels_are_dense_at_both_ends_of_the_timesteps() -> None:
    times = [SD15.timestep(level) for level in noise_levels(SD15, 20, "beta")]
    gaps = [high - low for high, low in pairwise(times)]
    assert max(gaps[0], gaps[-2]) < gaps[10] / 2


def test_an_unknown_schedule_is_named_with_its_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'karras'"):
        noise_levels(SD15, 5, "karas")


# ------------------------------------------------------------------------ sigma-space samplers


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_sigma_sampler_ends_on_what_the_model_sees(kind: str) -> None:
    model = VariancePreserving(SD15.config | {"prediction_type": kind})
    latent, seen = run(EULER, task(noise_model=model))
    assert torch.allclose(latent, torch.full_like(latent, 0.5), atol=1e-4)
    assert [each.step for each in seen] == [0, 1, 2, 3]


def test_a_sigma_sampler_starts_from_unit_noise_as_the_model_was_trained_on_it() -> None:
    _, (first, *_) = run(EULER, task())
    assert first.timestep == pytest.approx(999)
    assert torch.allclose(first.latent, NOISE, atol=1e-6)


def test_a_sigma_sampler_starts_img2img_at_the_level_of_its_first_step() -> None:
    init = torch.ones_like(NOISE)
    _, seen = run(EULER, task(init=init, strength=0.5))
    sigma = noise_levels(SD15, 4)[2]
    assert [each.step for each in seen] == [0, 1]
    assert seen[0].timestep == pytest.approx(SD15.timestep(sigma))
    expected = (init + sigma * NOISE) / math.sqrt(1 + sigma**2)
    assert torch.allclose(seen[0].latent, expected, atol=1e-6)


def test_no_strength_changes_nothing() -> None:
    init = torch.ones_like(NOISE)
    latent, seen = run(EULER, task(init=init, strength=0.0))
    assert torch.equal(latent, init)
    assert seen == []


def test_default_means_the_schedule_that_suits_the_sampler() -> None:
    suited = sigma_sampler(euler, name="e", label="E", default="karras")
    assert torch.equal(run(suited, task())[0], run(EULER, task(schedule="karras"))[0])
    assert run(suited, task())[1][1].timestep != run(EULER, task())[1][1].timestep


def test_steps_are_counted_by_evaluations_and_startup() -> None:
    def walk(x: torch.Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
        for _ in range(7):
            yield x, sigmas[0]
        return x

    spec = sigma_sampler(walk, name="w", label="W", evaluations=2, startup=1)
    _, seen = run(spec, task(steps=3))
    assert [each.step for each in seen] == [0, 0, 0, 1, 1, 2, 2]


def test_noise_on_the_way_is_drawn_from_the_generator_of_the_task() -> None:
    spec = sigma_sampler(noisy, name="n", label="N", stochastic=True)
    one, same, other = (
        run(spec, task(generator=torch.Generator().manual_seed(seed)))[0] for seed in (5, 5, 6)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_closing_a_sampling_closes_the_generator_inside() -> None:
    closed = []

    def walk(x: torch.Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
        try:
            yield x, sigmas[0]
        finally:
            closed.append(True)
        return x

    sampling = sigma_sampler(walk, name="w", label="W").sample(task())
    assert isinstance(next(sampling), Evaluation)
    sampling.close()
    assert closed == [True]


# -------------------------------------------------------------------------------------- names


@pytest.fixture
def samplers() -> Registry[SamplerSpec]:
    registry: Registry[SamplerSpec] = Registry("sampler")
    fixed = SamplerSpec(name="fixed", label="Fixed", sample=EULER.sample)
    for spec in (
        sigma_sampler(euler, name="dpm++ 2m", label="DPM++ 2M", aliases=("dpmpp_2m",)),
        sigma_sampler(euler, name="dpm++ 2m sde", label="DPM++ 2M SDE"),
        fixed,
    ):
        registry.register(spec, plugin="test")
    return registry


@pytest.mark.parametrize(
    ("name", "schedule", "expected"),
    [
        ("dpm++ 2m", "default", ("dpm++ 2m", "default")),
        ("dpm++ 2m", "karras", ("dpm++ 2m", "karras")),
        ("DPM++ 2M", "Karras", ("dpm++ 2m", "karras")),
        ("DPM++ 2M Karras", "default", ("dpm++ 2m", "karras")),
        ("dpm++ 2m sde karras", "default", ("dpm++ 2m sde", "karras")),
        ("dpm++ 2m SGM Uniform", "default", ("dpm++ 2m", "sgm_uniform")),
        ("dpmpp_2m sgm-uniform", "Automatic", ("dpm++ 2m", "sgm_uniform")),
        ("dpm++ 2m karras", "karras", ("dpm++ 2m", "karras")),
        ("fixed", "", ("fixed", "default")),
    ],
)
def test_a_name_may_carry_its_schedule(
    samplers: Registry[SamplerSpec], name: str, schedule: str, expected: tuple[str, str]
) -> None:
    spec, resolved = resolve_sampler(samplers, name, schedule)
    assert (spec.name, resolved) == expected


def test_a_schedule_that_the_sampler_does_not_take_is_refused(
    samplers: Registry[SamplerSpec],
) -> None:
    for name, schedule in (("fixed", "karras"), ("fixed karras", "default")):
        with pytest.raises(UnknownName, match="unknown schedule 'karras'") as caught:
            resolve_sampler(samplers, name, schedule)
        assert caught.value.kind == "schedule"


def test_a_sampler_that_does_not_know_the_noise_of_a_model_is_refused_with_those_that_do(
    samplers: Registry[SamplerSpec],
) -> None:
    fixed, known = samplers.get("fixed"), samplers.get("dpm++ 2m")
    for spec, noise in ((fixed, "vp"), (known, "vp"), (known, "flow")):
        require_noise(spec, model_of(noise), samplers)
    with pytest.raises(RequestError, match="of the kind 'flow'; take one of 'dpm") as caught:
        require_noise(fixed, model_of("flow"), samplers)
    assert [error.field for error in caught.value.fields] == ["sampler"]
    with pytest.raises(RequestError, match="no sampler here can"):
        require_noise(fixed, model_of("discrete"), samplers)


def model_of(noise: str) -> ModelInfo:
    return ModelInfo(name="m", path=Path("m"), loader="fake", family="fake", size=1, noise=noise)


def test_an_unknown_sampler_is_named_as_it_was_asked_for(samplers: Registry[SamplerSpec]) -> None:
    for name in ("dpm++ 2n", "dpm++ 2n karras", "dpm++ 2m carrots", "karras"):
        with pytest.raises(UnknownName) as caught:
            resolve_sampler(samplers, name)
        assert (caught.value.kind, caught.value.name) == ("sampler", name)


def test_a_name_and_a_schedule_that_contradict_each_other_are_refused(
    samplers: Registry[SamplerSpec],
) -> None:
    with pytest.raises(RequestError, match="already asks for the schedule 'karras'") as caught:
        resolve_sampler(samplers, "dpm++ 2m karras", "beta")
    assert [error.field for error in caught.value.fields] == ["noise_schedule"]


def test_samplers_are_listed_without_importing_torch_or_diffusers() -> None:
    code = """
import sys
from imagine_plugins.samplers import diffusers_schedulers, papers
found = []
for plugin in (diffusers_schedulers, papers):
    plugin.register_samplers(register=found.append)
assert len(found) > 20
assert not {"torch", "diffusers", "scipy", "numpy"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
