"""What the engine relies on, for every registered sampler; a new row is tested by existing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import torch

from imagine_core import Evaluation
from samplers.driving import SD15, Gaussian, answer, drive, names, registry, task_of

GAUSSIAN = Gaussian()
STRENGTHS = (None, 0.02, 0.5, 1.0)
INIT = GAUSSIAN.draw((1, 4, 8, 8)).float()
PAIRS = [(spec.name, schedule) for spec in registry() for schedule in spec.schedules]


def draw(name: str, schedule: str, steps: int, strength: float | None) -> None:
    """Run one sampling and hold it to what every sampling promises."""
    init = None if strength is None else INIT
    task = task_of(steps=steps, schedule=schedule, init=init, strength=strength or 1.0)
    run = drive(name, task, GAUSSIAN.denoised)
    where = f"{name}, {schedule}, {steps} steps, strength {strength}"
    assert run.latent.isfinite().all(), where
    assert run.latent.dtype == torch.float32, where
    assert run.latent.shape == task.noise.shape, where
    assert all(0 <= float(e.timestep) <= 999 for e in run.evaluations), where
    running = steps - task.first_step
    assert sorted({*run.steps}) == list(range(running)), where
    assert run.steps == sorted(run.steps), where
    each = registry().get(name).evaluations
    # The last step of a second-order method is of first order; PLMS and PNDM start with an extra.
    assert running * each - (each - 1) <= len(run.evaluations) <= running * each + 1, where


@pytest.mark.parametrize(("name", "schedule"), PAIRS)
def test_any_few_steps_give_finite_latents_at_the_promised_cost(name: str, schedule: str) -> None:
    for steps in (1, 2, 3, 5, 20):
        for strength in STRENGTHS:
            draw(name, schedule, steps, strength)


@pytest.mark.parametrize("name", names())
def test_a_thousand_steps_give_finite_latents_at_the_promised_cost(name: str) -> None:
    draw(name, "default", 1000, None)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "schedule"), PAIRS)
def test_a_thousand_steps_work_at_any_schedule_and_strength(name: str, schedule: str) -> None:
    for strength in STRENGTHS:
        draw(name, schedule, 1000, strength)


@pytest.mark.parametrize("name", names())
def test_too_little_strength_for_a_step_returns_the_picture_unchanged(name: str) -> None:
    task = task_of(steps=20, init=INIT, strength=0.04)
    run = drive(name, task, GAUSSIAN.denoised)
    assert not run.evaluations
    assert torch.equal(run.latent, INIT)


@pytest.mark.parametrize(("name", "schedule"), PAIRS)
def test_img2img_starts_at_the_noise_level_that_it_claims(name: str, schedule: str) -> None:
    for strength in (0.3, 0.75, 1.0):
        task = task_of(steps=12, schedule=schedule, init=INIT, strength=strength)
        first = next(registry().get(name).sample(task))
        sigma = SD15.sigma(float(first.timestep))
        expected = (INIT + sigma * task.noise) / (1 + sigma**2) ** 0.5
        # Behind "karras", diffusers rounds the timestep that the model is told, not its level.
        rounded = schedule == "karras" and float(first.timestep).is_integer()
        assert (first.latent - expected).abs().max() < (0.05 if rounded else 1e-4)


@pytest.mark.parametrize(("name", "schedule"), [pair for pair in PAIRS if pair[0] != "pndm"])
def test_img2img_joins_the_schedule_where_txt2img_passes(name: str, schedule: str) -> None:
    """All but PNDM: diffusers starts that one step early, see docs/samplers.md."""
    for steps, strength in ((10, 0.5), (11, 0.8)):
        whole = drive(name, task_of(steps=steps, schedule=schedule), GAUSSIAN.denoised)
        task = task_of(steps=steps, schedule=schedule, init=INIT, strength=strength)
        first = next(registry().get(name).sample(task))
        passed = next(e for e in whole.evaluations if e.step == task.first_step)
        assert float(first.timestep) == pytest.approx(float(passed.timestep), abs=1e-3)


@pytest.mark.parametrize("name", names())
def test_two_interleaved_runs_of_a_sampler_equal_each_alone(name: str) -> None:
    tasks: list[dict[str, Any]] = [
        {"steps": 6, "seed": 1},
        {"steps": 9, "seed": 2, "init": INIT, "strength": 0.8},
    ]
    alone = [drive(name, task_of(**task), GAUSSIAN.denoised).latent for task in tasks]
    sample = registry().get(name).sample
    running = {i: sample(task_of(**task)) for i, task in enumerate(tasks)}
    wanted: dict[int, Evaluation | None] = dict.fromkeys(running)
    latents: dict[int, torch.Tensor] = {}
    while len(latents) < len(tasks):
        for i in running.keys() - latents.keys():
            want = wanted[i]
            sent: Any = None if want is None else answer(SD15, want, GAUSSIAN.denoised)
            try:
                wanted[i] = running[i].send(sent)
            except StopIteration as stop:
                latents[i] = stop.value
    assert all(torch.equal(latents[i], alone[i]) for i in latents)


@pytest.mark.parametrize("name", names())
def test_noise_on_the_way_comes_from_the_task_s_generator_if_the_row_says_so(name: str) -> None:
    latents = []
    for others, seed in ((1, 5), (2, 5), (2, 6)):
        torch.manual_seed(others)
        task = replace(task_of(steps=20), generator=torch.Generator().manual_seed(seed))
        latents.append(drive(name, task, GAUSSIAN.denoised).latent)
    assert torch.equal(latents[0], latents[1])
    assert torch.equal(latents[1], latents[2]) != registry().get(name).stochastic


@pytest.mark.parametrize(("name", "schedule"), PAIRS)
def test_a_sampler_never_reads_back_from_the_device(name: str, schedule: str) -> None:
    """On torch's meta device, which has shapes and no values, reading a value raises."""
    for strength in (None, 0.6):
        task = task_of(steps=5, schedule=schedule)
        elsewhere: dict[str, Any] = {"noise": task.noise.to("meta")}
        if strength is not None:
            elsewhere |= {"init": INIT.to("meta"), "strength": strength}
        sampling = registry().get(name).sample(replace(task, **elsewhere))
        prediction: Any = None
        with suppress(StopIteration):
            while True:
                evaluation = sampling.send(prediction)
                assert evaluation.latent.device.type == "meta"
                assert float(evaluation.timestep) >= 0
                prediction = torch.empty(task.noise.shape, device="meta")
