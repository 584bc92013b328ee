"""What a job does: pictures of a request, or the enlarging of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from imagine_core.engine.changed import ChangedModel, changed
from imagine_core.engine.drawing import Drawing, Seeds, draw, enlarging
from imagine_core.engine.enlarging import enlarge
from imagine_core.engine.guarded import Guard, GuardedSampler
from imagine_core.engine.passes import total_steps
from imagine_core.kinds import SEEDS
from imagine_core.models.memory import Work
from imagine_core.pictures.images import held_by
from imagine_core.types import GeneratedImage, GenerationResult, UpscaleResult

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.engine.admission import Admitted
    from imagine_core.interfaces import ModelInfo, UpscalerSpec
    from imagine_core.parts import Upscaler
    from imagine_core.types import UpscaleRequest

PERCENT = 100
"""Steps of an enlarging: its progress is told in hundredths."""

TILE = 512
"""Pixels along each side of what is enlarged at once, as the memory of it is estimated."""

NO_MODEL = Path()
"""Stands for the model of work that needs none."""


class Facts(NamedTuple):
    """What a job's status and its report say of its task."""

    model: str
    sampler: str
    schedule: str
    steps: int
    width: int
    height: int


class Begun(NamedTuple):
    """A task whose drawings have begun."""

    drawings: Sequence[tuple[Seeds, Drawing]]
    changed: ChangedModel | None = None


class Ended(NamedTuple):
    """What a finished task is told of its job."""

    pictures: Sequence[tuple[Seeds, Image.Image]]
    changed: ChangedModel | None
    warnings: tuple[str, ...]
    timings: Mapping[str, float]


class Task(Protocol):
    """What a job does on the device."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Notes for the caller."""

    @property
    def infos(self) -> tuple[ModelInfo, ...]:
        """All that is to be loaded, each once."""

    @property
    def work(self) -> Work:
        """What its cost depends on."""

    @property
    def facts(self) -> Facts:
        """What is told of it."""

    @property
    def images(self) -> int:
        """Pictures that it makes."""

    @property
    def rows(self) -> int:
        """Rows per evaluation of one of them."""

    @property
    def steps(self) -> int:
        """Steps that run for each."""

    @property
    def evaluations(self) -> int:
        """Evaluations of the model per step."""

    @property
    def deterministic(self) -> bool:
        """Whether it shares no forward."""

    @property
    def preview(self) -> tuple[int, str]:
        """Every how many steps it shows how a picture looks, 0 for never, and how."""

    @property
    def culprit(self) -> str:
        """Whose code runs, in errors."""

    def begin(self, leased: Mapping[Path, Any], *, guard: Guard, halved: bool) -> Begun:
        """Begin its drawings; see `Job.start`."""

    def result(self, ended: Ended) -> GenerationResult | UpscaleResult:
        """Its last event."""


@dataclass(frozen=True, slots=True)
class Generating:
    """The task of making the pictures of a request."""

    admitted: Admitted

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.admitted.warnings

    @property
    def infos(self) -> tuple[ModelInfo, ...]:
        return self.admitted.infos

    @property
    def work(self) -> Work:
        return self.admitted.work

    @property
    def facts(self) -> Facts:
        request, sampler = self.admitted.request, self.admitted.sampler.name
        _, width, height = self.work
        schedule = request.noise_schedule
        return Facts(self.admitted.info.name, sampler, schedule, request.steps, width, height)

    @property
    def images(self) -> int:
        return self.admitted.request.images

    @property
    def rows(self) -> int:
        return 2 if self.admitted.request.guidance_scale > 1 else 1

    @property
    def steps(self) -> int:
        idle = any(repaint.is_idle for repaint in self.admitted.repaints[:1])
        return 0 if idle else total_steps(self.admitted.request)

    @property
    def evaluations(self) -> int:
        return self.admitted.sampler.evaluations

    @property
    def deterministic(self) -> bool:
        return self.admitted.request.deterministic

    @property
    def preview(self) -> tuple[int, str]:
        return self.admitted.request.preview_every, self.admitted.request.preview

    @property
    def culprit(self) -> str:
        return f"sampler {self.admitted.sampler.name!r} of plugin {self.admitted.plugin!r}"

    def begin(self, leased: Mapping[Path, Any], *, guard: Guard, halved: bool) -> Begun:
        admitted = self.admitted
        model = changed(admitted, leased)
        samplers = [GuardedSampler(spec, guard, self.culprit) for spec, _ in admitted.schedules]
        drawings = [
            (seeds, draw(model, admitted, samplers, seeds, halved=halved))
            for seeds in map(self._seeds, range(self.images))
        ]
        return Begun(drawings, model)

    def result(self, ended: Ended) -> GenerationResult:
        model = ended.changed
        return GenerationResult(
            images=tuple(
                GeneratedImage(image=image, seed=seeds.seed, subseed=seeds.subseed)
                for seeds, image in ended.pictures
            ),
            request=self.admitted.request,
            model_hash=None if model is None else model.model.model_hash,
            hashes={} if model is None else model.hashes,
            steps_run=self.steps,
            warnings=ended.warnings,
            timings=ended.timings,
        )

    def _seeds(self, index: int) -> Seeds:
        """Those of a picture: variations keep the seed, as in A1111."""
        request = self.admitted.request
        seed = request.seed or 0
        if request.subseed_strength and request.subseed is not None:
            return Seeds(seed, (request.subseed + index) % SEEDS)
        return Seeds((seed + index) % SEEDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upscaling:
    """The task of enlarging a picture.

    Attributes:
        request: The request, its upscaler's name and the size resolved.
        image: The colours of the decoded picture.
        alpha: How opaque it is; None for wholly.
        upscaler: What enlarges it, unless that is a file.
        file: The file of the upscaler.
        warnings: Notes for the caller.
    """

    request: UpscaleRequest
    image: Image.Image
    alpha: Image.Image | None = None
    upscaler: UpscalerSpec
    file: ModelInfo | None = None
    warnings: tuple[str, ...] = ()

    images = rows = evaluations = 1
    deterministic = False
    preview = (0, "fast")
    steps = PERCENT

    @property
    def infos(self) -> tuple[ModelInfo, ...]:
        return () if self.file is None else (self.file,)

    @property
    def work(self) -> Work:
        return Work(NO_MODEL if self.file is None else self.file.path, TILE, TILE)

    @property
    def held(self) -> int:
        """Bytes of its decoded picture."""
        return held_by((self.image,))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result."""
        assert self.request.size is not None
        return self.request.size

    @property
    def facts(self) -> Facts:
        return Facts(self.request.upscaler, "", "", self.steps, *self.size)

    @property
    def culprit(self) -> str:
        return f"upscaler {self.request.upscaler!r}"

    def begin(self, leased: Mapping[Path, Any], *, guard: Guard, halved: bool) -> Begun:
        del halved
        upscaler = self.upscaler if self.file is None else leased[self.file.path]
        return Begun([(Seeds(0), self._drawing(upscaler, guard))])

    def _drawing(self, upscaler: UpscalerSpec | Upscaler, guard: Guard) -> Drawing:
        tiles = enlarge(upscaler, self.image, self.size, guard=guard, alpha=self.alpha)
        return (yield from enlarging(tiles, percent=PERCENT))

    def result(self, ended: Ended) -> UpscaleResult:
        ((_, image),) = ended.pictures
        return UpscaleResult(
            image=image, request=self.request, warnings=ended.warnings, timings=ended.timings
        )
