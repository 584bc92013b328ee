"""Recognises and loads LoRAs: files that change what a model draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from imagine_core.interfaces import ModelInfo
from imagine_core.models.folders import FOLDERS
from imagine_plugins.loaders.adapters.fitting import sentences
from imagine_plugins.loaders.adapters.recognition import AdapterInfo, adapter_info
from imagine_plugins.loaders.components import FLOATS
from imagine_plugins.loaders.header import Header, HeaderError, modelspec, read_header
from imagine_plugins.loaders.problems import named
from imagine_plugins.loaders.unsupported import unfit

if TYPE_CHECKING:
    from imagine_core.interfaces import Device
    from imagine_plugins.loaders.adapters.lora_file import LoraFile


MOST_WORDS, LONGEST_WORD = 100, 100  # as many bundled embeddings are told
NAMELESS = frozenset(("adapter_model", "pytorch_lora_weights"))


class LoraLoader:
    """Loads `.safetensors` adapters: LoRA, LoCon, LoHa, LoKr, DoRA, full differences."""

    name = "lora"

    def recognise(self, path: Path) -> ModelInfo | None:
        """The LoRA in a file; None for any other file, broken ones included."""
        if path.name.startswith(".") or path.suffix.lower() != ".safetensors":
            return None
        try:
            header = read_header(path)
        except HeaderError:  # the loader of checkpoints says what is wrong with it
            return None
        info = adapter_info(header)
        return None if info is None else self._info(path, header, info)

    def load(
        self,
        info: ModelInfo,
        *,
        device: Device,
        full_precision: bool,
        progress: Callable[[float], object] = id,
    ) -> LoraFile:
        """Read a LoRA into memory; what models make of it goes to their device."""
        from imagine_plugins.loaders.adapters.lora_file import LoraFile
        from imagine_plugins.loaders.adapters.reading import read_adapter

        del device, full_precision, progress
        with named(info.name, kind="LoRA"):
            return LoraFile(info.name, read_adapter(info.path))

    def _info(self, path: Path, header: Header, info: AdapterInfo) -> ModelInfo:
        numbers: Counter[str] = Counter()
        for tensor in header.tensors.values():
            numbers[tensor.dtype] += prod(tensor.shape)
        return ModelInfo(
            name=_name(path),
            path=path,
            loader=self.name,
            kind="lora",
            family=info.family,
            fits=info.fits,
            size=header.size,
            problem=unfit(info),
            parameters=numbers.total(),
            dtype=FLOATS.get(max(numbers, key=numbers.__getitem__, default="")),
            metadata=modelspec(header),
            details=_details(info),
        )


def _name(path: Path) -> str:
    """What it is called: where trainers call every file the same, as its folder is."""
    folder = path.parent.name
    return folder if path.stem in NAMELESS and folder not in FOLDERS.values() else path.stem


def _details(info: AdapterInfo) -> dict[str, object]:
    """What `imagine show` says of an adapter, without what it does not have."""
    told: dict[str, object] = {
        "triggers": list(info.triggers),
        "tags": list(info.tags),
        "forms": list(info.kinds),
        "ranks": list(info.ranks),
        "modules": info.modules,
        "components": list(info.components),
        "embeddings": [word[:LONGEST_WORD] for word in info.words[:MOST_WORDS]],
        "left_out": [] if info.own_sizes else list(sentences(info.leftovers)),
    }
    return {name: value for name, value in told.items() if value}
