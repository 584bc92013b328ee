"""The loader of diffusers folders: a `model_index.json` and a folder for each component."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagine_core.errors import UnusableModel
from imagine_core.interfaces import ModelInfo
from imagine_core.safe_text import quoted
from imagine_plugins.loaders import configs
from imagine_plugins.loaders.counting import count
from imagine_plugins.loaders.header import HeaderError, read_header
from imagine_plugins.loaders.layout import Slot, own_names
from imagine_plugins.loaders.sidecar import Overrides, SidecarError, read_sidecar
from imagine_plugins.loaders.weight_names import weight_files
from imagine_plugins.loaders.weights import Stored, Weights, misfit

if TYPE_CHECKING:
    from imagine_core.interfaces import Device, DiffusionModel
    from imagine_plugins.loaders.architectures import Architecture

INDEX = "model_index.json"
CONFIG_LIMIT = 64 * 2**20  # a tokenizer.json has some megabytes
# Names of the attention's parameters in autoencoders saved before diffusers 0.18.
OLD_NAMES = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A folder's configurations, and the tensors that its components want and have."""

    architecture: Architecture
    slots: Mapping[str, list[Slot] | None]
    weights: Mapping[str, Weights]

    @property
    def size(self) -> int:
        files = {stored.path for weights in self.weights.values() for stored in weights.values()}
        return sum(file.stat().st_size for file in files)


class FolderLoader:
    """Loads folders of the Stable Diffusion and Stable Diffusion XL pipelines."""

    name = "folder"

    def recognise(self, path: Path) -> ModelInfo | None:
        """Say what a folder is; one without `model_index.json` is none of its business."""
        if path.name.startswith(".") or not (path / INDEX).is_file():
            return None
        try:
            found = _examine(path)
        except _PROBLEMS as error:
            return ModelInfo(
                name=path.name,
                path=path,
                loader=self.name,
                family="broken" if isinstance(error, HeaderError) else "unknown",
                size=0,
                problem=_sentence(error),
            )
        plan = found.architecture
        parameters, dtype = count(found.slots, found.weights)
        return ModelInfo(
            name=path.name,
            path=path,
            loader=self.name,
            family=f"{plan.family}-inpaint" if plan.inpainting else plan.family,
            size=found.size,
            parameters=parameters,
            dtype=dtype,
            clip_layers=plan.clip_layers,
            recommended_size=plan.size,
        )

    def load(
        self,
        info: ModelInfo,
        *,
        device: Device,
        full_precision: bool,
        progress: Callable[[float], object] = id,
    ) -> DiffusionModel:
        """Load a folder's components."""
        from imagine_plugins.loaders.assembly import Source, assemble
        from imagine_plugins.loaders.problems import named

        try:
            found = _examine(info.path)
        except _PROBLEMS as error:
            raise UnusableModel(info.name, _sentence(error)) from error
        source = Source(
            architecture=found.architecture,
            slots=found.slots,
            weights=found.weights,
            read=_reader(info.path),
            progress=progress,
        )
        with named(info.name):
            return assemble(source, device=device, full_precision=full_precision)


class _FolderError(Exception):
    """A folder that cannot be loaded; the text says why."""


_PROBLEMS = (_FolderError, configs.ConfigError, HeaderError, SidecarError, OSError)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"it cannot be read: {error.strerror or quoted(error)}"
    return str(error)


def _examine(folder: Path) -> _Found:
    plan = configs.architecture(_reader(folder), text_layout=lambda _: ("", "clip"))
    plan = _overridden(plan, read_sidecar(folder))
    slots = {
        name: None if wanted is None else own_names(wanted)
        for name, wanted in configs.component_slots(plan).items()
    }
    weights = {name: _weights(folder / name) for name in slots}
    for name, wanted in slots.items():
        problem = None if wanted is None else misfit(wanted, weights[name])
        if problem is not None:
            raise _FolderError(f"{name}: {problem}")
    return _Found(architecture=plan, slots=slots, weights=weights)


def _overridden(plan: Architecture, overrides: Overrides) -> Architecture:
    config: dict[str, Any] = dict(plan.scheduler)
    if overrides.prediction_type is not None:
        config["prediction_type"] = overrides.prediction_type
    if overrides.zero_terminal_snr is not None:
        config["rescale_betas_zero_snr"] = overrides.zero_terminal_snr
        if overrides.zero_terminal_snr:
            config["timestep_spacing"] = "trailing"
    return replace(plan, scheduler=config, size=overrides.recommended_size or plan.size)


def _weights(component: Path) -> dict[str, Stored]:
    """The tensors of a component's file or shards, by their present names."""
    return {
        _present_name(name): Stored(file, tensor)
        for file in _weight_files(component)
        for name, tensor in _header_of(file).tensors.items()
    }


def _header_of(file: Path) -> Any:
    try:
        return read_header(file)
    except HeaderError as error:
        raise HeaderError(f"{file.parent.name}/{file.name}: {error}") from error


def _weight_files(component: Path) -> list[Path]:
    there = (file.name for file in component.glob("*.safetensors") if file.is_file())
    if names := weight_files(there):
        return [component / name for name in names]
    if any(component.glob("*.bin")):
        raise _FolderError(
            f"{component.name} has its weights in a pickle (.bin), and loading one runs whatever "
            "code it holds; take the safetensors files of this model"
        )
    raise _FolderError(f"{component.name} has no weights (*.safetensors); download them too")


def _present_name(name: str) -> str:
    name = name.removeprefix("text_model.")
    if ".attentions." in name:
        for old, new in OLD_NAMES.items():
            name = name.replace(old, new)
    return name


def _reader(folder: Path) -> configs.Read:
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
