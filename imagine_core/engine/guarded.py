"""Runs a plugin's sampler, checks what it yields, and names it in errors."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from imagine_core.errors import GenerationFailed
from imagine_core.interfaces import Evaluation, SamplingTask
from imagine_core.safe_text import quoted

if TYPE_CHECKING:
    import torch

    from imagine_core.interfaces import SamplerSpec, Sampling

T = TypeVar("T")


class Guard(Protocol):
    """Runs plugins' code under a time limit."""

    def __call__(self, culprit: str, work: Callable[[], T], /) -> T:
        """The result of `work`, which is code of `culprit`; GenerationFailed if it is late."""


class Finished(NamedTuple):
    """A sampler's final latent."""

    latent: torch.Tensor


@dataclass(frozen=True, slots=True)
class GuardedSampler:
    """A sampler, the guard that runs its code, and its name in errors."""

    spec: SamplerSpec
    guard: Guard
    culprit: str

    def begin(self, task: SamplingTask) -> Run:
        """Start a sampling."""
        return Run(self, task)


class Run:
    """A sampling in progress; every failure in it becomes a `GenerationFailed`."""

    def __init__(self, sampler: GuardedSampler, task: SamplingTask) -> None:
        self._sampler, self._task = sampler, task
        self._guard = partial(sampler.guard, sampler.culprit)
        self._at = "at its start"
        self._sampling = self._begin()

    def send(self, prediction: torch.Tensor | None) -> Evaluation | Finished:
        """Send `prediction`, None at first; returns the next evaluation, or the final latent."""
        try:
            wanted = self._guard(partial(self._sampling.send, prediction))  # type: ignore[arg-type]
        except StopIteration as stop:
            return Finished(self._latent(stop.value))
        except GenerationFailed:
            raise
        except BaseException as error:  # a plugin may raise anything
            raise self._failed(error) from error
        self._check(wanted)
        self._at = f"at step {wanted.step + 1}"
        return wanted

    def close(self) -> None:
        """Close the sampler's generator."""
        self._guard(self._sampling.close)

    def _begin(self) -> Sampling:
        try:
            sampling: object = self._guard(partial(self._sampler.spec.sample, self._task))
        except GenerationFailed:
            raise
        except BaseException as error:  # a plugin may raise anything
            raise self._failed(error) from error
        if isinstance(sampling, Generator):
            return sampling
        kind = type(sampling).__name__
        raise GenerationFailed(f"{self._sampler.culprit} must be a generator, got {kind}")

    def _failed(self, error: BaseException) -> GenerationFailed:
        return GenerationFailed(f"{self._sampler.culprit} failed {self._at}: {quoted(error)}")

    def _latent(self, latent: object) -> torch.Tensor:
        if getattr(latent, "shape", None) != self._task.noise.shape:
            raise GenerationFailed(f"{self._sampler.culprit} returned no latent")
        return latent  # type: ignore[return-value]

    def _check(self, evaluation: object) -> None:
        wanted = self._task.noise.shape
        shape = getattr(getattr(evaluation, "latent", None), "shape", None)
        if not isinstance(evaluation, Evaluation) or shape != wanted:
            raise GenerationFailed(
                f"{self._sampler.culprit} must yield Evaluation(latent, timestep, step) with a "
                f"latent of shape {tuple(wanted)}, got {type(evaluation).__name__}"
            )
