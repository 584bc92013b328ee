"""Recognises flow models in diffusers folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagine_plugins.loaders.components import Weights
from imagine_plugins.loaders.configs import ConfigError, Read, component_name
from imagine_plugins.loaders.flow import shifts
from imagine_plugins.loaders.flow.checkpoint import FlowCheckpoint
from imagine_plugins.loaders.flow.family import Family
from imagine_plugins.loaders.flow.recognition import EMBEDDED, FAMILIES, configured
from imagine_plugins.loaders.folder import INDEX, component_weights, file_reader
from imagine_plugins.loaders.problems import ProblemError


def flow_in_folder(folder: Path) -> FlowCheckpoint | None:
    """The flow model in a folder; None for a folder of anything else.

    Raises:
        ProblemError: It is one that cannot serve.
        OSError: It cannot be read.
    """
    read = file_reader(folder)
    index = _object(read, INDEX)
    kind = index.get("_class_name")
    family = next((family for family in FAMILIES if kind in family.pipelines), None)
    if family is None:
        return None
    try:
        return _found(folder, read, family, index)
    except ProblemError as error:
        error.family = family.name
        raise


def _found(folder: Path, read: Read, family: Family, index: Mapping[str, Any]) -> FlowCheckpoint:
    scheduler = _object(read, "scheduler/scheduler_config.json")
    transformer = component_weights(folder / "transformer")
    known = _transformer_config(read, family)
    config = configured(family, transformer, original=False, known=known)
    told = family.tell(index, scheduler)
    variant = family.variant(
        config, told, str(index["_class_name"]), *(() if told else (folder.name,))
    )
    places = {"vae": "vae"}
    for number, text in enumerate(variant.texts):
        places[text] = component_name("text_encoder", number)
    there = {part: place for part, place in places.items() if _has(index, place)}
    parts: dict[str, Weights] = {
        part: component_weights(folder / place) for part, place in there.items()
    }
    return FlowCheckpoint(
        family=family,
        variant=variant,
        config=config,
        shift=shifts.configured(scheduler, variant.shift),
        transformer=transformer,
        original=False,
        vae=parts.pop("vae", {}),
        texts=parts,
        components=there,
        read=read,
    )


def _has(index: Mapping[str, Any], component: str) -> bool:
    """Whether a folder has a component; pipelines without one say [null, null] for it."""
    match index.get(component):
        case [str(), str()]:
            return True
    return False


def _transformer_config(read: Read, family: Family) -> dict[str, Any]:
    config = _object(read, EMBEDDED)
    kind = config.get("_class_name")
    if kind != family.transformer:
        found = f"a {kind:.80}" if isinstance(kind, str) else "of no class"
        raise ConfigError(f"its transformer is {found}, not a {family.transformer}")
    known = {name: value for name, value in config.items() if not name.startswith("_")}
    if known.get("out_channels") is None and "in_channels" in known:
        known["out_channels"] = known["in_channels"]
    return known


def _object(read: Read, name: str) -> dict[str, Any]:
    """A configuration of the folder; empty where there is none."""
    content = read(name)
    return content if isinstance(content, dict) else {}
