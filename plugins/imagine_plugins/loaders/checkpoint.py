"""Loads single-file checkpoints, and explains files of other formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders.control_layouts import control_problem
from imagine_plugins.loaders.flow.recognition import flow_in_file
from imagine_plugins.loaders.header import read_header
from imagine_plugins.loaders.problems import ProblemError, explained, named
from imagine_plugins.loaders.recognition import recognise_checkpoint
from imagine_plugins.loaders.torch_file import TORCH_FILES, read_torch_file
from imagine_plugins.loaders.upscaler_layouts import upscaler_problem

if TYPE_CHECKING:
    from imagine_core.interfaces import Device, DiffusionModel

PICKLE = (
    "pickle",
    "this is a pickle, and loading one runs whatever code it holds; convert it to safetensors",
)
UNFINISHED = ("download", "this is an unfinished download; let it finish, or delete it")
OTHER_FILES = {
    ".ckpt": PICKLE,
    ".pt": PICKLE,
    ".pth": PICKLE,
    ".bin": PICKLE,
    ".pkl": PICKLE,
    ".gguf": ("gguf", "GGUF files are not supported; take the safetensors file of this model"),
    ".onnx": ("onnx", "ONNX files are not supported; take the safetensors file of this model"),
    ".part": UNFINISHED,
    ".partial": UNFINISHED,
    ".crdownload": UNFINISHED,
    ".download": UNFINISHED,
    ".opdownload": UNFINISHED,
    ".aria2": UNFINISHED,
}


class CheckpointLoader:
    """Loads `.safetensors` checkpoints of the original layout."""

    name = "checkpoint"

    def recognise(self, path: Path) -> ModelInfo | None:
        """The model in a file; None for folders and for files that hold no model."""
        suffix = path.suffix.lower()
        if path.name.startswith(".") or path.is_dir():
            return None
        if suffix == ".safetensors":
            return self._checkpoint(path)
        if suffix not in OTHER_FILES:
            return None
        family, problem = _elsewhere(path) or OTHER_FILES[suffix]
        # Under its whole name, lest it hide the usable model of the same stem.
        error = ProblemError(problem, family=family)
        return error.info(path, name=path.name, loader=self.name)

    def load(
        self,
        info: ModelInfo,
        *,
        device: Device,
        full_precision: bool,
        progress: Callable[[float], object] = id,
    ) -> DiffusionModel:
        """Load a checkpoint; its header is read once more, for the file may have changed."""
        from imagine_core.models.hashing import FileHash
        from imagine_plugins.loaders.assembly import assemble

        with named(info.name):
            return assemble(
                recognise_checkpoint(info.path),
                device=device,
                full_precision=full_precision,
                progress=progress,
                file_hash=FileHash(info.path),
            )

    def _checkpoint(self, path: Path) -> ModelInfo:
        try:
            with explained():
                found = flow_in_file(path, read_header(path)) or recognise_checkpoint(path)
                return found.info(path, name=path.stem, loader=self.name)
        except ProblemError as error:
            return error.info(path, name=path.stem, loader=self.name)


def _elsewhere(path: Path) -> tuple[str, str] | None:
    """What a pickle is that belongs into another folder, where it is read without running it."""
    if path.suffix.lower() not in TORCH_FILES:
        return None
    try:
        header = read_torch_file(path)
    except ProblemError:
        return None
    if (control := control_problem(header)) is not None:
        return control.family, str(control)
    problem = upscaler_problem(header)
    return None if problem is None else ("upscaler", problem)
