"""Loads diffusers folders: a `model_index.json` and a folder for each component."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders import configs
from imagine_plugins.loaders.components import Checkpoint, Component, Stored, component_slots
from imagine_plugins.loaders.header import Header, HeaderError, read_header
from imagine_plugins.loaders.layout import own_names
from imagine_plugins.loaders.names import present_name
from imagine_plugins.loaders.problems import ProblemError, explained, named
from imagine_plugins.loaders.sidecar import Overrides, read_sidecar
from imagine_plugins.loaders.weight_names import weight_files

if TYPE_CHECKING:
    from imagine_core.interfaces import Device, DiffusionModel
    from imagine_plugins.loaders.architectures import Architecture

INDEX = "model_index.json"
CONFIG_LIMIT = 64 * 2**20  # a tokenizer.json has some megabytes


class FolderLoader:
    """Loads folders of Stable Diffusion's pipelines, and knows those of flow models."""

    name = "folder"

    def recognise(self, path: Path) -> ModelInfo | None:
        """The model in a folder; None for one without `model_index.json`."""
        from imagine_plugins.loaders.flow.folder import flow_in_folder  # which reads as this does

        if path.name.startswith(".") or not (path / INDEX).is_file():
            return None
        try:
            with explained():
                found = flow_in_folder(path) or examine(path)
                return found.info(path, name=path.name, loader=self.name)
        except ProblemError as error:
            return error.info(path, name=path.name, loader=self.name)

    def load(
        self,
        info: ModelInfo,
        *,
        device: Device,
        full_precision: bool,
        progress: Callable[[float], object] = id,
    ) -> DiffusionModel:
        """Load a folder's components."""
        from imagine_plugins.loaders.assembly import assemble

        with named(info.name):
            return assemble(
                examine(info.path),
                device=device,
                full_precision=full_precision,
                progress=progress,
            )


def examine(folder: Path) -> Checkpoint:
    """What a folder's configurations and headers say; raises `ProblemError` or OSError."""
    read, overrides = file_reader(folder), read_sidecar(folder)
    plan = _overridden(configs.architecture(read), overrides)
    components = {
        name: Component(
            title=name, slots=wanted and own_names(wanted), weights=component_weights(folder / name)
        )
        for name, wanted in component_slots(plan).items()
    }
    for name, component in components.items():
        if component.problem is not None:
            raise ProblemError(f"{name}: {component.problem}")
    return Checkpoint(
        architecture=plan,
        components=components,
        read=read,
        vae=overrides.vae,
        defaults=overrides.defaults,
    )


def _overridden(plan: Architecture, overrides: Overrides) -> Architecture:
    config: dict[str, Any] = dict(plan.scheduler)
    if overrides.prediction_type is not None:
        config["prediction_type"] = overrides.prediction_type
    if overrides.zero_terminal_snr is not None:
        config["rescale_betas_zero_snr"] = overrides.zero_terminal_snr
        if overrides.zero_terminal_snr:
            config["timestep_spacing"] = "trailing"
    return replace(plan, scheduler=config, size=overrides.recommended_size or plan.size)


def component_weights(component: Path) -> dict[str, Stored]:
    """The tensors of a component's file or shards, by their present names."""
    return {
        present_name(name.removeprefix("text_model.")): Stored(file, tensor)
        for file in _weight_files(component)
        for name, tensor in _header_of(file).tensors.items()
    }


def _header_of(file: Path) -> Header:
    try:
        return read_header(file)
    except HeaderError as error:
        raise HeaderError(f"{file.parent.name}/{file.name}: {error}") from error


def _weight_files(component: Path) -> list[Path]:
    there = (file.name for file in component.glob("*.safetensors") if file.is_file())
    if names := weight_files(there):
        return [component / name for name in names]
    if any(component.glob("*.bin")):
        raise ProblemError(
            f"{component.name} has its weights in a pickle (.bin), and loading one runs whatever "
            "code it holds; take the safetensors files of this model"
        )
    raise ProblemError(f"{component.name} has no weights (*.safetensors); download them too")


def file_reader(folder: Path) -> configs.Read:
    """Gives the files of a folder: JSON parsed, anything else as text."""

    def read(name: str) -> Any:
        file = folder / name
        if not file.is_file():
            return None
        if file.stat().st_size > CONFIG_LIMIT:
            raise configs.ConfigError(f"the file {name} is too large for what it is")
        try:
            text = file.read_text("utf-8-sig")  # editors on Windows may put a mark first
            return json.loads(text) if file.suffix == ".json" else text
        except (ValueError, RecursionError) as error:
            raise configs.ConfigError(f"the file {name} is damaged ({error!s:.100})") from error

    return read
