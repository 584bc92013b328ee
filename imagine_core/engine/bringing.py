"""Finds what a request brings to its model: LoRAs, embeddings, VAEs, ControlNets, an upscaler."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imagine_core.embeddings import missing_embeddings, named_embeddings
from imagine_core.errors import FieldError, RequestError, UnknownName, UnusableModel
from imagine_core.models.folders import LABELS, place_of
from imagine_core.types import LoraUse

if TYPE_CHECKING:
    from imagine_core.interfaces import ModelInfo
    from imagine_core.models.catalogue import Catalogue
    from imagine_core.types import ControlUse, ResolvedRequest

OWN = "none"
"""Names the model's own VAE where it would draw with another."""

MOST_NAMED = 12
"""Names that an error lists."""

UNTOLD = "unknown"  # the family of a VAE that fits several by its shape
OWN_SIZES = "sd"  # the family of models whose network is none of the usual ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What a request brings to its model.

    Attributes:
        uses: Its LoRAs under their names in the catalogue.
        loras: Those of `uses`, in that order.
        embeddings: Those that its prompts name.
        vae: What encodes its pictures and, unless there is a `decoder`, decodes them; None for the
            model.
        decoder: What decodes them, where that is to be fast.
        control_uses: Its ControlNets under their names in the catalogue.
        controls: Those of `control_uses`, in that order.
        upscaler: What enlarges for the hires fix, where that is a file.
        warnings: Notes for the caller.
    """

    uses: tuple[LoraUse, ...] = ()
    loras: tuple[ModelInfo, ...] = ()
    embeddings: tuple[ModelInfo, ...] = ()
    vae: ModelInfo | None = None
    decoder: ModelInfo | None = None
    control_uses: tuple[ControlUse, ...] = ()
    controls: tuple[ModelInfo, ...] = ()
    upscaler: ModelInfo | None = None
    warnings: tuple[str, ...] = ()

    @property
    def vae_name(self) -> str | None:
        """The VAE's name in the catalogue."""
        return None if self.vae is None else self.vae.name

    @property
    def infos(self) -> tuple[ModelInfo, ...]:
        """All that is to be loaded."""
        single = (self.vae, self.decoder, self.upscaler)
        several = (*self.loras, *self.embeddings, *self.controls)
        return (*several, *(each for each in single if each is not None))


def bring(
    request: ResolvedRequest,
    model: ModelInfo,
    catalogue: Catalogue,
    *,
    upscaler: ModelInfo | None = None,
) -> Brought:
    """Find what `request` brings to `model`, beside the `upscaler` of its hires fix.

    Raises:
        RequestError: The model takes none of that kind, or this one is for another family.
        UnknownName, UnusableModel: There is none of that name, or it is broken.
    """
    loras = tuple(_found(catalogue, use.name, "lora", model, "loras") for use in request.loras)
    named = zip(request.loras, loras, strict=True)
    controls = tuple(
        _found(catalogue, use.name, "controlnet", model, "controls") for use in request.controls
    )
    embeddings, warnings = _embeddings(request, model, catalogue, loras)
    decoder = _decoder(model, catalogue) if request.decoder == "fast" else None
    uses: tuple[LoraUse | ControlUse, ...] = (*request.loras, *request.controls)
    return Brought(
        uses=tuple(replace(use, name=info.name) for use, info in named),
        loras=loras,
        embeddings=embeddings,
        vae=_vae(request, model, catalogue),
        decoder=decoder,
        control_uses=tuple(
            replace(use, name=info.name)
            for use, info in zip(request.controls, controls, strict=True)
        ),
        controls=controls,
        upscaler=upscaler,
        warnings=(
            *warnings,
            *_doubts(decoder),
            *(_idle(use) for use in uses if _is_idle(use)),
        ),
    )


def _vae(request: ResolvedRequest, model: ModelInfo, catalogue: Catalogue) -> ModelInfo | None:
    name = model.vae if request.vae is None else request.vae
    if name is None or name.casefold() == OWN:
        return None
    try:
        return _found(catalogue, name, "vae", model, "vae")
    except (RequestError, UnknownName, UnusableModel) as error:
        if request.vae is not None:
            raise
        message = f"the JSON beside the model {model.name!r} names {name!r}: {error}"
        raise RequestError([FieldError("vae", message)]) from error


def _decoder(model: ModelInfo, catalogue: Catalogue) -> ModelInfo:
    fast = [info for info in catalogue.usable("vae") if info.details.get("decoder") == "fast"]
    fits = [info for info in fast if _fits(info, model)]
    if "vae" in model.takes and fits:
        return min(fits, key=lambda info: len(info.fits))  # one of this family alone, first
    message = f"there is no fast decoder for {model.family}: a TAESD file belongs {place_of('vae')}"
    raise RequestError([FieldError("decoder", message)])


def _is_idle(use: LoraUse | ControlUse) -> bool:
    return use.start >= min(use.end, 1.0)


def _idle(use: LoraUse | ControlUse) -> str:
    kind = LABELS["lora" if isinstance(use, LoraUse) else "controlnet"]
    return (
        f"{kind} {use.name[:80]!r} acts in no step: it starts at {use.start:g} of them and ends at "
        f"{use.end:g}"
    )


def _doubts(decoder: ModelInfo | None) -> list[str]:
    if decoder is None or decoder.family != UNTOLD:
        return []
    return [f"{decoder.name!r} decodes, though it does not say for which models it was made"]


def _embeddings(
    request: ResolvedRequest,
    model: ModelInfo,
    catalogue: Catalogue,
    loras: Iterable[ModelInfo],
) -> tuple[tuple[ModelInfo, ...], tuple[str, ...]]:
    """The embeddings that the prompts name, and a note on each that the model cannot take."""
    if "embedding" not in model.takes:
        return (), ()
    usable, others = {}, {}
    for info in catalogue.models("embedding"):
        if info.problem is None and _fits(info, model):
            usable[info.name] = info
        else:  # pickles are listed under their whole names
            others[info.path.stem if info.problem else info.name] = info
    prompts = (request.prompt, request.negative_prompt)
    named = dict.fromkeys(name for text in prompts for name in named_embeddings(text, usable))
    known = {**others, **usable}
    every = named
    if others:
        every = dict.fromkeys(name for text in prompts for name in named_embeddings(text, known))
    missing = dict.fromkeys(name for text in prompts for name in missing_embeddings(text, known))
    brought = {str(word).casefold() for info in loras for word in _words(info)}
    warnings = [
        f"there is no embedding {name[:80]!r}" for name in missing if name.casefold() not in brought
    ]
    for name in every.keys() - usable.keys():
        problem = others[name].problem or _misfit(others[name], model)
        warnings.append(f"{name!r} is read as words: {problem}")
    return tuple(usable[name] for name in named), tuple(sorted(warnings))


def _words(lora: ModelInfo) -> list[object]:
    """The embeddings that come with a LoRA."""
    words = lora.details.get("embeddings", [])
    return words if isinstance(words, list) else []


def _found(catalogue: Catalogue, name: str, kind: str, model: ModelInfo, field: str) -> ModelInfo:
    """The file of `kind` that `model` takes; where there is none, the error says which it does."""
    try:
        info = catalogue.match(name, kind)
    except UnknownName as error:
        known = _fitting(catalogue, kind, model)
        if not known and catalogue.usable(kind):
            label = f"{error.kind} for {model.family}"
            raise UnknownName(label, name, known=()) from None
        raise UnknownName(error.kind, name, known=known) from None
    problem = _misfit(info, model)
    if problem is None:
        return info
    if kind in model.takes:
        others = _fitting(catalogue, kind, model)[:MOST_NAMED]
        fits = f"there are {', '.join(others)}" if others else "there is none here"
        problem = f"{problem}; for that {fits}"
    raise RequestError([FieldError(field, problem)])


def _fitting(catalogue: Catalogue, kind: str, model: ModelInfo) -> list[str]:
    """The names of what a model takes of a kind."""
    return [info.name for info in catalogue.usable(kind) if _misfit(info, model) is None]


def _fits(info: ModelInfo, model: ModelInfo) -> bool:
    """Whether it is for models of that family; one of sizes of its own looks at it itself."""
    family = model.family.removesuffix("-inpaint")
    return not info.fits or family in (*info.fits, OWN_SIZES)


def _misfit(info: ModelInfo, model: ModelInfo) -> str | None:
    """Why a model cannot take what fits models of other families."""
    if info.kind not in model.takes:
        return f"the model {model.name!r} takes no {LABELS[info.kind]}"
    if not _fits(info, model):
        families = " or ".join(info.fits)
        return f"{info.name!r} is for {families}, and the model {model.name!r} is {model.family}"
    return None
