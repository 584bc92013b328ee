"""Reads an adapter file for a model: each module's change, and what is left out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from imagine_core.parts import Change
from imagine_plugins.loaders.adapters.conversion import change_of
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
from imagine_plugins.loaders.architectures import Architecture
from imagine_plugins.loaders.components import FLOATS
from imagine_plugins.loaders.configs import component_name
from imagine_plugins.loaders.header import Header, parse_header
from imagine_plugins.loaders.problems import ProblemError, explained

ENCODERS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}


class AdapterError(ProblemError):
    """An adapter that a model cannot take; the text names the file, its family and the model's."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adapter:
    """An adapter as a model takes it.

    Attributes:
        changes: By module.
        words: Bundled embeddings: by word and component, (vectors, width).
        leftovers: What of the file is not applied.
        size: Bytes that it takes in memory: those of the file's tensors.
    """

    changes: Mapping[Target, Change]
    words: Mapping[str, Mapping[str, torch.Tensor]]
    leftovers: tuple[Leftover, ...]
    size: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is left out, in a sentence for each reason."""
        return tuple(sentences(self.leftovers))


def read_adapter(path: Path, plan: Architecture) -> Adapter:
    """Read an adapter for a model of an architecture.

    Raises:
        AdapterError: Nothing of it fits; the text says what it is for.
        ProblemError: It is no safetensors file, or it cannot be read.
    """
    with explained(), path.open("rb") as file:
        header = parse_header(file, os.fstat(file.fileno()).st_size)
        modules = modules_of(plan)
        fitting = fit(header, spellings(header), modules)
        _require(path, header, plan, fitting)
        file.seek(_start(header))
        data = bytearray(header.size - _start(header))
        if file.readinto(data) != len(data):
            raise AdapterError("the file became shorter while it was read; copy it again")
        scales = Scales(header, path)
    return _Reading(header, modules, fitting, scales, data).adapter(path, plan)


class _Reading:
    """Makes an adapter of a file's bytes."""

    def __init__(
        self,
        header: Header,
        modules: Modules,
        fitting: Fitting,
        scales: Scales,
        data: bytearray,
    ) -> None:
        self._header = header
        self._modules = modules
        self._fitting = fitting
        self._scales = scales
        self._start = _start(header)
        self._bytes = torch.frombuffer(data or bytearray(1), dtype=torch.uint8)
        self._leftovers = list(fitting.leftovers)

    def adapter(self, path: Path, plan: Architecture) -> Adapter:
        changes = dict(self._changes())
        words = self._words(plan)
        self._leftovers += [
            Leftover(pattern, "its alpha is for a pattern of names, which is not read")
            for pattern in self._scales.unread()
        ]
        left = tuple(self._leftovers)
        if not changes and not words:
            raise _nothing(path, plan, left)
        return Adapter(changes=changes, words=words, leftovers=left, size=self._bytes.nbytes)

    def _changes(self) -> Iterator[tuple[Target, Change]]:
        for target, fitted in self._fitting.fitted.items():
            tensors = {part: self._tensor(key) for part, key in fitted.keys.items()}
            try:
                change = change_of(tensors, fitted.module, said=self._scales.of(target))
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
        values = self._bytes[stored.start - self._start : stored.end - self._start]
        if values.storage_offset() % dtype.itemsize:
            values = values.clone()
        return values.view(dtype).view(stored.shape)

    def _words(self, plan: Architecture) -> dict[str, dict[str, torch.Tensor]]:
        found: dict[str, dict[str, torch.Tensor]] = {}
        widths = {
            component_name("text_encoder", number): part.config["hidden_size"]
            for number, part in enumerate(plan.texts)
        }
        for word, keys in self._fitting.words.items():
            for encoder, key in keys.items():
                stored = self._header.tensors[key]
                fits = [name for name, width in widths.items() if stored.shape[-1:] == (width,)]
                component = ENCODERS.get(encoder) or next(iter(fits), "")
                if component not in fits or len(stored.shape) > 2 or stored.dtype not in FLOATS:
                    self._leftovers.append(Leftover(key, "no text encoder takes its shape"))
                else:
                    vectors = self._tensor(key).reshape(-1, widths[component])
                    found.setdefault(word, {})[component] = vectors
        return found


def _start(header: Header) -> int:
    """Where the tensors' bytes begin."""
    return min((tensor.start for tensor in header.tensors.values()), default=header.size)


def _require(path: Path, header: Header, plan: Architecture, fitting: Fitting) -> None:
    """Refuse a file that is for another model: part of it may fit by chance."""
    if not fitting.leftovers and (fitting.fitted or fitting.words):
        return
    info = adapter_info(header)
    if info is None:
        raise AdapterError(f"{path.name} is no LoRA: it has no tensor that belongs to one")
    if _is_foreign(info, plan, fitting):
        title = TITLES[info.family]
        problem = f"{path.name} is for {title}, and this model is {_title(plan)}"
        raise AdapterError(problem, family=info.family)
    if not fitting.fitted and not fitting.words:
        raise _nothing(path, plan, fitting.leftovers)


def _is_foreign(info: AdapterInfo, plan: Architecture, fitting: Fitting) -> bool:
    """Whether another family takes more of it; a family of one's own takes whatever fits."""
    if fitting.fitted and not (info.fits and plan.family in FAMILIES):
        return False
    return info.family != "unknown" and plan.family not in {*info.fits, info.family}


def _nothing(path: Path, plan: Architecture, leftovers: Iterable[Leftover]) -> AdapterError:
    why = next(iter(sentences(leftovers)), "it is empty")
    return AdapterError(f"nothing in {path.name} fits this model ({_title(plan)}): {why}")


def _title(plan: Architecture) -> str:
    return TITLES.get(plan.family, plan.family)
