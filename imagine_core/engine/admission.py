"""Admits a request once: resolves its names, defaults and seed, and decodes its pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from imagine_core.engine.bringing import OWN, Brought, bring
from imagine_core.engine.defaults import resolved
from imagine_core.engine.enlarging import LANCZOS
from imagine_core.engine.sent import read_pictures
from imagine_core.engine.tasks import Upscaling
from imagine_core.engine.validation import check_request
from imagine_core.errors import (
    FieldError,
    ImagineError,
    NoModel,
    RequestError,
    UnknownName,
    UnusableModel,
)
from imagine_core.fields import WIRE_NAMES, idle, in_order
from imagine_core.interfaces import ModelInfo
from imagine_core.kinds import LARGEST_SCALE, draw_seed
from imagine_core.lora_tags import read_tags, untagged
from imagine_core.models.memory import Work
from imagine_core.pictures.images import (
    MAX_PIXELS,
    MAX_SIDE,
    TOO_LARGE,
    blamed,
    held_by,
    load_rgba,
)
from imagine_core.pictures.transparency import colours_and_alpha
from imagine_core.sampling import require_noise, resolve_sampler
from imagine_core.types import GenerationRequest, ResolvedRequest, UpscaleRequest

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.engine.guarded import Guard
    from imagine_core.engine.masking import Repaint
    from imagine_core.interfaces import Preprocessor, SamplerSpec, UpscalerSpec
    from imagine_core.models.catalogue import Catalogue
    from imagine_core.registry import Registry
    from imagine_core.settings import Limits

__all__ = [
    "Admitted",
    "Known",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A request for pictures that can be served.

    Attributes:
        request: The request with its names, defaults and seed resolved.
        info: Its model.
        sampler: Its sampler.
        plugin: The plugin that brought the sampler.
        second: The sampler of the hires fix's second pass, and its schedule.
        brought: What it brings to its model.
        upscaler: What enlarges for the hires fix, unless that is a file.
        init_image: The decoded picture to start from, at the size of the first pass.
        repaints: What each pass repaints of that picture; none for all of it.
        hints: The hint of each of its ControlNets, at the size of the largest pass.
        warnings: Notes for the caller.
    """

    request: ResolvedRequest
    info: ModelInfo
    sampler: SamplerSpec
    plugin: str
    second: tuple[SamplerSpec, str] | None = None
    brought: Brought = field(default_factory=Brought)
    upscaler: UpscalerSpec = LANCZOS
    init_image: Image.Image | None = None
    repaints: tuple[Repaint, ...] = ()
    hints: tuple[Image.Image, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def work(self) -> Work:
        """The model and size of its first pass."""
        return Work(self.info.path, *self.request.drawn_size)

    @property
    def held(self) -> int:
        """Bytes of its decoded pictures."""
        parts = [each for one in self.repaints for each in (one.picture, one.mask, one.shown)]
        start = () if self.init_image is None else (self.init_image,)
        return held_by((*start, *parts, *self.hints))

    @property
    def infos(self) -> tuple[ModelInfo, ...]:
        """All that is to be loaded, the model first, each once."""
        return tuple({info.path: info for info in (self.info, *self.brought.infos)}.values())

    @property
    def schedules(self) -> tuple[tuple[SamplerSpec, str], ...]:
        """The sampler and the noise schedule of each pass."""
        first = (self.sampler, self.request.noise_schedule)
        return (first,) if self.request.hires_scale is None else (first, self.second or first)

    def with_prompt(self, prompt: str) -> Admitted:
        """A copy with a better prompt, which notes the user's own."""
        request = replace(self.request, prompt=prompt, original_prompt=self.request.prompt)
        return replace(self, request=request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What requests may name.

    Attributes:
        samplers: The registered samplers.
        catalogue: The models and what changes them.
        upscalers: The registered upscalers.
        preprocessors: The registered preprocessors.
    """

    samplers: Registry[SamplerSpec]
    catalogue: Catalogue
    upscalers: Registry[UpscalerSpec]
    preprocessors: Registry[Preprocessor]

    def upscaler(self, name: str) -> tuple[UpscalerSpec, ModelInfo | None]:
        """The upscaler called `name`; where it is a file, that too.

        Raises:
            UnknownName, UnusableModel: There is none, or it is broken.
        """
        if name.strip().casefold() == LANCZOS.name:
            return LANCZOS, None
        try:
            return self.upscalers.get(name), None
        except UnknownName:
            pass
        try:
            return LANCZOS, self.catalogue.match(name, "upscaler")
        except UnknownName as error:
            files = [info.name for info in self.catalogue.usable("upscaler")]
            known = [*self.upscalers.names(), *files]
            raise UnknownName("upscaler", name, known=known) from error


def admit(
    asked: GenerationRequest,
    *,
    known: Known,
    limits: Limits,
    guard: Guard,
    errors: Sequence[FieldError] = (),
) -> Admitted:
    """Validate and resolve a request.

    Args:
        asked: The request.
        known: What it may name.
        limits: The bounds of one request.
        guard: Runs preprocessors.
        errors: Fields that could not be parsed.

    Raises:
        RequestError: Fields are invalid; lists all of them, `errors` included.
        UnknownName, UnusableModel: A name is unknown, or its model cannot be used.
    """
    warnings: list[str] = []
    errors = list(errors)
    samplers, catalogue = known.samplers, known.catalogue
    model = _model_of(asked, catalogue)
    info = model if isinstance(model, ModelInfo) else None
    request = _untagged(resolved(asked, info, limits), warnings, errors)
    found = {error.field: error for error in (*check_request(request, limits), *errors)}
    sent = read_pictures(request, known.preprocessors, found, guard=guard)
    if found:
        raise RequestError(in_order(found.values()))
    warnings += sent.warnings
    warnings += [] if request.init_image is None else _of_a_step(request)
    warnings += _of_idle_fields(request)
    sampler, schedule = resolve_sampler(samplers, request.sampler, request.noise_schedule)
    if not isinstance(model, ModelInfo):
        raise model
    info = model
    require_noise(sampler, info, samplers)
    second = _second_sampler(request, schedule, info, samplers)
    _require_able(request, info)
    request = _without_idle_guidance(request, info, warnings)
    upscaler, file = (
        known.upscaler(request.hires_upscaler) if _enlarges(request) else (LANCZOS, None)
    )
    brought = bring(request, info, catalogue, upscaler=file)
    settled = replace(
        request,
        model=info.name,
        loras=brought.uses,
        controls=brought.control_uses,
        vae=OWN if brought.vae is None and info.vae is not None else brought.vae_name,
        sampler=sampler.name,
        noise_schedule=schedule,
        hires_sampler=_named(second, schedule),
        hires_upscaler=upscaler.name if file is None else file.name,
        seed=draw_seed() if request.seed is None else request.seed,
        subseed=_subseed(request),
    )
    return Admitted(
        request=settled,
        info=info,
        sampler=sampler,
        plugin=samplers.plugin_of(sampler.name),
        second=second,
        brought=brought,
        upscaler=upscaler,
        init_image=sent.init_image,
        repaints=sent.repaints,
        hints=sent.hints,
        warnings=(*warnings, *brought.warnings),
    )


def admit_upscale(request: UpscaleRequest, *, known: Known) -> Upscaling:
    """Validate and resolve a request to enlarge a picture.

    Raises:
        RequestError: Its picture cannot be read, or its size is out of bounds.
        UnknownName, UnusableModel: There is no such upscaler, or it is broken.
    """
    with blamed("image"):
        image, alpha = colours_and_alpha(load_rgba(request.image))
    scale, size = request.scale, request.size
    if size is None:
        if scale is None or not 0 < scale <= LARGEST_SCALE:
            message = f"must be more than 0 and at most {LARGEST_SCALE}"
            raise RequestError([FieldError("scale", message)])
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if min(size) < 1 or max(size) > MAX_SIDE or math.prod(size) > MAX_PIXELS:
        field = "scale" if request.size is None else "size"
        message = f"makes {size[0]} x {size[1]} pixels of it; the largest picture {TOO_LARGE}"
        raise RequestError([FieldError(field, message)])
    spec, file = known.upscaler(request.upscaler)
    name = spec.name if file is None else file.name
    settled = replace(request, upscaler=name, scale=scale, size=size)
    return Upscaling(request=settled, image=image, alpha=alpha, upscaler=spec, file=file)


def _enlarges(request: ResolvedRequest) -> bool:
    return request.hires_scale is not None


def _subseed(request: ResolvedRequest) -> int | None:
    return draw_seed() if request.subseed_strength and request.subseed is None else request.subseed


def _second_sampler(
    request: ResolvedRequest,
    schedule: str,
    info: ModelInfo,
    samplers: Registry[SamplerSpec],
) -> tuple[SamplerSpec, str] | None:
    """The sampler of the second pass, with the first one's schedule if it takes that."""
    if request.hires_scale is None or request.hires_sampler is None:
        return None
    spec, own = resolve_sampler(samplers, request.hires_sampler)
    require_noise(spec, info, samplers)
    return spec, schedule if own == "default" and schedule in spec.schedules else own


def _named(second: tuple[SamplerSpec, str] | None, schedule: str) -> str | None:
    """A sampler's name, with its schedule where that is not the first pass's."""
    if second is None:
        return None
    spec, own = second
    return spec.name if own in (schedule, "default") else f"{spec.name} {own}"


def _model_of(request: GenerationRequest, catalogue: Catalogue) -> ModelInfo | ImagineError:
    """The model of a request, or why there is none, which is told after what the fields lack."""
    try:
        return catalogue.default() if request.model is None else catalogue.get(request.model)
    except (NoModel, UnknownName, UnusableModel) as error:
        return error


def _require_able(request: ResolvedRequest, info: ModelInfo) -> None:
    """Refuse what the model cannot do."""
    layers = info.clip_layers
    if layers is not None and request.clip_skip > layers:
        message = f"must be from 1 to {layers}, the layers of {info.name!r}"
        if layers == 1:
            message = f"must be 1: {info.name!r} ({info.family}) knows no clip skip"
        raise RequestError([FieldError("clip_skip", message)])
    asked = {"tiling": bool(request.tiling), "vae_tiling": request.vae_tiling}
    fields = [name for name, wanted in asked.items() if wanted and not info.takes]
    if fields:
        message = f"the model {info.name!r} cannot do that"
        raise RequestError([FieldError(name, message) for name in fields])


def _without_idle_guidance(
    request: ResolvedRequest, info: ModelInfo, warnings: list[str]
) -> ResolvedRequest:
    """`request` without a distilled guidance that its model does not read."""
    if request.distilled_guidance is None or info.guidance == "distilled":
        return request
    message = f"distilled_guidance changes nothing: {info.name!r} reads no guidance itself"
    warnings.append(message)
    return replace(request, distilled_guidance=None)


def _untagged(
    request: ResolvedRequest, warnings: list[str], errors: list[FieldError]
) -> ResolvedRequest:
    """`request` with the LoRAs that its prompt names among its `loras`."""
    try:
        found, remarks = untagged(request)
        negative = read_tags(request.negative_prompt)
    except RequestError as error:
        errors += error.fields
        return request
    warnings += remarks
    if negative.loras:
        warnings.append("LoRAs are read in the prompt alone: left out of the negative prompt")
    return replace(found, negative_prompt=negative.prompt)


def _of_idle_fields(request: ResolvedRequest) -> list[str]:
    """What to say of fields that change nothing, under their names in the native JSON."""
    return [
        f"{field.wire} changes nothing without {' or '.join(WIRE_NAMES[n] for n in field.needs)}"
        for field in idle(request)
    ]


def _of_a_step(request: ResolvedRequest) -> list[str]:
    """What to say of a strength that is less than one step."""
    share = request.steps * request.strength
    if not 0 < share < 1:
        return []
    asked = f"strength {request.strength:g} of {request.steps} steps is no whole one"
    return [f"{asked}: one runs, as with strength {1 / request.steps:.2g}"]
