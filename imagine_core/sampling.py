"""What samplers stand on: the noise levels of a model, and generators in sigma space.

The variance-preserving form (Ho et al. 2020) is x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps; the
variance-exploding form (Karras et al. 2022, "sigma space") is x = x0 + sigma eps, with
sigma_t = sqrt((1 - abar_t) / abar_t), and equals the first times sqrt(1 + sigma^2).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from imagine_core.errors import FieldError, RequestError, UnknownName
from imagine_core.interfaces import Evaluation, SamplerSpec, Sampling, SamplingTask
from imagine_core.schedules import SCHEDULES, noise_levels

if TYPE_CHECKING:
    import torch

    from imagine_core.registry import Registry

NO_SIGNAL = 2**-24
"""abar of a level that has none, as diffusers has it: an exact zero is an infinite sigma."""


class NoiseModel:
    """The noise levels that a model was trained on, and what it predicts.

    Args:
        config: A diffusers scheduler configuration: `num_train_timesteps`, `beta_start`,
            `beta_end`, `beta_schedule` (or `trained_betas`), `prediction_type`,
            `rescale_betas_zero_snr`, `timestep_spacing`, `steps_offset`, ...
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)
        self.prediction_type: str = self.config.get("prediction_type", "epsilon")
        self.train_steps: int = self.config.get("num_train_timesteps", 1000)

    @cached_property
    def alphas_cumprod(self) -> torch.Tensor:
        """abar_t for t = 0 .. train_steps-1, float64, on the CPU."""
        import torch

        trained = self.config.get("trained_betas")
        start = self.config.get("beta_start", 0.00085)
        end = self.config.get("beta_end", 0.012)
        kind = self.config.get("beta_schedule", "scaled_linear")
        if trained is not None:
            betas = torch.as_tensor(trained, dtype=torch.float64)
        elif kind == "scaled_linear":
            betas = torch.linspace(start**0.5, end**0.5, self.train_steps, dtype=torch.float64) ** 2
        elif kind == "linear":
            betas = torch.linspace(start, end, self.train_steps, dtype=torch.float64)
        else:
            raise ValueError(f"beta schedule {kind!r} is not known")
        alphas = torch.cumprod(1 - betas, dim=0)
        if self.config.get("rescale_betas_zero_snr"):
            alphas = _zero_terminal_snr(alphas)
        return alphas

    @cached_property
    def sigmas(self) -> torch.Tensor:
        """sigma_t for t = 0 .. train_steps-1, ascending, float64, on the CPU."""
        alphas = self.alphas_cumprod
        return ((1 - alphas) / alphas) ** 0.5

    @property
    def sigma_min(self) -> float:
        """The cleanest trained noise level."""
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """The noisiest trained noise level."""
        return float(self.sigmas[-1])

    @cached_property
    def _log_sigmas(self) -> torch.Tensor:
        return self.sigmas.log()

    def timestep(self, sigma: float) -> float:
        """The fractional timestep of a noise level: linear between neighbours in log sigma."""
        import torch

        logs = self._log_sigmas
        if sigma <= 0 or math.log(sigma) <= float(logs[0]):
            return 0.0
        log = torch.tensor(math.log(sigma), dtype=torch.float64)
        high = int(torch.searchsorted(logs, log).clamp(1, len(logs) - 1))
        low = high - 1
        fraction = (log - logs[low]) / (logs[high] - logs[low])
        return low + float(fraction.clamp(0, 1))

    def sigma(self, timestep: float) -> float:
        """The noise level of a fractional timestep: the inverse of `timestep`."""
        position = min(max(float(timestep), 0.0), self.train_steps - 1.0)
        low = min(int(position), self.train_steps - 2)
        fraction = position - low
        logs = self._log_sigmas
        return math.exp(float(logs[low]) * (1 - fraction) + float(logs[low + 1]) * fraction)

    def denoised(self, x: torch.Tensor, sigma: float, prediction: torch.Tensor) -> torch.Tensor:
        """x0 from a variance-exploding `x` at `sigma` and the model's prediction for it."""
        if self.prediction_type == "v_prediction":
            scale = 1 + sigma**2
            return x / scale - prediction * (sigma / math.sqrt(scale))
        if self.prediction_type == "sample":
            return prediction
        return x - prediction * sigma

    def predicted_original(
        self, latent: torch.Tensor, timestep: float, prediction: torch.Tensor
    ) -> torch.Tensor:
        """x0 from a variance-preserving `latent` and the model's prediction for it."""
        sigma = self.sigma(timestep)
        signal = 1 / math.sqrt(1 + sigma**2)  # sqrt(abar)
        noise = sigma * signal  # sqrt(1 - abar)
        if self.prediction_type == "v_prediction":  # Salimans & Ho 2022: v = a eps - s x0
            return latent * signal - prediction * noise
        if self.prediction_type == "sample":
            return prediction
        return (latent - prediction * noise) / signal

    def epsilon(
        self, latent: torch.Tensor, timestep: float, original: torch.Tensor
    ) -> torch.Tensor:
        """The noise in a variance-preserving `latent` whose x0 is `original`."""
        sigma = self.sigma(timestep)
        return (latent * math.sqrt(1 + sigma**2) - original) / sigma


def _zero_terminal_snr(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Rescale so that the last step has (almost) no signal left: Lin et al. 2024, algorithm 1."""
    roots = alphas_cumprod.sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    roots = (roots - last) * first / (first - last)
    rescaled = roots**2
    rescaled[-1] = NO_SIGNAL
    return rescaled


# ------------------------------------------------------------------------ sigma-space samplers

SigmaWalk = Generator[tuple["torch.Tensor", float], "torch.Tensor", "torch.Tensor"]
"""A sampler in sigma space: it yields (x, sigma), is sent the denoised x0, returns the last x."""


def sigma_sampler(  # noqa: PLR0913 - the fields of a SamplerSpec
    walk: Callable[[torch.Tensor, Sequence[float], Callable[[], torch.Tensor]], SigmaWalk],
    *,
    name: str,
    label: str,
    aliases: tuple[str, ...] = (),
    evaluations: int = 1,
    stochastic: bool = False,
    default: str = "normal",
    startup: int = 0,
) -> SamplerSpec:
    """A sampler from its form in the paper: a generator in sigma space (Karras et al. 2022).

        def heun(x, sigmas, noise):
            for s0, s1 in pairwise(sigmas):
                d = (x - (yield x, s0)) / s0
                ...
            return x

    Noise schedules, image-to-image and v-prediction are taken care of.

    Args:
        walk: Called with the first x, the noise levels (descending, the last one 0), and a
            function that draws unit normal noise of x's shape from the picture's generator.
        name: What requests ask for, lower case.
        label: What people read.
        aliases: Other names for it.
        evaluations: Evaluations per step; the last step may take fewer.
        stochastic: Whether it adds noise on the way.
        default: The noise schedule that suits it, for requests that ask for none.
        startup: Evaluations of the first step beyond `evaluations`.
    """
    return SamplerSpec(
        name=name,
        label=label,
        sample=partial(_sample, _Walk(walk, evaluations, default, startup)),
        aliases=aliases,
        schedules=tuple(SCHEDULES),
        evaluations=evaluations,
        stochastic=stochastic,
    )


class _Walk(NamedTuple):
    start: Callable[..., SigmaWalk]
    evaluations: int
    default: str
    startup: int


def _sample(walk: _Walk, task: SamplingTask) -> Sampling:
    model = task.model
    schedule = walk.default if task.schedule == "default" else task.schedule
    sigmas = noise_levels(model, task.steps, schedule)[task.first_step :]
    steps = len(sigmas) - 1
    if task.init is None:
        x = task.noise * math.sqrt(1 + sigmas[0] ** 2)  # as wide as noised data of unit variance
    else:
        x = task.init + task.noise * sigmas[0]
    if steps == 0:
        return x  # too little strength for a single step: the one level left is 0
    walker, denoised = walk.start(x, sigmas, partial(_draw, task)), None
    with closing(walker):
        for count in itertools.count(-walk.startup):
            try:
                x, sigma = walker.send(denoised)  # type: ignore[arg-type]  # None starts it
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            step = min(max(count, 0) // walk.evaluations, steps - 1)
            latent = x / math.sqrt(1 + sigma**2)
            prediction = yield Evaluation(latent, model.timestep(sigma), step)
            denoised = model.denoised(x, sigma, prediction)
    raise AssertionError  # count() does not end


def _draw(task: SamplingTask) -> torch.Tensor:
    """Noise from the picture's CPU generator: the same on every device."""
    import torch

    return torch.randn(task.noise.shape, generator=task.generator).to(task.noise.device)


# --------------------------------------------------------------------------------------- names


def resolve_sampler(
    samplers: Registry[SamplerSpec], name: str, schedule: str = "default"
) -> tuple[SamplerSpec, str]:
    """The sampler and the noise schedule that a request means.

    A name may carry its schedule as its last words: "dpm++ 2m karras", "Euler SGM Uniform".
    Schedules are taken in any case, with spaces, hyphens or underscores.

    Raises:
        UnknownName: There is no such sampler, or it does not take that schedule.
        RequestError: The name carries one schedule and the request asks for another.
    """
    asked = _schedule_name(schedule)
    spec, carried = _split_name(samplers, name)
    if carried and asked not in ("default", carried):
        message = f"sampler {name!r} already asks for the schedule {carried!r}, not {asked!r}"
        raise RequestError([FieldError("noise_schedule", message)])
    chosen = carried or asked
    if chosen not in spec.schedules:
        raise UnknownName("schedule", chosen, known=spec.schedules)
    return spec, chosen


def _split_name(samplers: Registry[SamplerSpec], name: str) -> tuple[SamplerSpec, str]:
    try:
        return samplers.get(name), ""
    except UnknownName as unknown:
        words = name.split()
        for count in range(1, len(words)):
            with suppress(UnknownName):
                spec = samplers.get(" ".join(words[:count]))
                carried = _schedule_name(" ".join(words[count:]))
                if carried in SCHEDULES or carried in spec.schedules:
                    return spec, carried
        raise unknown from None


def _schedule_name(text: str) -> str:
    name = "_".join(text.casefold().replace("-", " ").replace("_", " ").split())
    return "default" if name in ("", "automatic") else name
