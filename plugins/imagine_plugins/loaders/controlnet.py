"""Loads ControlNets and T2I-Adapters: files and folders that steer what a model draws."""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders.components import FLOATS, Meter
from imagine_plugins.loaders.control_layouts import (
    ADAPTER,
    KIND,
    NET,
    ControlFile,
    adapter_of,
    control_in_file,
    control_of,
)
from imagine_plugins.loaders.folder import INDEX, component_weights, file_reader
from imagine_plugins.loaders.header import first_tensor, modelspec, read_header, recognised
from imagine_plugins.loaders.problems import ProblemError, named
from imagine_plugins.loaders.torch_file import TORCH_FILES, read_torch_file
from imagine_plugins.loaders.upscaler_layouts import upscaler_problem

if TYPE_CHECKING:
    from imagine_core.interfaces import Device
    from imagine_plugins.loaders.control_networks import LoadedControl

HASHED = slice(2**20, 2**20 + 2**16)
"""Of a file, by A1111, in the name of a ControlNet."""

CONFIG = "config.json"
CLASSES = (NET, ADAPTER)
NO_CONTROLNET = "it holds no ControlNet in a layout known here"


class ControlNetLoader:
    """Loads `.safetensors` and `.pth` files of ControlNets, and diffusers folders of both."""

    name = KIND

    def recognise(self, path: Path) -> ModelInfo | None:
        """The ControlNet in a file or a folder; None for what other loaders know more of."""
        return recognised(path, kind=KIND, loader=self.name, look=self._look)

    def load(
        self,
        info: ModelInfo,
        *,
        device: Device,
        full_precision: bool,
        progress: Callable[[float], object] = id,
    ) -> LoadedControl:
        """Load a ControlNet; its header is read once more, for the file may have changed."""
        import diffusers
        import torch

        from imagine_plugins.loaders.control_networks import LoadedControl
        from imagine_plugins.loaders.weights import build

        with named(info.name, kind="ControlNet"):
            found = _examine(info.path)
            if found is None:
                raise ProblemError("it is no ControlNet any more", family=KIND)
            control, _ = found
            kind = getattr(diffusers, control.kind)
            known = inspect.signature(kind.__init__).parameters
            taken = {key: value for key, value in control.config.items() if key in known}
            network = build(
                lambda: kind.from_config(taken),
                control.component,
                dtype=torch.float32 if full_precision else device.dtype(),
                device=device.torch_device(),
                meter=Meter({KIND: control.component}, progress),
            )
            return LoadedControl(network, **_hashes_of(control))

    def _look(self, path: Path, name: str) -> ModelInfo | None:
        found = _examine(path)
        return found and self._info(path, name, *found)

    def _info(
        self, path: Path, name: str, control: ControlFile, metadata: Mapping[str, str]
    ) -> ModelInfo:
        read = control.component.read
        numbers: Counter[str] = Counter()
        for stored in read:
            numbers[stored.tensor.dtype] += prod(stored.tensor.shape)
        return ModelInfo(
            name=name,
            path=path,
            loader=self.name,
            kind=KIND,
            family=control.family,
            fits=(control.family,),
            size=sum(file.stat().st_size for file in {stored.path for stored in read}),
            parameters=numbers.total(),
            dtype=FLOATS.get(max(numbers, key=numbers.__getitem__)),
            metadata=metadata,
            details={"class": control.kind, **_hashes_of(control)},
        )


def _hashes_of(control: ControlFile) -> dict[str, str]:
    """The short hash of a ControlNet that is one file."""
    files = {stored.path for stored in control.component.read}
    digits = short_hash(files.pop()) if len(files) == 1 else None
    return {} if digits is None else {"short_hash": digits}


def _examine(path: Path) -> tuple[ControlFile, Mapping[str, str]] | None:
    """The ControlNet at `path`, and what it says of itself; raises `ProblemError` or OSError."""
    if path.is_dir():
        return _in_folder(path)
    ending = path.suffix.lower()
    if ending not in TORCH_FILES | {".safetensors"}:
        return None
    header = read_torch_file(path) if ending in TORCH_FILES else read_header(path)
    try:
        found = control_in_file(path, header)
    except ProblemError as error:
        error.metadata = modelspec(header)
        raise
    if found is None and ending in TORCH_FILES:  # others are told to convert a pickle
        raise ProblemError(upscaler_problem(header) or f"{NO_CONTROLNET}{first_tensor(header)}")
    return None if found is None else (found, modelspec(header))


def _in_folder(folder: Path) -> tuple[ControlFile, Mapping[str, str]] | None:
    """The ControlNet of a diffusers folder; None for a folder of anything else."""
    if not (folder / CONFIG).is_file() or (folder / INDEX).exists():
        return None
    config = file_reader(folder)(CONFIG)
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(kind, str) or not ("control" in kind.lower() or "adapter" in kind.lower()):
        return None
    if kind not in CLASSES:
        problem = f"this is of the class {kind:.80}; only {' and '.join(CLASSES)} are supported"
        raise ProblemError(problem, family=KIND)
    weights = component_weights(folder)
    if kind == ADAPTER:
        return adapter_of(weights, config), {}
    return control_of(weights, config=config, told=folder.name), {}


def short_hash(file: Path) -> str | None:
    """What A1111 writes behind the name of a ControlNet: 8 hex digits of a sha256 of a part of it.

    None where the file is too short for that, or gone.
    """
    with suppress(OSError), file.open("rb") as opened:
        opened.seek(HASHED.start)
        part = opened.read(HASHED.stop - HASHED.start)
        return hashlib.sha256(part).hexdigest()[:8] if part else None
    return None
