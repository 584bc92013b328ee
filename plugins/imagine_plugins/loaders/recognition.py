"""Says what a safetensors file is from its header alone: family, architecture, or what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from imagine_plugins.loaders import configs
from imagine_plugins.loaders.architectures import Architecture
from imagine_plugins.loaders.families import RefusedError, stable_diffusion
from imagine_plugins.loaders.header import Header, HeaderError, read_header
from imagine_plugins.loaders.layout import UNET, VAE, Slot, own_names, prefixed
from imagine_plugins.loaders.names import text_layout, usual_names, with_turned_projection
from imagine_plugins.loaders.parameterization import scheduler
from imagine_plugins.loaders.sidecar import Overrides, SidecarError, parse_size, read_sidecar
from imagine_plugins.loaders.weights import Stored, Weights, misfit

EMBEDDED = "imagine.config"  # our configuration files as one JSON text in a file's metadata
DIFFUSERS_VAE = f"{VAE}decoder.up_blocks.0.resnets.0.norm1.weight"  # as ComfyUI tells it
SPEC = "modelspec."
SHOWN_METADATA = 1000  # characters; thumbnails are larger

Slots = Mapping[str, Sequence[Slot] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """What a checkpoint is, and all that loading it needs beside the weights themselves.

    Attributes:
        family: "sd1", "sd2", "sdxl", or what else the file is.
        problem: Why it cannot serve and what to do, or None if it can.
        architecture: Its configurations; None where there is a problem.
        slots: The tensors that each component wants.
        weights: The tensors that the file has for each component.
        files: Embedded configuration files by name.
        recommended_size: Width and height that it was trained for.
        metadata: What the file says of itself.
    """

    family: str
    problem: str | None = None
    architecture: Architecture | None = None
    slots: Slots = field(default_factory=dict)
    weights: Mapping[str, Weights] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    recommended_size: tuple[int, int] = (512, 512)
    metadata: Mapping[str, str] = field(default_factory=dict)


def recognise_checkpoint(path: Path) -> Recognition:
    """Read the header of `path` and say what it is; milliseconds, and never an exception."""
    try:
        header = read_header(path)
    except HeaderError as error:
        return Recognition(family="broken", problem=str(error))
    try:
        return _recognise(path, header)
    except RefusedError as error:
        return Recognition(family=error.family, problem=str(error), metadata=_metadata(header))
    except configs.ConfigError as error:
        return Recognition(family="unknown", problem=str(error), metadata=_metadata(header))
    except OSError as error:  # gone since its header was read
        return Recognition(family="broken", problem=f"the file cannot be read: {error.strerror}")


def _recognise(path: Path, header: Header) -> Recognition:
    stored = {
        usual: Stored(path, header.tensors[name])
        for usual, name in usual_names(header.tensors).items()
    }
    files: Mapping[str, Any] = {}
    if EMBEDDED in header.metadata:
        files = _embedded(header.metadata[EMBEDDED])
        plan = configs.architecture(
            files.get, text_layout=lambda number: text_layout(stored, number)
        )
    else:
        plan = _with_text_layouts(stable_diffusion(header), stored)
    slots = _slots(plan, stored)
    weights = _by_component(stored, slots)
    _require(plan, slots, weights)
    found = _described(path, header, plan)
    return replace(found, slots=slots, weights=weights, files=files)


# ------------------------------------------------------------------------ which tensors it has


def _with_text_layouts(plan: Architecture, stored: Weights) -> Architecture:
    """The architecture with its text encoders where the file has them."""
    layouts = [text_layout(stored, number) for number in range(len(plan.texts))]
    texts = [
        replace(part, prefix=prefix, layout=layout)
        for part, (prefix, layout) in zip(plan.texts, layouts, strict=True)
    ]
    return replace(plan, texts=tuple(texts))


def _slots(plan: Architecture, stored: Weights) -> Slots:
    slots = dict(configs.component_slots(plan))
    if slots["unet"] is None:
        raise configs.ConfigError("its UNet has features that a single file is not read with")
    slots["unet"] = prefixed(slots["unet"], UNET)
    if slots["vae"] is not None:
        vae = own_names(slots["vae"]) if DIFFUSERS_VAE in stored else slots["vae"]
        slots["vae"] = prefixed(vae, VAE)
    return {
        name: wanted and with_turned_projection(wanted, stored) for name, wanted in slots.items()
    }


def _by_component(stored: Mapping[str, Stored], slots: Slots) -> dict[str, Weights]:
    """The same tensors for every component; without a layout, by the parameters' own names."""
    bare = {
        name.removeprefix(VAE): tensor for name, tensor in stored.items() if name.startswith(VAE)
    }
    return {name: bare if wanted is None else stored for name, wanted in slots.items()}


def _require(plan: Architecture, slots: Slots, weights: Mapping[str, Weights]) -> None:
    """Refuse a checkpoint that lacks a part, naming all of them, or a tensor, naming it."""
    lacking = [
        _part_name(plan, name)
        for name, wanted in slots.items()
        if wanted is not None and not any(slot.key in weights[name] for slot in wanted)
    ]
    if lacking:
        raise RefusedError(
            plan.family,
            f"it has no {' and no '.join(lacking)} in it; take the full checkpoint of this model",
        )
    for name, wanted in slots.items():
        problem = None if wanted is None else misfit(wanted, weights[name])
        if problem is not None:
            raise RefusedError(plan.family, f"{_part_name(plan, name)}: {problem}")


def _part_name(plan: Architecture, component: str) -> str:
    names = {"unet": "UNet", "vae": "VAE"}
    for number, part in enumerate(plan.texts):
        names[configs.component_name("text_encoder", number)] = part.name
    return names[component]


# ---------------------------------------------------------------------- a configuration inside


def _embedded(text: str) -> Mapping[str, Any]:
    try:
        files = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise configs.ConfigError("the configuration inside the file is damaged") from error
    if not isinstance(files, dict):
        raise configs.ConfigError("the configuration inside the file is no JSON object")
    return files


# ------------------------------------------------------------------------------- the rest of it


def _described(path: Path, header: Header, plan: Architecture) -> Recognition:
    try:
        overrides = read_sidecar(path)
    except SidecarError as error:
        raise RefusedError(plan.family, str(error)) from error
    noise = scheduler(plan, header, path=path, overrides=overrides)
    plan = replace(plan, scheduler=noise, size=_size(plan, header, noise, overrides))
    return Recognition(
        family=f"{plan.family}-inpaint" if plan.inpainting else plan.family,
        architecture=plan,
        recommended_size=plan.size,
        metadata=_metadata(header),
    )


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


def _metadata(header: Header) -> dict[str, str]:
    """The modelspec entries by their short names: title, author, licence, ..."""
    return {
        name.removeprefix(SPEC): text
        for name, text in header.metadata.items()
        if name.startswith(SPEC) and len(text) <= SHOWN_METADATA
    }
