"""The loader of single-file checkpoints, and the one that says what other files are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from imagine_core.errors import UnusableModel
from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders.counting import count
from imagine_plugins.loaders.recognition import recognise_checkpoint

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
        """Say what a file is; folders and files that are no models are none of its business."""
        suffix = path.suffix.lower()
        if path.name.startswith(".") or path.is_dir():
            return None
        if suffix == ".safetensors":
            return self._checkpoint(path)
        if suffix not in OTHER_FILES:
            return None
        family, problem = OTHER_FILES[suffix]
        return ModelInfo(
            name=path.name,  # whole, lest it hide the usable model of the same stem
            path=path,
            loader=self.name,
            family=family,
            size=_size(path),
            problem=problem,
        )

    def load(
        self,
        info: ModelInfo,
        *,
        device: Device,
        full_precision: bool,
        progress: Callable[[float], object] = id,
    ) -> DiffusionModel:
        """Load a checkpoint; what it is gets read anew, the file may have changed."""
        from imagine_plugins.loaders.assembly import Source, assemble
        from imagine_plugins.loaders.hashing import FileHash
        from imagine_plugins.loaders.problems import named

        found = recognise_checkpoint(info.path)
        if found.problem is not None or found.architecture is None:
            raise UnusableModel(info.name, found.problem or "it is no checkpoint")
        source = Source(
            architecture=found.architecture,
            slots=found.slots,
            weights=found.weights,
            read=found.files.get,
            file_hash=FileHash(info.path),
            progress=progress,
        )
        with named(info.name):
            return assemble(source, device=device, full_precision=full_precision)

    def _checkpoint(self, path: Path) -> ModelInfo:
        found = recognise_checkpoint(path)
        plan = found.architecture
        parameters, dtype = count(found.slots, found.weights) if found.slots else (None, None)
        return ModelInfo(
            name=path.stem,
            path=path,
            loader=self.name,
            family=found.family,
            size=_size(path),
            problem=found.problem,
            parameters=parameters,
            dtype=dtype,
            clip_layers=None if plan is None else plan.clip_layers,
            recommended_size=found.recommended_size,
            metadata=found.metadata,
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
