"""check_sampler finds each fault that it looks for, and none in a sampler that is right."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from imagine_core import Evaluation, SamplerSpec, Sampling, SamplingTask, hookimpl
from imagine_core.noise import VariancePreserving
from imagine_core.sampling import SigmaWalk, sigma_sampler
from imagine_core.testing import BrokenRule, check_sampler
from imagine_core.testing.sampler_rules import RULES

STEPS = (1, 2, 7, 30)
Noise = Callable[[], Tensor]


def euler(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    for high, low in itertools.pairwise(sigmas):
        x = x + (x - (yield x, high)) / high * (low - high)
    return x


def ancestral(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    for high, low in itertools.pairwise(sigmas):
        up = low * (1 - (low / high) ** 2) ** 0.5
        down = (low**2 - up**2) ** 0.5
        x = x + (x - (yield x, high)) / high * (down - high)
        x = x + noise() * up if up else x
    return x


def walking(walk: Any, **more: Any) -> SamplerSpec:
    return sigma_sampler(walk, name="mine", label="Mine", **more)


GOOD = walking(euler)


class Brings:
    """A plugin that registers samplers."""

    def __init__(self, *specs: SamplerSpec) -> None:
        self.specs = specs

    @hookimpl
    def register_samplers(self, register: Callable[[SamplerSpec], None]) -> None:
        for spec in self.specs:
            register(spec)


def changed(change: Callable[[SamplingTask, Evaluation], object], **more: Any) -> SamplerSpec:
    """The good sampler, whose evaluations are changed."""

    def sample(task: SamplingTask) -> Sampling:
        inner, prediction = GOOD.sample(task), None
        while True:
            try:
                wanted = inner.send(prediction)  # type: ignore[arg-type]
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            prediction = yield change(task, wanted)  # type: ignore[misc]

    return replace(GOOD, sample=sample, **more)


def ending(end: Callable[[SamplingTask, Tensor], object], **more: Any) -> SamplerSpec:
    """The good sampler, whose result is changed."""

    def sample(task: SamplingTask) -> Sampling:
        return end(task, (yield from GOOD.sample(task)))  # type: ignore[return-value]

    return replace(GOOD, sample=sample, **more)


def no_generator(task: SamplingTask) -> Any:
    return task.noise


def endless(task: SamplingTask) -> Sampling:
    while True:
        yield Evaluation(task.noise, 500.0, 0)


def deaf(task: SamplingTask) -> Sampling:
    inner, prediction = GOOD.sample(task), None
    try:
        while True:
            prediction = yield inner.send(prediction)  # type: ignore[arg-type]
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    except GeneratorExit:
        yield Evaluation(task.noise, 1.0, 0)
        raise


def global_noise(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    return (yield from ancestral(x, sigmas, lambda: torch.randn(x.shape)))


def counting() -> SamplerSpec:
    """Each run differs a little from the one before."""
    runs = itertools.count()
    return ending(lambda task, latent: latent + 0.001 * next(runs))


def shared() -> SamplerSpec:
    """A multistep method whose history belongs to all of its runs."""
    history: list[Tensor] = []

    def walk(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
        history.clear()
        for high, low in itertools.pairwise(sigmas):
            slope = (x - (yield x, high)) / high
            before = history[-1] if history else slope
            history.append(slope)
            x = x + (1.5 * slope - 0.5 * before) * (low - high)
        return x

    return walking(walk)


def own_noise(task: SamplingTask) -> Sampling:
    own = torch.randn(task.noise.shape, generator=torch.Generator().manual_seed(1))
    return (yield from GOOD.sample(replace(task, noise=own)))


def without_noise(task: SamplingTask) -> Sampling:
    noise = task.noise if task.init is None else torch.zeros_like(task.noise)
    return (yield from GOOD.sample(replace(task, noise=noise)))


def epsilon_only(task: SamplingTask) -> Sampling:
    """Takes every prediction for epsilon."""
    assert isinstance(task.noise_model, VariancePreserving)
    config = {k: v for k, v in task.noise_model.config.items() if k != "prediction_type"}
    return (yield from GOOD.sample(replace(task, noise_model=VariancePreserving(config))))


def reading(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    for high, low in itertools.pairwise(sigmas):
        denoised = yield x, high
        if float(denoised.abs().max()) > 1e9:
            break
        x = x + (x - denoised) / high * (low - high)
    return x


def going_home(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaWalk:
    return (
        yield from euler(
            x.cpu() if x.device.type != "meta" else torch.zeros(x.shape), sigmas, noise
        )
    )


def overflowing(task: SamplingTask, latent: Tensor) -> Tensor:
    return latent / 0 if task.steps == 30 and task.schedule == "karras" else latent


def restless(task: SamplingTask, latent: Tensor) -> Tensor:
    return latent + 0.01 if task.init is not None and not task.steps - task.first_step else latent


def swelling(task: SamplingTask, latent: Tensor) -> Tensor:
    return latent * 1.1 if 0 < task.first_step < task.steps else latent


def shifting(task: SamplingTask, latent: Tensor) -> Tensor:
    return latent + 0.3 if task.schedule == "exponential" and task.init is None else latent


def dividing_by_the_signal(task: SamplingTask, latent: Tensor) -> Tensor:
    noise_model = task.noise_model
    no_signal = noise_model.kind == "vp" and noise_model.sigma_max > 4000
    epsilon = noise_model.prediction_type == "epsilon"
    return latent * float("nan") if no_signal and epsilon else latent


def mistaking_flows(task: SamplingTask, latent: Tensor) -> Tensor:
    return latent * 1.2 if task.noise_model.kind == "flow" else latent


BROKEN: list[tuple[str, str, Any]] = [
    ("sampler-registered", "'Mine' is not in lower case", replace(GOOD, name="Mine")),
    ("sampler-registered", "'My Alias' is not", replace(GOOD, aliases=("My Alias",))),
    ("sampler-registered", "is taken by plugin", replace(GOOD, aliases=("euler",))),
    ("sampler-registered", "label is empty", replace(GOOD, label=" ")),
    ("sampler-registered", "unknown sampler 'mine'", replace(GOOD, name="other")),
    ("sampler-registered", "`evaluations` is 0", replace(GOOD, evaluations=0)),
    ("sampler-registered", "`stochastic` is 'no'", replace(GOOD, stochastic="no")),  # type: ignore[arg-type]
    ("sampler-schedules", 'no schedule "default"', replace(GOOD, schedules=("karras",))),
    ("sampler-schedules", "twice", replace(GOOD, schedules=("default", "default"))),
    ("sampler-schedules", "'My Own'", replace(GOOD, schedules=("default", "My Own"))),
    ("sampler-evaluations", "no generator function", replace(GOOD, sample=no_generator)),
    ("sampler-evaluations", "more than", replace(GOOD, sample=endless)),
    ("sampler-evaluations", "'seven', which is no Evaluation", changed(lambda t, e: "seven")),
    (
        "sampler-evaluations",
        "not float32",
        changed(lambda t, e: e._replace(latent=e.latent.double())),
    ),
    ("sampler-evaluations", "has the shape", changed(lambda t, e: e._replace(latent=e.latent[0]))),
    ("sampler-evaluations", "not in 0..999", changed(lambda t, e: e._replace(timestep=1000.0))),
    ("sampler-evaluations", "number of its step", changed(lambda t, e: e._replace(step=None))),  # type: ignore[arg-type]
    ("sampler-evaluations", "is no tensor, but None", ending(lambda task, latent: None)),
    ("sampler-closing", "generator ignored GeneratorExit", replace(GOOD, sample=deaf)),
    ("sampler-numbering", "its steps are", changed(lambda t, e: e._replace(step=0))),
    ("sampler-numbering", "go back", changed(lambda t, e: e._replace(step=6 - e.step))),
    ("sampler-cost", "it says 2 a step, and takes 7", replace(GOOD, evaluations=2)),
    ("sampler-stochastic", "adds no noise", replace(GOOD, stochastic=True)),
    ("sampler-stochastic", "it adds noise", walking(ancestral)),
    ("sampler-seed", "global generator", walking(global_noise, stochastic=True)),
    ("sampler-company", "another runs beside it", shared()),
    ("sampler-start", "from where it says", replace(GOOD, sample=own_noise)),
    ("sampler-start", "strength 0.6", replace(GOOD, sample=without_noise)),
    ("sampler-exact", "away from what they should be", ending(lambda t, x: x * 0.9)),
    ("sampler-img2img", "away from the data's", ending(swelling)),
    ("sampler-img2img", "a strength of 0", ending(restless)),
    ("sampler-convergence", "order", ending(shifting)),
    ("sampler-v-prediction", "predicts v", replace(GOOD, sample=epsilon_only)),
    ("sampler-zero-snr", "predicts epsilon", ending(dividing_by_the_signal)),
    ("sampler-zero-snr", "nan away", ending(dividing_by_the_signal)),
    ("sampler-flow", "with a flow model", ending(mistaking_flows)),
    ("sampler-device", "it raised", walking(reading)),
    ("sampler-device", "device to the cpu", walking(going_home)),
    ("sampler-finite", "30 steps of the schedule 'karras'", ending(overflowing)),
]


def complaint(plugin: object, **options: Any) -> BrokenRule:
    with pytest.raises(BrokenRule) as caught:
        check_sampler(plugin, "mine", **{"steps": STEPS, **options})
    return caught.value


@pytest.mark.parametrize("spec", [GOOD, walking(ancestral, stochastic=True)])
def test_a_right_sampler_passes(spec: SamplerSpec) -> None:
    check_sampler(Brings(spec), "mine", steps=STEPS)


def test_a_sampler_that_knows_flows_alone_is_tried_on_them() -> None:
    def sample(task: SamplingTask) -> Sampling:
        assert task.noise_model.kind == "flow"
        return (yield from GOOD.sample(task))

    only = replace(GOOD, sample=sample, noise=frozenset(("flow",)))
    check_sampler(Brings(only), "mine", steps=STEPS)
    broken = complaint(Brings(replace(only, noise=frozenset())))
    assert (broken.rule, "knows no noise" in str(broken)) == ("sampler-registered", True)


@pytest.mark.parametrize(("rule", "words", "spec"), BROKEN)
def test_each_fault_is_found_and_named(rule: str, words: str, spec: SamplerSpec) -> None:
    broken = complaint(Brings(spec))
    assert broken.rule == rule, broken
    assert words in str(broken)
    assert str(broken).startswith("sampler 'mine' breaks the rule")
    assert f"docs/conformance.md#{rule}" in str(broken)


def test_a_sampler_that_forgets_its_seed_is_found() -> None:
    """Made here: each run counts."""
    broken = complaint(Brings(counting()))
    assert broken.rule == "sampler-stochastic"
    broken = complaint(Brings(replace(counting(), stochastic=True)))
    assert (broken.rule, "another picture" in str(broken)) == ("sampler-seed", True)


def test_an_order_that_is_not_reached_is_found() -> None:
    broken = complaint(Brings(GOOD), order=2)
    assert broken.rule == "sampler-convergence"
    assert "not 2" in str(broken)


def test_every_rule_has_a_sampler_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(dict(RULES))


def test_whatever_a_plugin_raises_is_told_with_its_kind() -> None:
    def fails(task: SamplingTask) -> Iterator[Any]:
        yield next(GOOD.sample(task))
        raise ZeroDivisionError("seven")

    broken = complaint(Brings(replace(GOOD, sample=fails)))  # type: ignore[arg-type]
    assert "it raised ZeroDivisionError: seven" in str(broken)


def test_an_excuse_lets_a_broken_rule_pass_and_is_refused_where_it_is_not_needed() -> None:
    odd = Brings(walking(reading))
    check_sampler(odd, "mine", steps=STEPS, excused={"sampler-device": "adapts to the picture"})
    with pytest.raises(AssertionError, match="is excused from 'sampler-device', but keeps it"):
        check_sampler(Brings(GOOD), "mine", steps=STEPS, excused={"sampler-device": "none"})
    with pytest.raises(AssertionError, match="there is no rule 'sampler-devices'"):
        check_sampler(odd, "mine", excused={"sampler-devices": "a slip"})
