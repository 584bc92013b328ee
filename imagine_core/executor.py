"""The interface through which routes and commands have pictures made; the engine implements it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from imagine_core.types import Phase

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.engine.admission import Admitted
    from imagine_core.engine.tasks import Upscaling
    from imagine_core.errors import FieldError, Stalled
    from imagine_core.interfaces import Preprocessor
    from imagine_core.models.cache import LoadedModel, Unloaded
    from imagine_core.models.catalogue import Catalogue
    from imagine_core.settings import Settings
    from imagine_core.types import (
        GenerationEvent,
        GenerationRequest,
        UpscaleEvent,
        UpscaleRequest,
    )

__all__ = [
    "EngineStatus",
    "Executor",
    "JobStatus",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A request that waits or runs.

    Attributes:
        id: Its id.
        model, sampler: Their names.
        phase: Its phase.
        position: Requests ahead of it in the queue.
        wait: Seconds until its turn, estimated; None if unknown.
        fraction: How much of its model is loaded; None unless it is loading.
        step, steps: Steps that all of its pictures have done, and steps that run.
        width, height: Size of its pictures in pixels.
    """

    id: str
    model: str
    sampler: str
    phase: Phase
    position: int
    wait: float | None
    fraction: float | None
    step: int
    steps: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """A snapshot of the device, the loaded models and the jobs.

    `ready` means that the device is chosen and the default model, if one is configured, loaded.
    `failure` says why no picture can be made, if none can; `stalled` says so while a sampler holds
    the device. `forwards` counts the model's calls so far, and `evaluations` those of
    samplers that shared them.
    """

    ready: bool
    device: str | None
    dtype: str | None
    failure: str | None
    stalled: Stalled | None
    forwards: int
    evaluations: int
    loaded: list[LoadedModel]
    jobs: list[JobStatus]


class Executor(Protocol):
    """Makes pictures for any number of callers."""

    @property
    def settings(self) -> Settings:
        """The settings that it is built with."""

    @property
    def catalogue(self) -> Catalogue:
        """The known models."""

    @property
    def stopping(self) -> bool:
        """Whether it takes no more work."""

    def start(self) -> None:
        """Start working; does nothing the second time."""

    def close(self, *, grace: float = ...) -> None:
        """Take no more work, finish what is in progress within `grace` seconds, and stop."""

    async def admit(
        self, request: GenerationRequest, *, errors: Sequence[FieldError] = ()
    ) -> Admitted:
        """Validate and resolve `request`; see `Engine.admit`."""

    def generate(
        self,
        request: GenerationRequest | Admitted,
        *,
        id: str | None = None,  # noqa: A002 - the public name
    ) -> AsyncGenerator[GenerationEvent, None]:
        """The events of one request; see `Engine.generate`."""

    async def admit_upscale(self, request: UpscaleRequest) -> Upscaling:
        """Validate and resolve a request to enlarge a picture; see `Engine.admit_upscale`."""

    def upscale(
        self,
        request: UpscaleRequest | Upscaling,
        *,
        id: str | None = None,  # noqa: A002 - the public name
    ) -> AsyncGenerator[UpscaleEvent, None]:
        """The events of enlarging a picture; see `Engine.upscale`."""

    def prepare(self, preprocessor: Preprocessor, image: Image.Image) -> Image.Image:
        """The hint that a preprocessor makes of a picture; see `Engine.prepare`."""

    def unload(self, name: str) -> Unloaded:
        """Take the model `name` out of memory, at once or when its pictures are done."""

    def status(self) -> EngineStatus:
        """A snapshot."""
