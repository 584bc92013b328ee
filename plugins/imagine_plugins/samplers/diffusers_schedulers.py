"""The samplers that diffusers' schedulers implement: one adapter, and a table of one row each.

References:
    ddim: Song et al. 2020, arXiv:2010.02502.
    ddpm: Ho et al. 2020, arXiv:2006.11239.
    deis: Zhang & Chen 2022, arXiv:2204.13902.
    dpm++ 2m, 2s, 2m sde: Lu et al. 2022, arXiv:2211.01095.
    euler, euler a, heun, dpm2, dpm2 a: Karras et al. 2022, arXiv:2206.00364, algorithm 1.
    lcm: Luo et al. 2023, arXiv:2310.04378.
    pndm: Liu et al. 2022, arXiv:2202.09778.
    sa-solver: Xue et al. 2023, arXiv:2309.05019.
    tcd: Zheng et al. 2024, arXiv:2402.19159.
    unipc: Zhao et al. 2023, arXiv:2302.04867.
"""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from imagine_core import Evaluation, SamplerSpec, Sampling, SamplingTask, hookimpl
from imagine_core.noise import VariancePreserving
from imagine_core.sampling import sigma_sampler
from imagine_core.schedules import SCHEDULES, noise_levels
from imagine_plugins.samplers.flow import WALKS
from imagine_plugins.samplers.scheduler_options import prototype

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

EVERY = tuple(SCHEDULES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sampler of the table.

    Attributes:
        scheduler: Name of diffusers' class, without its "Scheduler".
        options: Arguments of its constructor.
        step: Arguments of its `step`.
        elsewhere: The class that is the same method on any list of noise levels, where
            `scheduler` is tied to its own spacing.
    """

    name: str
    label: str
    scheduler: str
    schedules: tuple[str, ...] = EVERY
    aliases: tuple[str, ...] = ()
    evaluations: int = 1
    stochastic: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    step: Mapping[str, Any] = field(default_factory=dict)
    elsewhere: str | None = None


def row(
    name: str,
    label: str,
    scheduler: str,
    evaluations: int,
    stochastic: bool,  # noqa: FBT001 - ODE or SDE
    *aliases: str,
    **rest: Any,
) -> Row:
    """A row, short enough for a line."""
    return Row(
        name=name,
        label=label,
        scheduler=scheduler,
        evaluations=evaluations,
        stochastic=stochastic,
        aliases=aliases,
        **rest,
    )


Options = dict[str, Any]
SDE_SOLVER = {"algorithm_type": "sde-dpmsolver++"}

ODE, SDE = False, True  # whether noise is added on the way
FIXED: Options = {"schedules": ("default",)}  # tied to the spacing of its own timesteps
NOISED: Options = {"options": SDE_SOLVER}
NOISED_HEUN: Options = {"options": SDE_SOLVER | {"solver_type": "heun"}}
GAMMA: Options = {"step": {"eta": 0.3}}  # Zheng et al. 2024, "Trajectory Consistency Distillation"
EULER, EULER_A = "EulerDiscrete", "EulerAncestralDiscrete"

# fmt: off
SAMPLERS = (
    row("ddim",         "DDIM",         "DDIM",                   1, ODE, elsewhere=EULER),
    row("euler",        "Euler",        "EulerDiscrete",          1, ODE),
    row("euler a",      "Euler a",      "EulerAncestralDiscrete", 1, SDE, "euler_ancestral"),
    row("heun",         "Heun",         "HeunDiscrete",           2, ODE),
    row("lms",          "LMS",          "LMSDiscrete",            1, ODE),
    row("dpm++ 2m",     "DPM++ 2M",     "DPMSolverMultistep",     1, ODE, "dpmpp_2m"),
    row("dpm++ 2s",     "DPM++ 2S",     "DPMSolverSinglestep",    1, ODE, "dpmpp_2s"),
    row("dpm2",         "DPM2",         "KDPM2Discrete",          2, ODE, "dpm_2"),
    row("dpm2 a",       "DPM2 a",       "KDPM2AncestralDiscrete", 2, SDE, "dpm_2_ancestral"),
    row("dpm++ 2m sde", "DPM++ 2M SDE", "DPMSolverMultistep",     1, SDE, "dpmpp_2m_sde", **NOISED),
    row("dpm++ 2m sde heun", "DPM++ 2M SDE Heun", "DPMSolverMultistep", 1, SDE, **NOISED_HEUN),
    row("unipc",        "UniPC",        "UniPCMultistep",         1, ODE, "uni_pc"),
    row("deis",         "DEIS",         "DEISMultistep",          1, ODE),
    row("sa-solver",    "SA-Solver",    "SASolver",               1, SDE, "sa_solver", **FIXED),
    row("pndm",         "PNDM",         "PNDM",                   1, ODE, **FIXED),
    row("ddpm",         "DDPM",         "DDPM",                   1, SDE, elsewhere=EULER_A),
    row("lcm",          "LCM",          "LCM",                    1, SDE, **FIXED),
    row("tcd",          "TCD",          "TCD",                    1, SDE, **FIXED, **GAMMA),
)
# fmt: on

# What a model's configuration may say of noise levels, where a schedule of ours says it.
OWN_LEVELS: Options = {"timestep_spacing": "linspace", "use_karras_sigmas": False}


def sample(row: Row, task: SamplingTask) -> Sampling:
    """Drive the row's scheduler; every call of its `step` is one evaluation."""
    first, scheduler = task.first_step, _scheduler(row, task)
    if task.init is not None and first == task.steps:
        return task.init  # at strength 0
    begin = first * scheduler.order
    timesteps = scheduler.timesteps[begin:]
    if hasattr(scheduler, "set_begin_index"):  # else looked up by value, and values may repeat
        scheduler.set_begin_index(begin)
    x = _start(scheduler, timesteps[:1], task)
    parameters = inspect.signature(scheduler.step).parameters
    extra = {"generator": task.generator} if "generator" in parameters else {}
    for i, t in enumerate(timesteps):
        step = i * (task.steps - first) // len(timesteps)
        latent = scheduler.scale_model_input(x, t)
        prediction = yield Evaluation(latent, t, step)
        if scheduler.config.prediction_type != task.noise_model.prediction_type:
            prediction = _epsilon(task, latent, float(t), prediction)
        x = scheduler.step(prediction, t, x, return_dict=False, **row.step, **extra)[0]
    return x


def _epsilon(
    task: SamplingTask, latent: torch.Tensor, timestep: float, original: torch.Tensor
) -> torch.Tensor:
    """The noise in a latent whose x0 is `original`, for schedulers that take no x0."""
    sigma = task.noise_model.sigma(timestep)
    return (latent / task.noise_model.signal(sigma) - original) / sigma


def _start(scheduler: Any, timestep: torch.Tensor, task: SamplingTask) -> torch.Tensor:
    """The first latent. img2img: the scheduler says how much signal and noise its level mixes."""
    import torch

    if task.init is None:
        return task.noise * float(scheduler.init_noise_sigma)
    one, zero = torch.ones(1), torch.zeros(1)  # on the CPU: add_noise moves tables to the latent's
    signal = float(scheduler.add_noise(one, zero, timestep))
    return task.init * signal + task.noise * float(scheduler.add_noise(zero, one, timestep))


def _scheduler(row: Row, task: SamplingTask) -> Any:
    """A scheduler of this job's own, its timesteps set."""
    plain, name, options = task.schedule == "default", row.scheduler, dict(row.options)
    if task.steps in (1, task.noise_model.train_steps):
        # "linspace" and "leading" start a single step at the clean end, and step out of the table
        # or twice on one level when they take them all; "trailing" does neither.
        options["timestep_spacing"] = "trailing"
    if not plain:
        name = row.elsewhere or row.scheduler
        options |= OWN_LEVELS | {f"use_{_door(task)}_sigmas": True}
    assert isinstance(task.noise_model, VariancePreserving)
    scheduler = copy.deepcopy(prototype(name, task.noise_model.config, options))
    if plain:
        _set_timesteps(scheduler, task.steps)
    else:
        _set_levels(scheduler, task)
    if hasattr(scheduler, "get_lms_coefficient"):
        scheduler.get_lms_coefficient = partial(_lms_weight, scheduler.sigmas.tolist())
    return scheduler


def _set_timesteps(scheduler: Any, steps: int) -> None:
    grid = scheduler.config.get("original_inference_steps")
    if grid is not None and steps > grid:  # LCM and TCD pick from the grid of their distillation
        grid = scheduler.config.num_train_timesteps
        scheduler.set_timesteps(steps, original_inference_steps=grid)
    else:
        scheduler.set_timesteps(steps)


def _door(task: SamplingTask) -> str:
    """Which of diffusers' own schedules ours takes the place of.

    Behind "karras", schedulers round the timesteps, and so must we to draw what diffusers draws.
    """
    return "karras" if task.schedule == "karras" else "exponential"


def _set_levels(scheduler: Any, task: SamplingTask) -> None:
    """Run the scheduler on our noise levels, so that a schedule is the same for every sampler.

    diffusers' own differ from class to class: its "beta" spreads quantiles over sigma where the
    paper has them over time, and its multistep solvers cut timesteps off to integers.
    """
    import torch

    levels = _levels(scheduler, task)
    timesteps = torch.tensor([task.noise_model.timestep(sigma) for sigma in levels[:-1]])
    convert = f"_convert_to_{_door(task)}"
    if hasattr(scheduler, convert):
        setattr(scheduler, convert, partial(_given, levels[:-1]))
    scheduler.set_timesteps(task.steps)
    if len(scheduler.sigmas) == len(levels):  # second-order schedulers interleave more of them
        scheduler.sigmas = torch.tensor(levels)
        if _door(task) != "karras" or not hasattr(scheduler, convert):
            scheduler.timesteps = timesteps


def _levels(scheduler: Any, task: SamplingTask) -> list[float]:
    """The noise levels to run on; DEIS integrates to the cleanest trained one, never to 0."""
    levels = noise_levels(task.noise_model, task.steps, task.schedule)
    if scheduler.config.get("algorithm_type") != "deis":
        return levels
    cleanest = task.noise_model.sigma_min
    if math.isclose(levels[-2], cleanest):
        return noise_levels(task.noise_model, task.steps + 1, task.schedule)[:-1]
    return [*levels[:-1], cleanest]


def _lms_weight(sigmas: list[float], order: int, t: int, current_order: int) -> float:
    """The integral of a Lagrange polynomial over step t, by Gauss's rule of two nodes.

    That rule is exact for the cubics at hand; diffusers asks an adaptive one: 4 ms a step.
    """
    others = [sigmas[t - k] for k in range(order) if k != current_order]
    middle, half = (sigmas[t + 1] + sigmas[t]) / 2, (sigmas[t + 1] - sigmas[t]) / 2
    nodes = middle - half / math.sqrt(3), middle + half / math.sqrt(3)
    own = sigmas[t - current_order]
    return half * sum(math.prod((x - s) / (own - s) for s in others) for x in nodes)


def _given(levels: list[float], **_: Any) -> Any:
    import numpy as np

    return np.array(levels)


def spec(row: Row) -> SamplerSpec:
    """The row as the core knows it; `flow` has its method for flow models, if there is one."""
    own = SamplerSpec(
        name=row.name,
        label=row.label,
        sample=partial(sample, row),
        aliases=row.aliases,
        schedules=row.schedules,
        evaluations=row.evaluations,
        stochastic=row.stochastic,
    )
    if row.name not in WALKS:
        return own
    flow = sigma_sampler(
        WALKS[row.name], name=row.name, label=row.label, evaluations=row.evaluations
    )
    return replace(own, sample=partial(_sample, own, flow), noise=own.noise | {"flow"})


def _sample(vp: SamplerSpec, flow: SamplerSpec, task: SamplingTask) -> Sampling:
    """The sampling by the method for the noise at hand."""
    return (flow if task.noise_model.kind == "flow" else vp).sample(task)


@hookimpl
def register_samplers(register: Callable[[SamplerSpec], None]) -> None:
    """Register the table."""
    for each in SAMPLERS:
        register(spec(each))
