"""Turns methods written in sigma space into samplers, and finds samplers by their names."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from imagine_core.errors import FieldError, RequestError, UnknownName
from imagine_core.interfaces import Evaluation, ModelInfo, SamplerSpec, Sampling, SamplingTask
from imagine_core.schedules import SCHEDULES, noise_levels
from imagine_core.types import ResolvedRequest

if TYPE_CHECKING:
    import torch

    from imagine_core.registry import Registry

__all__ = [
    "SigmaWalk",
    "resolve_or_default",
    "sigma_sampler",
]

SCHEDULE_WORDS = 4
"""Words at the end of a sampler's name that may be its schedule."""

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

    Noise schedules, image-to-image, v-prediction and flow models are taken care of.

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
        noise=frozenset(("vp", "flow")),
    )


class _Walk(NamedTuple):
    start: Callable[..., SigmaWalk]
    evaluations: int
    default: str
    startup: int


def _sample(walk: _Walk, task: SamplingTask) -> Sampling:
    model = task.noise_model
    schedule = task.schedule
    if schedule == "default" and model.kind != "flow":
        schedule = walk.default
    sigmas = noise_levels(model, task.steps, schedule)[task.first_step :]
    steps = len(sigmas) - 1
    if task.init is None:
        x = task.noise * (1 / model.signal(sigmas[0]))  # a latent that is noise alone
    else:
        x = task.init + task.noise * sigmas[0]
    if steps == 0:
        return x  # at strength 0: the one level left is 0
    walker, denoised = walk.start(x, sigmas, partial(_draw, task)), None
    with closing(walker):
        for count in itertools.count(-walk.startup):
            try:
                x, sigma = walker.send(denoised)  # type: ignore[arg-type]  # None starts it
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            step = min(max(count, 0) // walk.evaluations, steps - 1)
            latent = x / (1 / model.signal(sigma))
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


def resolve_or_default(
    samplers: Registry[SamplerSpec], name: str, schedule: str
) -> tuple[SamplerSpec, str, list[str]]:
    """As `resolve_sampler`, with the default instead of what is unknown, and warnings of that."""
    warnings: list[str] = []
    for asked in ((name, schedule), (name, "default")):
        try:
            return *resolve_sampler(samplers, *asked), warnings
        except (UnknownName, RequestError) as error:
            warnings.append(f"{error}; the default is taken")
    default = resolve_sampler(samplers, ResolvedRequest(prompt="").sampler)
    return *default, list(dict.fromkeys(warnings))


def require_noise(spec: SamplerSpec, info: ModelInfo, samplers: Iterable[SamplerSpec]) -> None:
    """Refuse a sampler that does not know how the noise of a model mixes with its pictures.

    Args:
        spec: The sampler that was asked for.
        info: The model that it is to draw with.
        samplers: Those to take instead, if they know it.

    Raises:
        RequestError: It cannot draw with this model.
    """
    if info.noise in spec.noise:
        return
    able = ", ".join(repr(each.name) for each in samplers if info.noise in each.noise)
    message = (
        f"sampler {spec.name!r} cannot draw with {info.name!r}, whose noise is of the kind "
        f"{info.noise!r}; " + (f"take one of {able}" if able else "no sampler here can")
    )
    raise RequestError([FieldError("sampler", message)])


def _split_name(samplers: Registry[SamplerSpec], name: str) -> tuple[SamplerSpec, str]:
    try:
        return samplers.get(name), ""
    except UnknownName as unknown:
        words = name.split()
        for count in range(max(1, len(words) - SCHEDULE_WORDS), len(words)):
            with suppress(UnknownName):
                spec = samplers.get(" ".join(words[:count]))
                carried = _schedule_name(" ".join(words[count:]))
                if carried in SCHEDULES or carried in spec.schedules:
                    return spec, carried
        raise unknown from None


def _schedule_name(text: str) -> str:
    name = "_".join(text.casefold().replace("-", " ").replace("_", " ").split())
    return "default" if name in ("", "automatic") else name
