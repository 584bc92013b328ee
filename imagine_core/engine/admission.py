"""Admits a request once: resolves its names, defaults and seed, and decodes its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from imagine_core.engine.bringing import OWN, Brought, bring
from imagine_core.engine.validation import check_request
from imagine_core.errors import FieldError, RequestError
from imagine_core.fields import in_order
from imagine_core.kinds import SMALLEST_SIDE, draw_seed
from imagine_core.lora_tags import read_tags, untagged
from imagine_core.models.memory import Work
from imagine_core.sampling import require_noise, resolve_sampler
from imagine_core.types import GenerationRequest

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.interfaces import ModelInfo, SamplerSpec
    from imagine_core.models.catalogue import Catalogue
    from imagine_core.registry import Registry
    from imagine_core.settings import Limits

__all__ = [
    "Admitted",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A request that can be served.

    Attributes:
        request: The request with its names, defaults and seed resolved.
        info: Its model.
        sampler: Its sampler.
        plugin: The plugin that brought the sampler.
        brought: What it brings to its model.
        pictures: Its decoded pictures at the requested size, by role: "init".
        warnings: Notes for the caller.
    """

    request: GenerationRequest
    info: ModelInfo
    sampler: SamplerSpec
    plugin: str
    brought: Brought = field(default_factory=Brought)
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def work(self) -> Work:
        """The model and size of its first pass."""
        return Work(self.info.path, self.request.width, self.request.height)

    @property
    def infos(self) -> tuple[ModelInfo, ...]:
        """All that is to be loaded, the model first, each once."""
        return tuple({info.path: info for info in (self.info, *self.brought.infos)}.values())

    def with_prompt(self, prompt: str) -> Admitted:
        """A copy with a better prompt, which notes the user's own."""
        request = replace(self.request, prompt=prompt, original_prompt=self.request.prompt)
        return replace(self, request=request)


def admit(
    request: GenerationRequest,
    *,
    samplers: Registry[SamplerSpec],
    catalogue: Catalogue,
    limits: Limits,
    errors: Sequence[FieldError] = (),
) -> Admitted:
    """Validate and resolve `request`.

    Args:
        request: The request.
        samplers: The registered samplers.
        catalogue: The models.
        limits: The bounds of one request.
        errors: Fields that could not be parsed.

    Raises:
        RequestError: Fields are invalid; lists all of them, `errors` included.
        UnknownName, UnusableModel: A name is unknown, or its model cannot be used.
    """
    warnings: list[str] = []
    errors = list(errors)
    request = _untagged(request, warnings, errors)
    found = {error.field: error for error in (*check_request(request, limits), *errors)}
    pictures: dict[str, Image.Image] = {}
    if request.init_image is not None:
        size = (request.width, request.height)
        if found.keys() & {"width", "height"}:  # still check the picture
            size = (SMALLEST_SIDE, SMALLEST_SIDE)
        try:
            pictures["init"], remark = _decoded(request.init_image, size)
        except RequestError as error:
            found |= {each.field: each for each in error.fields}
        else:
            warnings += [] if remark is None else [remark]
            warnings += _of_a_step(request)
    if found:
        raise RequestError(in_order(found.values()))
    sampler, schedule = resolve_sampler(samplers, request.sampler, request.noise_schedule)
    info = catalogue.default() if request.model is None else catalogue.get(request.model)
    require_noise(sampler, info, samplers)
    if info.clip_layers is not None and request.clip_skip > info.clip_layers:
        message = f"must be from 1 to {info.clip_layers}, the layers of {info.name!r}"
        raise RequestError([FieldError("clip_skip", message)])
    brought = bring(request, info, catalogue)
    settled = replace(
        request,
        model=info.name,
        loras=brought.uses,
        vae=OWN if brought.vae is None and info.vae is not None else brought.vae_name,
        sampler=sampler.name,
        noise_schedule=schedule,
        seed=draw_seed() if request.seed is None else request.seed,
    )
    return Admitted(
        request=settled,
        info=info,
        sampler=sampler,
        plugin=samplers.plugin_of(sampler.name),
        brought=brought,
        pictures=pictures,
        warnings=(*warnings, *brought.warnings),
    )


def _untagged(
    request: GenerationRequest, warnings: list[str], errors: list[FieldError]
) -> GenerationRequest:
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


def _of_a_step(request: GenerationRequest) -> list[str]:
    """What to say of a strength that is less than one step."""
    share = request.steps * request.strength
    if not 0 < share < 1:
        return []
    asked = f"strength {request.strength:g} of {request.steps} steps is no whole one"
    return [f"{asked}: one runs, as with strength {1 / request.steps:.2g}"]


def _decoded(picture: bytes, size: tuple[int, int]) -> tuple[Image.Image, str | None]:
    from imagine_core.pictures.images import load_init_image

    return load_init_image(picture, *size)
