"""Reads an adapter file for a model: each module's change, and what is left out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from imagine_core.parts import Change, FittedLora, Layers
from imagine_plugins.loaders.adapters.conversion import change_of, is_finite
from imagine_plugins.loaders.adapters.fitting import (
    INTEGERS,
    Fitting,
    Leftover,
    fit,
    sentences,
    spellings,
)
from imagine_plugins.loaders.adapters.forms import Full
from imagine_plugins.loaders.adapters.kinds import Unfit
from imagine_plugins.loaders.adapters.modules import Module, Modules, Target, modules_of
from imagine_plugins.loaders.adapters.recognition import (
    FAMILIES,
    TITLES,
    AdapterInfo,
    adapter_info,
)
from imagine_plugins.loaders.adapters.scales import Scales
from imagine_plugins.loaders.components import FLOATS
from imagine_plugins.loaders.header import Header, parse_header
from imagine_plugins.loaders.problems import ProblemError, explained

ENCODERS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
TOKENS = "embeddings.token_embedding"


class AdapterError(ProblemError):
    """An adapter that a model cannot take; the text names the file, its family and the model's."""


@dataclass(frozen=True, slots=True, eq=False)
class AdapterFile:
    """An adapter file in memory.

    Attributes:
        name: The file's.
        header: What it says before its first tensor.
        scales: What its configurations say.
        data: Bytes of its tensors, as (size,) uint8.
    """

    name: str
    header: Header
    scales: Scales
    data: torch.Tensor

    def fit(self, layers: Layers) -> FittedLora:
        """What it changes in a model, views of its bytes; raises `AdapterError` for nothing."""
        fitting = fit(self.header, spellings(self.header), modules_of(layers))
        _require(self, layers, fitting)
        return _Reading(self, layers, fitting).result()


def read_adapter(path: Path) -> AdapterFile:
    """Read an adapter file whole.

    Raises:
        ProblemError: It is no safetensors file, or it cannot be read.
    """
    with explained(), path.open("rb") as file:
        header = parse_header(file, os.fstat(file.fileno()).st_size)
        file.seek(header.start)
        data = bytearray(header.size - header.start)
        if file.readinto(data) != len(data):
            raise AdapterError("the file became shorter while it was read; copy it again")
        bytes_ = torch.frombuffer(data, dtype=torch.uint8) if data else torch.zeros(0).byte()
        return AdapterFile(path.name, header, Scales(header, path), bytes_)


class _Reading:
    """Makes the changes of a model's layers of a file."""

    def __init__(self, file: AdapterFile, layers: Layers, fitting: Fitting) -> None:
        self._file = file
        self._header = file.header
        self._layers = layers
        self._modules: Modules = modules_of(layers)
        self._fitting = fitting
        self._leftovers = list(fitting.leftovers)

    def result(self) -> FittedLora:
        changes = {str(target): change for target, change in self._changes()}
        words = self._words()
        self._leftovers += [
            Leftover(pattern, "its alpha is for a pattern of names, which is not read")
            for pattern in self._file.scales.unread()
        ]
        if not changes and not words:
            raise _nothing(self._file, self._layers, self._leftovers)
        return FittedLora(changes=changes, words=words, warnings=tuple(sentences(self._leftovers)))

    def _changes(self) -> Iterator[tuple[Target, Change]]:
        for target, fitted in self._fitting.fitted.items():
            tensors = {part: self._tensor(key) for part, key in fitted.keys.items()}
            try:
                change = change_of(tensors, fitted.module, said=self._file.scales.of(target))
            except Unfit as error:
                self._leftovers.append(Leftover(str(target), str(error)))
            else:
                yield target, self._widened(change, fitted.module)

    def _widened(self, change: Change, module: Module) -> Change:
        """The change of a first convolution that has no channels for mask and picture, with zeros.

        As in A1111, which pads them too.
        """
        if module == self._modules[module.target]:
            return change
        difference = change.dense(module.shape, torch.float32)
        missing = self._modules[module.target].shape[1] - module.shape[1]
        padded = torch.nn.functional.pad(difference, (0, 0, 0, 0, 0, missing))
        return replace(change, updates=(Full(padded),) if change.updates else ())

    def _tensor(self, key: str) -> torch.Tensor:
        stored = self._header.tensors[key]
        dtype = getattr(torch, FLOATS.get(stored.dtype) or INTEGERS[stored.dtype])
        first = self._header.start
        values = self._file.data[stored.start - first : stored.end - first]
        if values.storage_offset() % dtype.itemsize:
            values = values.clone()
        return values.view(dtype).view(stored.shape)

    def _words(self) -> dict[str, dict[str, torch.Tensor]]:
        found: dict[str, dict[str, torch.Tensor]] = {}
        widths = {
            component: self._modules[Target(component, TOKENS)].shape[1]
            for component in self._modules.components
            if Target(component, TOKENS) in self._modules
        }
        for word, keys in self._fitting.words.items():
            for encoder, key in keys.items():
                stored = self._header.tensors[key]
                fits = [name for name, width in widths.items() if stored.shape[-1:] == (width,)]
                component = ENCODERS.get(encoder) or next(iter(fits), "")
                if component not in fits or len(stored.shape) > 2 or stored.dtype not in FLOATS:
                    self._leftovers.append(Leftover(key, "no text encoder takes its shape"))
                    continue
                vectors = self._tensor(key).reshape(-1, widths[component])
                if not len(vectors) or not is_finite(vectors):
                    self._leftovers.append(Leftover(key, "it has no vectors of finite numbers"))
                else:
                    found.setdefault(word, {})[component] = vectors
        return found


def _require(file: AdapterFile, layers: Layers, fitting: Fitting) -> None:
    """Refuse a file that is for another model: part of it may fit by chance."""
    if not fitting.leftovers and (fitting.fitted or fitting.words):
        return
    info = adapter_info(file.header)
    if info is None:
        raise AdapterError(f"{file.name} is no LoRA: it has no tensor that belongs to one")
    if _is_foreign(info, layers, fitting):
        title = TITLES[info.family]
        problem = f"{file.name} is for {title}, and this model is {_title(layers)}"
        raise AdapterError(problem, family=info.family)
    if not fitting.fitted and not fitting.words:
        raise _nothing(file, layers, fitting.leftovers)


def _is_foreign(info: AdapterInfo, layers: Layers, fitting: Fitting) -> bool:
    """Whether another family takes more of it; a family of one's own takes whatever fits."""
    if fitting.fitted and not (info.fits and layers.family in FAMILIES):
        return False
    return info.family != "unknown" and layers.family not in {*info.fits, info.family}


def _nothing(file: AdapterFile, layers: Layers, leftovers: Iterable[Leftover]) -> AdapterError:
    why = next(iter(sentences(leftovers)), "it is empty")
    return AdapterError(f"nothing in {file.name} fits this model ({_title(layers)}): {why}")


def _title(layers: Layers) -> str:
    return TITLES.get(layers.family, layers.family)
