"""The rules of samplers, each with the check that raises if it is broken."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Any

import torch

from imagine_core.interfaces import SamplingTask
from imagine_core.noise import NoiseModel, VariancePreserving
from imagine_core.sampling import resolve_sampler
from imagine_core.testing.sampler_driving import CLEAN, FLOW, GAUSSIAN, SD15, WIDE, answer, drive
from imagine_core.testing.sampler_runs import INIT, Sampled

STRENGTHS = (None, 0.05, 0.3, 0.6, 1.0)
NEAR = 0.08
"""How far from the right mean and covariance 4096 pixels may be by chance and by their steps."""

V_CONFIG = SD15.config | {"prediction_type": "v_prediction"}
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


# --------------------------------------------------------------------------- what it says of itself


def registered(sampled: Sampled) -> None:
    """It is registered, under names that requests can ask for."""
    spec = sampled.plugins.samplers.get(sampled.name)
    for name in (spec.name, *spec.aliases):
        assert name == " ".join(name.lower().split()), f"its name {name!r} is not in lower case"
    assert isinstance(spec.label, str), f"its label is {spec.label!r}"
    assert spec.label.strip(), "its label is empty"
    assert isinstance(spec.stochastic, bool), f"`stochastic` is {spec.stochastic!r}"
    assert isinstance(spec.evaluations, int), f"`evaluations` is {spec.evaluations!r}"
    assert spec.evaluations >= 1, f"`evaluations` is {spec.evaluations}"
    assert spec.noise, "it knows no noise: `noise` is empty"


def schedules(sampled: Sampled) -> None:
    """Each schedule that it claims can be asked for."""
    spec = sampled.plugins.samplers.get(sampled.name)
    assert "default" in spec.schedules, 'it has no schedule "default"'
    assert len({*spec.schedules}) == len(spec.schedules), "it names a schedule twice"
    for schedule in spec.schedules:
        found = resolve_sampler(sampled.plugins.samplers, spec.name, schedule)
        assert found == (spec, schedule), f"nobody can ask for its schedule {schedule!r}"


def evaluations(sampled: Sampled) -> None:
    """It yields evaluations and returns a latent; `_watched` looks."""
    for _, task in sampled.runs:
        drive(sampled.spec, task, GAUSSIAN.denoised)


def numbering(sampled: Sampled) -> None:
    """Its steps are numbered 0, 1, 2, ... without a gap."""
    for where, task in sampled.runs:
        steps = drive(sampled.spec, task, GAUSSIAN.denoised).steps
        assert steps == sorted(steps), f"its steps go back {where}: {steps}"
        wanted = list(range(task.steps - task.first_step))
        assert sorted({*steps}) == wanted, f"its steps are {steps} {where}, not {wanted}"


def cost(sampled: Sampled) -> None:
    """It takes as many evaluations per step as it says, but for the first or the last step."""
    each = sampled.spec.evaluations
    for where, task in sampled.runs:
        taken = len(drive(sampled.spec, task, GAUSSIAN.denoised).evaluations)
        steps = task.steps - task.first_step
        least, most = steps * each - (each - 1), steps * each + each
        said = f"it says {each} a step, and takes {taken} for {steps} steps {where}"
        assert least <= taken <= most, said


# ---------------------------------------------------------------------------------- what it makes


def finite(sampled: Sampled) -> None:
    """No NaN and no infinity, however many steps, whichever schedule and strength."""
    for run in product(sampled.spec.schedules, STRENGTHS, sampled.steps):
        where, task = sampled.task(*run)
        latent = drive(sampled.spec, task, GAUSSIAN.denoised).latent
        assert latent.isfinite().all(), f"its latent is not finite {where}"


def start(sampled: Sampled) -> None:
    """It starts at the noise of the task, and from a picture at the noise level that it names."""
    for where, task in sampled.runs:
        sampling = sampled.spec.sample(task)
        first = next(sampling)
        sampling.close()
        sigma = task.noise_model.sigma(float(first.timestep))
        noised = task.noise * sigma + (0 if task.init is None else task.init)
        expected = noised * task.noise_model.signal(sigma)
        away = float((first.latent - expected).abs().max())
        # 0.05 is what it makes of a timestep to be rounded, as diffusers does behind "karras".
        assert away < 0.05, f"its first latent is {away:.2f} from where it says it starts {where}"


def exact(sampled: Sampled) -> None:
    """The pictures have the mean and the covariance that the model knows."""
    away = GAUSSIAN.distance(sampled.latent(WIDE, steps=250))
    assert away < NEAR, f"mean or covariance are {away:.2f} away from what they should be"


def img2img(sampled: Sampled) -> None:
    """Noised data are what the model was trained on: they end as data, nothing shifts or swells."""
    nothing = sampled.latent(steps=20, init=INIT, strength=0.0)
    assert torch.equal(nothing, INIT), "a strength of 0 changes the picture"
    for strength in (0.35, 0.8):
        init = GAUSSIAN.draw(WIDE).float()
        latent = sampled.latent(WIDE, steps=120, init=init, strength=strength)
        away = GAUSSIAN.distance(latent)
        said = f"mean or covariance are {away:.2f} away from the data's at strength {strength}"
        assert away < NEAR, said


def convergence(sampled: Sampled) -> None:
    """A deterministic one comes nearer to the exact end of its path the more steps it takes."""
    if sampled.spec.stochastic:
        return
    noise_model = CLEAN if sampled.knows_vp else FLOW
    coarse, fine = (_error(sampled, steps, noise_model) for steps in (24, 72))
    if coarse < 1e-4:  # exact on this problem
        return
    measured = math.log(coarse / fine, 3)
    said = f"its error is {coarse:.2g} in 24 steps and {fine:.2g} in 72"
    assert measured > sampled.order - 0.25, f"{said}: order {measured:.2f}, not {sampled.order}"
    assert fine < 0.25 / 5 ** (sampled.order - 1), f"{said}, which is much"


def _error(sampled: Sampled, steps: int, noise_model: NoiseModel) -> float:
    """The largest distance from the exact end of the path that the sampler set out on."""
    schedule = "exponential" if "exponential" in sampled.spec.schedules else "default"
    task = sampled.task_of(steps=steps, schedule=schedule, noise_model=noise_model)
    run = drive(sampled.spec, task, sampled.predict)
    first = run.evaluations[0]
    sigma = noise_model.sigma(float(first.timestep))
    end = GAUSSIAN.flowed(first.latent.double() / noise_model.signal(sigma), sigma)
    return float((run.latent - end).abs().max())


def v_prediction(sampled: Sampled) -> None:
    """A model that predicts v gives the same picture as one that predicts epsilon."""
    if not sampled.knows_vp:
        return
    v = sampled.latent(steps=7, noise_model=VariancePreserving(V_CONFIG))
    away = float((sampled.latent(steps=7) - v).abs().max())
    assert away < 1e-3, f"a model that predicts v gives a latent that is {away:.2g} away"


def zero_snr(sampled: Sampled) -> None:
    """Whatever it predicts, a model without any signal at its noisiest level makes its pictures."""
    for config in (SD15.config, V_CONFIG) if sampled.knows_vp else ():
        noise_model = VariancePreserving(config | ZERO_SNR)
        away = GAUSSIAN.distance(sampled.latent(WIDE, steps=100, noise_model=noise_model))
        said = f"mean or covariance are {away:.2f} away with zero terminal SNR"
        assert away < 1.5 * NEAR, f"{said} and a model that predicts {noise_model.prediction_type}"


def flow(sampled: Sampled) -> None:
    """A model trained on straight lines gives the right pictures too, where the sampler says so."""
    if "flow" not in sampled.plugins.samplers.get(sampled.name).noise:
        return
    away = GAUSSIAN.distance(sampled.latent(WIDE, steps=250, noise_model=FLOW))
    assert away < NEAR, f"mean or covariance are {away:.2f} away with a flow model"
    init = GAUSSIAN.draw(WIDE).float()
    latent = sampled.latent(WIDE, steps=120, init=init, strength=0.8, noise_model=FLOW)
    away = GAUSSIAN.distance(latent)
    assert away < NEAR, f"mean or covariance are {away:.2f} away from a picture with a flow model"
    for schedule, steps in product(sampled.spec.schedules, (1, 2, 7)):
        latent = sampled.latent(steps=steps, schedule=schedule, noise_model=FLOW)
        said = f"in {steps} steps of the schedule {schedule!r} with a flow model"
        assert latent.isfinite().all(), f"its latent is not finite {said}"


# ------------------------------------------------------------------------------ how it gets along


def seed(sampled: Sampled) -> None:
    """A seed gives one picture; chance comes from the task's generator and from nowhere else."""
    before = torch.get_rng_state()
    try:
        latents = []
        for others in (1, 2):
            torch.manual_seed(others)
            state = torch.get_rng_state()
            latents.append(sampled.latent(steps=20))
            untouched = torch.equal(state, torch.get_rng_state())
            assert untouched, "it draws from torch's global generator, not from the task's"
        assert torch.equal(*latents), "the same seed gives another picture the second time"
    finally:
        torch.set_rng_state(before)


def stochastic(sampled: Sampled) -> None:
    """It adds noise on the way if, and only if, it says so."""
    latents = []
    for other in (5, 6):
        task = replace(sampled.task_of(steps=20), generator=torch.Generator().manual_seed(other))
        latents.append(drive(sampled.spec, task, GAUSSIAN.denoised).latent)
    adds = not torch.equal(*latents)
    said = "adds noise on the way" if adds else "adds no noise on the way"
    claim = f"says `stochastic={sampled.spec.stochastic}`"
    assert adds == sampled.spec.stochastic, f"it {said}, but {claim}"


def company(sampled: Sampled) -> None:
    """Two samplings that take turns end as each does alone."""
    both: list[dict[str, Any]] = [
        {"steps": 6, "seed": 1},
        {"steps": 9, "seed": 2, "init": INIT, "strength": 0.8},
    ]
    alone, beside = ([sampled.task_of(**each) for each in both] for _ in range(2))
    together = dict(_taking_turns(sampled, beside))
    for number, task in enumerate(alone):
        latent = drive(sampled.spec, task, GAUSSIAN.denoised).latent
        said = "a sampling ends elsewhere when another runs beside it"
        assert torch.equal(together[number], latent), said


def _taking_turns(
    sampled: Sampled, tasks: list[SamplingTask]
) -> Iterator[tuple[int, torch.Tensor]]:
    samplings = [sampled.spec.sample(task) for task in tasks]
    sent: dict[int, Any] = dict.fromkeys(range(len(samplings)))
    while sent:
        for number in list(sent):
            try:
                wanted = samplings[number].send(sent[number])
            except StopIteration as stop:
                del sent[number]
                yield number, stop.value
            else:
                sent[number] = answer(tasks[number].noise_model, wanted, GAUSSIAN.denoised)


def closing(sampled: Sampled) -> None:
    """Closing it, at any time, ends it without a sound."""
    for started in range(4):
        sampling = sampled.plugins.samplers.get(sampled.name).sample(sampled.task_of())
        prediction: Any = None
        for _ in range(started):
            prediction = answer(sampled.noise_model, sampling.send(prediction), GAUSSIAN.denoised)
        sampling.close()


def device(sampled: Sampled) -> None:
    """It stays on the device and never waits for it: torch's meta device has no values to read."""
    for _, task in sampled.runs:
        there = replace(
            task,
            noise=task.noise.to("meta"),
            init=None if task.init is None else task.init.to("meta"),
        )
        sampling, prediction = sampled.spec.sample(there), None
        with suppress(StopIteration):
            while True:
                wanted = sampling.send(prediction)  # type: ignore[arg-type]
                where = wanted.latent.device.type
                assert where == "meta", f"its latents come from the device to the {where}"
                prediction = torch.empty(task.noise.shape, device="meta")


RULES: tuple[tuple[str, Callable[[Sampled], None]], ...] = (
    ("sampler-registered", registered),
    ("sampler-schedules", schedules),
    ("sampler-evaluations", evaluations),
    ("sampler-closing", closing),
    ("sampler-numbering", numbering),
    ("sampler-cost", cost),
    ("sampler-stochastic", stochastic),
    ("sampler-seed", seed),
    ("sampler-company", company),
    ("sampler-start", start),
    ("sampler-exact", exact),
    ("sampler-img2img", img2img),
    ("sampler-convergence", convergence),
    ("sampler-v-prediction", v_prediction),
    ("sampler-zero-snr", zero_snr),
    ("sampler-flow", flow),
    ("sampler-device", device),
    ("sampler-finite", finite),
)
