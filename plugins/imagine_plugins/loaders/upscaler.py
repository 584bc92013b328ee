"""Loads networks that enlarge pictures: ESRGAN, Real-ESRGAN and its compact ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders.components import FLOATS, Meter
from imagine_plugins.loaders.control_layouts import control_problem
from imagine_plugins.loaders.header import (
    Header,
    first_tensor,
    modelspec,
    read_header,
    recognised,
)
from imagine_plugins.loaders.problems import ProblemError, named
from imagine_plugins.loaders.torch_file import TORCH_FILES, read_torch_file
from imagine_plugins.loaders.upscaler_layouts import UpscalerFile, upscaler_in

if TYPE_CHECKING:
    import torch

    from imagine_core.interfaces import Device
    from imagine_core.parts import Upscaler

NOT_FINITE = (
    "its weights are not all numbers (NaN or infinite): its training failed, or the file is damaged"
)
NO_UPSCALER = "it holds no upscaler in a layout known here; ESRGAN, Real-ESRGAN and compact are"


class UpscalerLoader:
    """Loads `.safetensors` files and files of `torch.save`, whose pickles it never runs."""

    name = "upscaler"

    def recognise(self, path: Path) -> ModelInfo | None:
        """The network in a file; None for others, of which other loaders know more."""
        if path.is_dir() or path.suffix.lower() not in {".safetensors", *TORCH_FILES}:
            return None
        return recognised(path, kind="upscaler", loader=self.name, look=self._look)

    def load(
        self,
        info: ModelInfo,
        *,
        device: Device,
        full_precision: bool,
        progress: Callable[[float], object] = id,
    ) -> Upscaler:
        """Load a network; its header is read once more, for the file may have changed."""
        import torch

        from imagine_core.models.hashing import FileHash
        from imagine_plugins.loaders.upscaler_tiles import LoadedUpscaler

        with named(info.name, kind="upscaler"):
            found = upscaler_in(info.path, header_of(info.path))
            if found is None:
                raise ProblemError("it is no upscaler any more")
            dtype = torch.float32 if full_precision else device.dtype()
            network = _network(found, device, dtype, progress)
            return LoadedUpscaler(network, found, FileHash(info.path).start())

    def _look(self, path: Path, name: str) -> ModelInfo | None:
        header = header_of(path)
        found = upscaler_in(path, header)
        if found is not None:
            return self._info(path, name, header, found)
        if path.suffix.lower() in TORCH_FILES:
            raise control_problem(header) or ProblemError(f"{NO_UPSCALER}{first_tensor(header)}")
        return None

    def _info(self, path: Path, name: str, header: Header, found: UpscalerFile) -> ModelInfo:
        numbers: Counter[str] = Counter()
        for stored in found.component.read:
            numbers[stored.tensor.dtype] += prod(stored.tensor.shape)
        return ModelInfo(
            name=name,
            path=path,
            loader=self.name,
            kind="upscaler",
            family=found.family,
            size=header.size,
            parameters=numbers.total(),
            dtype=FLOATS.get(max(numbers, key=numbers.__getitem__)),
            metadata=modelspec(header),
            details={"factor": found.factor, "architecture": found.architecture},
        )


def header_of(path: Path) -> Header:
    """The header of a file in either format; raises `HeaderError`."""
    return read_torch_file(path) if path.suffix.lower() in TORCH_FILES else read_header(path)


def _network(
    found: UpscalerFile,
    device: Device,
    dtype: torch.dtype,
    progress: Callable[[float], object],
) -> Any:
    """The network on the device; in float32 where its weights are too large for `dtype`."""
    import torch

    from imagine_plugins.loaders.upscaler_networks import network
    from imagine_plugins.loaders.weights import build

    for each in dict.fromkeys((dtype, torch.float32)):
        built = build(
            lambda: network(found),
            found.component,
            dtype=each,
            device=device.torch_device(),
            meter=Meter({"upscaler": found.component}, progress),
        )
        if all(value.isfinite().all() for value in built.parameters()):
            return built
    raise ProblemError(NOT_FINITE, family="upscaler")
