"""Recognises a checkpoint by the header of its file: its architecture and its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from imagine_plugins.loaders import configs
from imagine_plugins.loaders.architectures import Architecture
from imagine_plugins.loaders.components import (
    Checkpoint,
    Component,
    Components,
    Stored,
    component_slots,
)
from imagine_plugins.loaders.families import stable_diffusion
from imagine_plugins.loaders.header import SPEC, Header, modelspec, read_header
from imagine_plugins.loaders.layout import UNET, VAE, own_names
from imagine_plugins.loaders.names import text_prefixes, turned, usual_names
from imagine_plugins.loaders.parameterization import scheduler
from imagine_plugins.loaders.problems import ProblemError
from imagine_plugins.loaders.sidecar import Overrides, SidecarError, parse_size, read_sidecar

DIFFUSERS_VAE = "decoder.up_blocks.0.resnets.0.norm1.weight"  # as ComfyUI tells it


def recognise_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`, from its header alone; takes milliseconds.

    Raises:
        ProblemError: It cannot serve.
        OSError: It cannot be read.
    """
    header = read_header(path)
    try:
        return _recognise(path, header)
    except ProblemError as error:
        error.metadata = modelspec(header)
        raise


def _recognise(path: Path, header: Header) -> Checkpoint:
    files = configs.embedded(header.metadata)
    is_embedded = configs.EMBEDDED in header.metadata
    plan = configs.architecture(files.get) if is_embedded else stable_diffusion(header)
    components = _components(plan, path, header)
    _require(plan.family, components.values())
    overrides = _overrides(plan, path)
    return Checkpoint(
        architecture=_completed(plan, path, header, overrides),
        components=components,
        read=files.get,
        metadata=modelspec(header),
        vae=overrides.vae,
        defaults=overrides.defaults,
    )


# ------------------------------------------------------------------------ which tensors it has


def _components(plan: Architecture, path: Path, header: Header) -> Components:
    names = usual_names(header.tensors, len(plan.texts))
    texts = text_prefixes(names, len(plan.texts))
    openclip = {number for number, (_, is_openclip) in enumerate(texts) if is_openclip}
    slots = component_slots(plan, openclip=openclip)
    titles = ("UNet", "VAE", *(part.name for part in plan.texts))
    prefixes = (UNET, VAE, *(prefix for prefix, _ in texts))
    components = {}
    for name, title, prefix in zip(slots, titles, prefixes, strict=True):
        weights = {
            usual.removeprefix(prefix): Stored(path, header.tensors[stored])
            for usual, stored in names.items()
            if usual.startswith(prefix)
        }
        wanted = slots[name]
        if wanted is not None:
            wanted = own_names(wanted) if DIFFUSERS_VAE in weights else turned(wanted, weights)
        components[name] = Component(title=title, slots=wanted, weights=weights, prefix=prefix)
    return components


def _require(family: str, components: Iterable[Component]) -> None:
    """Refuse a checkpoint that lacks a part, naming all of them, or a tensor, naming it."""
    lacking = [part.title for part in components if part.slots is not None and not part.read]
    if lacking:
        what = " and no ".join(lacking)
        raise ProblemError(
            f"it has no {what} in it; take the full checkpoint of this model", family=family
        )
    for part in components:
        if part.problem is not None:
            raise ProblemError(f"{part.title}: {part.problem}", family=family)


# ------------------------------------------------------------------------------- the rest of it


def _overrides(plan: Architecture, path: Path) -> Overrides:
    try:
        return read_sidecar(path)
    except SidecarError as error:
        error.family = plan.family
        raise


def _completed(
    plan: Architecture, path: Path, header: Header, overrides: Overrides
) -> Architecture:
    """The architecture with the scheduler and the size that the file and its sidecar ask for."""
    noise = scheduler(plan, header, path=path, overrides=overrides)
    return replace(plan, scheduler=noise, size=_size(plan, header, noise, overrides))


def _size(
    plan: Architecture, header: Header, noise: Mapping[str, Any], overrides: Overrides
) -> tuple[int, int]:
    if overrides.recommended_size is not None:
        return overrides.recommended_size
    said = parse_size(header.metadata.get(f"{SPEC}resolution"))
    if said is not None:
        return said
    if plan.family == "sd2" and noise["prediction_type"] == "epsilon":
        return 512, 512
    return plan.size
