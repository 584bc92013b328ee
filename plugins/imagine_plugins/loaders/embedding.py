"""Loads embeddings (textual inversions): words for prompts, as vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import BytesIO
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders.components import FLOATS
from imagine_plugins.loaders.header import (
    Header,
    HeaderError,
    Tensor,
    modelspec,
    parse_header,
    read_header,
)
from imagine_plugins.loaders.inversions import Inversion, inversion
from imagine_plugins.loaders.problems import ProblemError, named

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from imagine_core.interfaces import Device

HASH_DIGITS = 10
PICKLES = {".pt", ".bin"}
PICKLE = (
    "this is a pickle, and loading one runs whatever code it holds; convert it to safetensors: "
    """python -c "import sys, torch, safetensors.torch as s; p = sys.argv[1]; """
    """d = torch.load(p, 'cpu', weights_only=True); d = d.get('string_to_param', d); """
    """d = {k: v.detach().clone() for k, v in d.items()}; """
    """s.save_file(d, p.rpartition('.')[0] + '.safetensors')" FILE"""
)
GONE = "it is no embedding any more"
NOT_FINITE = (
    "its vectors are not all numbers (NaN or infinite): its training failed, or the file is damaged"
)


class TextualInversion:
    """A loaded embedding.

    Args:
        vectors: [vectors, width] for each text encoder, float32 on the CPU.
        file_hash: First 10 hex digits of the file's sha256.
    """

    def __init__(self, vectors: Mapping[str, torch.Tensor], file_hash: str) -> None:
        self.vectors = vectors
        self.hash: str | None = file_hash

    def close(self) -> None:
        """Release the vectors."""
        self.vectors = {}


class EmbeddingLoader:
    """Recognises `.safetensors` files of A1111, kohya, diffusers, ComfyUI and OneTrainer."""

    name = "embedding"

    def recognise(self, path: Path) -> ModelInfo | None:
        """The embedding in a file; None for any other file, broken ones included."""
        suffix = path.suffix.lower()
        if path.name.startswith(".") or path.is_dir():
            return None
        if suffix in PICKLES:
            return self._pickle(path)
        if suffix != ".safetensors":
            return None
        try:
            header = read_header(path)
        except HeaderError:  # the loader of checkpoints says what is wrong with it
            return None
        found = inversion(header)
        return None if found is None else self._info(path, header, found)

    def load(
        self,
        info: ModelInfo,
        *,
        device: Device,
        full_precision: bool,
        progress: Callable[[float], object] = id,
    ) -> TextualInversion:
        """Load the vectors into the CPU's memory: each text encoder casts them as it needs them."""
        del device, full_precision, progress
        with named(info.name, kind="embedding"):
            data = info.path.read_bytes()
            header = parse_header(BytesIO(data), len(data))
            found = inversion(header)
            if found is None or found.problem is not None:
                raise ProblemError(GONE if found is None else str(found.problem))
            vectors = {
                component: _vectors(data, header.tensors[key])
                for component, key in found.keys.items()
            }
        return TextualInversion(vectors, hashlib.sha256(data).hexdigest()[:HASH_DIGITS])

    def _info(self, path: Path, header: Header, found: Inversion) -> ModelInfo:
        tensors = [header.tensors[key] for key in found.keys.values()]
        told: dict[str, object] = {
            "triggers": [path.stem],
            "vectors": found.vectors,
            "width": found.width,
            "components": list(found.keys),
            "left_out": list(found.left_out),
        }
        return ModelInfo(
            name=path.stem,
            path=path,
            loader=self.name,
            kind="embedding",
            family=found.family,
            fits=found.fits,
            size=header.size,
            problem=found.problem,
            parameters=sum(prod(tensor.shape) for tensor in tensors),
            dtype=FLOATS.get(tensors[0].dtype),
            metadata=modelspec(header),
            details={} if found.problem else {key: value for key, value in told.items() if value},
        )

    def _pickle(self, path: Path) -> ModelInfo:
        return ModelInfo(
            name=path.name,  # lest it hide the usable one of the same stem
            path=path,
            loader=self.name,
            kind="embedding",
            family="pickle",
            size=path.stat().st_size if path.is_file() else 0,
            problem=PICKLE,
        )


def _vectors(data: bytes, stored: Tensor) -> torch.Tensor:
    import torch

    values = torch.frombuffer(bytearray(data[stored.start : stored.end]), dtype=torch.uint8)
    vectors = values.view(getattr(torch, FLOATS[stored.dtype])).float()
    if not vectors.isfinite().all():
        raise ProblemError(NOT_FINITE)
    return vectors.view(-1, stored.shape[-1])
