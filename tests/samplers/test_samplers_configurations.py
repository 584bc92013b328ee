"""A sampler is its method whatever scheduler a model's folder was saved with."""

from __future__ import annotations

import inspect
import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from imagine_core import SamplingTask
from imagine_core.noise import VariancePreserving
from imagine_core.testing.sampler_driving import GAUSSIAN, task_of
from imagine_plugins.samplers import diffusers_schedulers
from imagine_plugins.samplers.diffusers_schedulers import Row
from imagine_plugins.samplers.scheduler_options import OF_THE_MODEL
from samplers.driving import drive, names

# Stable Diffusion 1.5 in a tenth of its levels: diffusers fills its tables ten times as fast.
TRAINED: dict[str, Any] = {
    "num_train_timesteps": 100,
    "beta_start": 0.0085,
    "beta_end": 0.12,
    "beta_schedule": "scaled_linear",
}
MODEL = {
    *TRAINED,
    *("trained_betas", "prediction_type", "rescale_betas_zero_snr"),
    *("timestep_spacing", "steps_offset", "use_karras_sigmas"),
    *("original_inference_steps", "timestep_scaling"),
}
OWN = dict.fromkeys(
    (
        *("thresholding", "clip_sample", "set_alpha_to_one", "skip_prk_steps", "lower_order_final"),
        *("euler_at_final", "predict_x0", "use_exponential_sigmas", "use_beta_sigmas"),
        *("use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting"),
    ),
    (True, False),
) | {
    "dynamic_thresholding_ratio": (0.5,),
    "clip_sample_range": (0.1,),
    "sample_max_value": (0.1,),
    "variance_type": ("fixed_large", "fixed_small_log", "learned", "learned_range"),
    "solver_order": (1, 2, 3),
    "solver_type": ("midpoint", "heun", "logrho", "bh1", "bh2"),
    "algorithm_type": (
        *("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"),
        *("data_prediction", "noise_prediction"),
    ),
    "final_sigmas_type": ("zero", "sigma_min"),
    "lambda_min_clipped": (-5.1,),
    "flow_shift": (3.0,),
    "time_shift_type": ("linear", "exponential"),
    "shift_terminal": (0.1,),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete", "continuous"),
    "sigma_min": (0.1,),
    "sigma_max": (10.0,),
    "disable_corrector": ([0, 1, 2],),
    "solver_p": ({"_class_name": "DDIMScheduler"},),
    "predictor_order": (1, 3),
    "corrector_order": (1, 3),
    "tau_func": ("lambda t: 1",),
    "eta": (0.5,),
    "noise_sampler_seed": (1,),
}
"""Options that say how to solve, with values that others than ours may have."""

OTHER_MODELS = {
    "of pixels, not of latents": ["UnCLIP"],
    "of videos, with another schedule of signal": ["CogVideoXDDIM", "CogVideoXDPM"],
    "of levels of their own, without betas": [
        *("CMStochasticIterative", "DDPMWuerstchen", "EDMDPMSolverMultistep", "EDMEuler"),
        *("CosineDPMSolverMultistep", "IPNDM", "KarrasVe", "ScoreSdeVe", "SCM"),
    ],
    "of flows": [
        *("FlowMapEulerDiscrete", "FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete"),
        *("FlowMatchLCM", "Helios", "HeliosDMD", "LTXEulerAncestralRF", "MiniMaxH3", "Piflow"),
        "RFD4Proteina",
    ],
    "of tokens": ["Amused", "BlockRefinement", "DiscreteDDIM", "EntropyBound", "VQDiffusion"],
}
UNBUILT = {"DPMSolverSDE": {"_class_name": "DPMSolverSDEScheduler", "noise_sampler_seed": None}}
"""What is saved by schedulers that want a package which is not installed."""

ROWS = [pytest.param(row, id=row.name) for row in diffusers_schedulers.SAMPLERS]
CLASSES = [name.removesuffix("Scheduler") for name in dir(diffusers) if name.endswith("Scheduler")]
LATENT = [name for name in CLASSES if not any(name in kinds for kinds in OTHER_MODELS.values())]


@cache
def parameters(name: str) -> frozenset[str]:
    taken = inspect.signature(getattr(diffusers, f"{name}Scheduler").__init__).parameters
    return frozenset(taken) - {"self", "args", "kwargs"}


def saved(name: str, folder: Path) -> dict[str, Any]:
    """The configuration that a folder has of a scheduler of that class."""
    if name in UNBUILT:
        return TRAINED | UNBUILT[name]
    known = {key: value for key, value in TRAINED.items() if key in parameters(name)}
    getattr(diffusers, f"{name}Scheduler")(**known).save_config(folder)
    content: dict[str, Any] = json.loads((folder / "scheduler_config.json").read_text("utf-8"))
    return content


@cache
def latent(sampler: str, config: str, schedule: str = "default") -> torch.Tensor:
    return drive(sampler, task(config, schedule), GAUSSIAN.denoised).latent


def task(config: str, schedule: str = "default", steps: int = 4) -> SamplingTask:
    return task_of(
        steps=steps, schedule=schedule, noise_model=VariancePreserving(json.loads(config))
    )


def away(sampler: str, one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of the latents that two configurations give."""
    a, b = (latent(sampler, json.dumps(each, sort_keys=True)) for each in (one, other))
    return float((a - b).abs().max())


def test_each_class_of_diffusers_is_tried_or_belongs_to_other_models() -> None:
    others = [name for kinds in OTHER_MODELS.values() for name in kinds]
    assert sorted([*LATENT, *others]) == sorted(CLASSES)
    assert all({"beta_start", "beta_end"} <= parameters(n) for n in {*LATENT} - {*UNBUILT})


def test_each_option_of_those_classes_is_the_models_or_the_solvers() -> None:
    options = {option for name in LATENT for option in parameters(name)}
    assert options <= MODEL | {*OWN}
    assert not MODEL & {*OWN}
    assert OF_THE_MODEL == MODEL


@pytest.mark.parametrize("sampler", names())
def test_a_sampler_draws_alike_whatever_scheduler_the_folder_was_saved_with(
    sampler: str, tmp_path: Path
) -> None:
    spacing = {"timestep_spacing": "leading", "steps_offset": 1}
    for name in LATENT:
        assert away(sampler, saved(name, tmp_path) | spacing, TRAINED | spacing) <= 1e-4, name


@pytest.mark.parametrize("row", ROWS)
def test_no_single_option_of_a_solver_changes_what_a_sampler_draws(row: Row) -> None:
    for option in sorted(parameters(row.scheduler) - MODEL):
        for value in OWN[option]:
            assert away(row.name, TRAINED | {option: value}, TRAINED) <= 1e-4, (option, value)


def test_an_option_that_says_nothing_is_as_good_as_none() -> None:
    nothing = TRAINED | dict.fromkeys(MODEL - {*TRAINED} - {"prediction_type"})
    for sampler in names():
        assert away(sampler, nothing, TRAINED) == 0, sampler


@pytest.mark.parametrize(
    ("sampler", "option", "value"),
    [
        ("euler", "use_karras_sigmas", True),
        ("lcm", "original_inference_steps", 20),
        ("lcm", "timestep_scaling", 0.01),
        ("dpm++ 2m", "trained_betas", [0.01] * 100),
        ("dpm++ 3m", "trained_betas", [0.01] * 100),
        ("dpm++ 2m", "rescale_betas_zero_snr", True),
    ],
)
def test_what_the_configuration_says_of_the_model_counts(
    sampler: str, option: str, value: object
) -> None:
    assert away(sampler, TRAINED | {option: value}, TRAINED) > 1e-2


@pytest.mark.parametrize(
    ("spacing", "offset"), [("leading", 0), ("leading", 1), ("linspace", 1), ("trailing", 1)]
)
@pytest.mark.parametrize("row", ROWS)
def test_the_default_schedule_is_spaced_as_diffusers_spaces_it_for_the_model(
    row: Row, spacing: str, offset: int
) -> None:
    config = TRAINED | {"timestep_spacing": spacing, "steps_offset": offset}
    run = drive(row.name, task(json.dumps(config), steps=7), GAUSSIAN.denoised)
    seen = [float(evaluation.timestep) for evaluation in run.evaluations]
    assert seen == pytest.approx(theirs(row, config), abs=1e-3)


def theirs(row: Row, config: dict[str, Any]) -> list[float]:
    kind = getattr(diffusers, f"{row.scheduler}Scheduler")
    fixed = {"set_alpha_to_one": False, "skip_prk_steps": True, "lower_order_final": True}
    scheduler = kind.from_config({**config, **fixed, **row.options})
    scheduler.set_timesteps(7)
    return [float(t) for t in scheduler.timesteps]


@pytest.mark.parametrize("sampler", names())
def test_a_model_that_predicts_the_picture_is_sampled_as_one_that_predicts_the_noise(
    sampler: str,
) -> None:
    assert away(sampler, TRAINED | {"prediction_type": "sample"}, TRAINED) < 1e-3


def test_ddim_without_any_signal_at_the_start_is_eulers_method_on_its_levels() -> None:
    """Song et al. 2021, section 4.3; the last step ends at the cleanest trained level."""
    config = TRAINED | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    asked = task(json.dumps(config), steps=5)
    run = drive("ddim", asked, GAUSSIAN.denoised)
    model = asked.noise_model
    levels = [model.sigma(float(e.timestep)) for e in run.evaluations] + [model.sigma_min]
    x = asked.noise.double() * (1 + levels[0] ** 2) ** 0.5
    for high, low in pairwise(levels):
        x0 = GAUSSIAN.denoised(x, high)
        x = x0 + (x - x0) * (low / high)
    assert levels[0] == pytest.approx(4096, rel=1e-3)
    expected = x / (1 + levels[-1] ** 2) ** 0.5
    assert (run.latent - expected).abs().max() < 1e-3


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "lcm", "tcd"])
def test_without_any_signal_at_the_start_epsilon_draws_what_v_draws(sampler: str) -> None:
    config = TRAINED | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    assert away(sampler, config, config | {"prediction_type": "v_prediction"}) < 2e-3
