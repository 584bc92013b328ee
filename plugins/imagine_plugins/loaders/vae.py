"""Loads VAEs: files and folders that turn latents into pictures and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders import configs
from imagine_plugins.loaders.components import FLOATS, Meter
from imagine_plugins.loaders.flow.vaes import VAES
from imagine_plugins.loaders.folder import INDEX, component_weights, file_reader
from imagine_plugins.loaders.header import modelspec, read_header, recognised
from imagine_plugins.loaders.problems import ProblemError, named
from imagine_plugins.loaders.unsupported import unsupported
from imagine_plugins.loaders.vae_layouts import VaeFile, vae_in_file, vae_of, vae_problem

if TYPE_CHECKING:
    from imagine_core.interfaces import Device
    from imagine_core.parts import Vae

CONFIG = "config.json"
CLASSES = configs.CLASSES["vae"]
FLOW_CLASSES = tuple(vae.config["_class_name"] for vae in VAES.values())


class VaeLoader:
    """Loads `.safetensors` files and diffusers folders of AutoencoderKL and TAESD."""

    name = "vae"

    def recognise(self, path: Path) -> ModelInfo | None:
        """The VAE in a file or a folder; None for any other, broken files included."""
        return recognised(path, kind="vae", loader=self.name, look=self._look)

    def load(
        self,
        info: ModelInfo,
        *,
        device: Device,
        full_precision: bool,
        progress: Callable[[float], object] = id,
    ) -> Vae:
        """Load a VAE; its header is read once more, for the file may have changed."""
        import torch

        from imagine_core.models.hashing import FileHash
        from imagine_plugins.loaders.assembly import autoencoder_network
        from imagine_plugins.loaders.autoencoder import LoadedVae

        with named(info.name, kind="VAE"):
            found = _examine(info.path)
            if found is None:
                raise ProblemError("it is no VAE any more", family="vae")
            vae, _ = found
            if vae.problem is not None:
                raise ProblemError(vae.problem, family=vae.family)
            dtype = device.vae_dtype(torch.float32 if full_precision else device.dtype())
            network = autoencoder_network(
                vae.config,
                vae.component,
                device=device,
                dtype=dtype,
                meter=Meter({"vae": vae.component}, progress),
            )
            files = {stored.path for stored in vae.component.read}
            return LoadedVae(network, FileHash(*files).start() if len(files) == 1 else None)

    def _look(self, path: Path, name: str) -> ModelInfo | None:
        found = _examine(path)
        return found and self._info(path, name, *found)

    def _info(self, path: Path, name: str, vae: VaeFile, metadata: Mapping[str, str]) -> ModelInfo:
        numbers: Counter[str] = Counter()
        for stored in vae.component.read:
            numbers[stored.tensor.dtype] += prod(stored.tensor.shape)
        details: dict[str, object] = {"decoder": "fast"} if vae.is_tiny else {}
        return ModelInfo(
            name=name,
            path=path,
            loader=self.name,
            kind="vae",
            family=vae.family,
            fits=vae.fits,
            problem=vae.problem,
            size=sum(file.stat().st_size for file in {s.path for s in vae.component.read}),
            parameters=numbers.total(),
            dtype=FLOATS.get(max(numbers, key=numbers.__getitem__)),
            metadata=metadata,
            details=details if vae.encodes else details | {"encoder": False},
        )


def _examine(path: Path) -> tuple[VaeFile, Mapping[str, str]] | None:
    """The VAE at `path`, and what it says of itself; raises `ProblemError` or OSError."""
    if path.is_dir():
        return _in_folder(path)
    if path.suffix.lower() != ".safetensors":
        return None
    header = read_header(path)
    if vae_problem(header) is None:
        return None
    told = unsupported(header)  # which is asked as well, for larger models hold VAEs
    if told is None or told.family != "vae":
        return None
    try:
        return vae_in_file(path, header), modelspec(header)
    except ProblemError as error:
        error.metadata = modelspec(header)
        raise


def _in_folder(folder: Path) -> tuple[VaeFile, Mapping[str, str]] | None:
    """The VAE of a diffusers folder; None for a folder of anything else."""
    if not (folder / CONFIG).is_file() or (folder / INDEX).exists():
        return None
    config = file_reader(folder)(CONFIG)
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(kind, str) or "autoencoder" not in kind.lower():
        return None
    if kind not in CLASSES + FLOW_CLASSES:
        wanted = " or ".join(CLASSES)
        problem = f"this VAE is of the class {kind:.80}; only {wanted} is supported"
        raise ProblemError(problem, family="vae")
    return vae_of(component_weights(folder), config=config, told=[folder.name]), {}
