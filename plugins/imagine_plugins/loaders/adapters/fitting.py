"""Matches the tensors of an adapter file with the modules of a model, from the header alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from imagine_plugins.loaders.adapters.kinds import SCALARS, Kinds, Unfit, kinds_of
from imagine_plugins.loaders.adapters.modules import Module, Modules, Target, without_mask
from imagine_plugins.loaders.adapters.names import EMBEDDING, Spelled, embedding, spelled
from imagine_plugins.loaders.components import FLOATS
from imagine_plugins.loaders.header import Header

INTEGERS = {  # which alphas are stored in as well
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "U16": "uint16",
    "I32": "int32",
    "U32": "uint32",
    "I64": "int64",
    "U64": "uint64",
}
SHOWN_NAMES, SHOWN_REASONS = 3, 8


class Leftover(NamedTuple):
    """Something in a file that is not applied.

    Attributes:
        name: A module as the file calls it, or a tensor.
        reason: Why, as the end of a sentence that begins with "it is left out: ".
    """

    name: str
    reason: str


class Fitted(NamedTuple):
    """A module that a file changes.

    Attributes:
        module: Which.
        keys: The file's tensors by part.
        kinds: What they are.
    """

    module: Module
    keys: Mapping[str, str]
    kinds: Kinds


@dataclass(frozen=True, slots=True)
class Fitting:
    """What of a file fits a model.

    Attributes:
        fitted: The modules that it changes.
        leftovers: What else it has.
        words: Tensors of bundled embeddings: by word, then by encoder ("clip_l", "clip_g", "").
    """

    fitted: Mapping[Target, Fitted]
    leftovers: tuple[Leftover, ...]
    words: Mapping[str, Mapping[str, str]]


Spellings = Mapping[str, Spelled | None]
"""What the names of a file's tensors say."""


def spellings(header: Header) -> Spellings:
    """What the names of a file's tensors say, but for bundled embeddings."""
    return {name: spelled(name) for name in header.tensors if not name.startswith(EMBEDDING)}


def fit(header: Header, said: Spellings, modules: Modules) -> Fitting:
    """Match a file with a model; never fails."""
    sorting = _Sorting(header, said, modules)
    fitted: dict[Target, Fitted] = {}
    for target, keys in sorting.keys.items():
        try:
            fitted[target] = _fitted(header, keys, modules[target])
        except Unfit as error:
            sorting.leave(_stem(keys.values()), str(error))
    return Fitting(fitted, tuple(sorting.leftovers), sorting.words)


class _Sorting:
    """Sorts tensors by the modules that they belong to."""

    def __init__(self, header: Header, said: Spellings, modules: Modules) -> None:
        self.keys: dict[Target, dict[str, str]] = {}
        self.words: dict[str, dict[str, str]] = {}
        self.leftovers: list[Leftover] = []
        self._unknown: dict[tuple[str | None, str], list[str]] = {}
        for name in header.tensors:
            if name.startswith(EMBEDDING):
                self._take_word(name)
            else:
                self._take(name, said[name], modules)
        for (component, module), names in self._unknown.items():
            self.leave(_stem(names), _lack(component, module, modules))

    def leave(self, name: str, reason: str) -> None:
        self.leftovers.append(Leftover(name, reason))

    def _take(self, name: str, said: Spelled | None, modules: Modules) -> None:
        if said is None:
            self.leave(name, "no such tensor is known")
            return
        module = modules.find(said.component, said.module)
        if module is None:
            self._unknown.setdefault((said.component, said.module), []).append(name)
            return
        keys = self.keys.setdefault(module.target, {})
        if said.part in keys:
            self.leave(name, f"the file has it as {keys[said.part]} too")
        else:
            keys[said.part] = name

    def _take_word(self, name: str) -> None:
        word = embedding(name)
        if word is None:
            self.leave(name, "Stable Diffusion has no such text encoder")
        else:
            self.words.setdefault(word[0], {})[word[1]] = name


def _lack(component: str | None, module: str, modules: Modules) -> str:
    """Why a model has no module of a name."""
    if component is not None and component not in modules.components:
        return f"this model has no {component}"
    if component is None and any(modules.find(each, module) for each in modules.components):
        return "the file does not say which text encoder it is for"
    return "this model has no such module"


def _fitted(header: Header, keys: Mapping[str, str], module: Module) -> Fitted:
    for part, key in keys.items():
        dtype = header.tensors[key].dtype
        if dtype not in FLOATS and not (part in SCALARS and dtype in INTEGERS):
            raise Unfit(f"its {part} holds {dtype}, which is not supported")
    shapes = {part: header.tensors[key].shape for part, key in keys.items()}
    try:
        return Fitted(module, keys, kinds_of(shapes, module))
    except Unfit as error:
        narrow = without_mask(module)
        if narrow is None or {"magnitude", "dora_scale"} & set(shapes):
            raise
        try:
            return Fitted(narrow, keys, kinds_of(shapes, narrow))
        except Unfit:
            raise error from None


def _stem(names: Iterable[str]) -> str:
    """What the names of a module's tensors have in common."""
    first, *others = names
    stem = first.rpartition(".")[0] or first
    for other in others:
        while not other.startswith(stem):
            stem = stem.rpartition(".")[0]
    return stem.removesuffix(".lora") or first


def sentences(leftovers: Iterable[Leftover]) -> Iterator[str]:
    """What is left out: a sentence for each reason, with the first names and how many follow."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in leftovers:
        by_reason.setdefault(reason, []).append(name)
    for reason, names in list(by_reason.items())[:SHOWN_REASONS]:
        shown = ", ".join(map(_shown, names[:SHOWN_NAMES]))
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        yield f"{shown}{more} left out: {reason}"
    others = sum(map(len, list(by_reason.values())[SHOWN_REASONS:]))
    if others:
        yield f"{others} more left out for other reasons"


def _shown(name: str) -> str:
    """A name from a file as it may be printed."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= 120 else f"{text[:117]}..."
