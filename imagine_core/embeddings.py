"""Finds the names of embeddings in prompts: the same names wherever a prompt is read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from imagine_core.prompting import parse

__all__ = [
    "EmbeddingNames",
    "missing_embeddings",
    "named_embeddings",
]

_UNIT = re.compile(r"\w[\w\u0300-\u036f]*|\s+|.", re.DOTALL)  # accents may be marks of their own
_EXPLICIT = ("embedding", ":")  # as ComfyUI writes them: embedding:NAME, with or without an ending
_ENDINGS = {(".", "safetensors"), (".", "pt"), (".", "bin")}
_MISSING = re.compile(r"\bembedding:([^\s,:<>|]+)", re.IGNORECASE)


class EmbeddingNames:
    """The names of embeddings, to be found in text.

    A name counts in any capital letters where no letter, digit or underscore touches it. Of names
    that begin at one place the longest wins, and of names that overlap the first. A run of blanks
    in a name is any run of blanks in the text. `embedding:NAME` and `embedding:NAME.safetensors`
    are the same as NAME. A name without a letter or a digit is never found.

    Args:
        names: The names, in any order.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._root: dict[str, Any] = {}  # a trie of units, whose leaves lie under ""
        for name in sorted(names):
            node = self._root
            for unit in _folded(_UNIT.findall(name.strip())):
                node = node.setdefault(unit, {})
            if any(map(str.isalnum, name)):
                node.setdefault("", name)

    def __bool__(self) -> bool:
        """Whether there is any name."""
        return bool(self._root)

    def split(self, text: str) -> Iterator[tuple[str, str | None]]:
        """The pieces of a text, and for each the name that it is or None; joined, they are it."""
        units = _UNIT.findall(text) if self._root else [text]
        folded = _folded(units)
        begin = at = 0
        while at < len(units):
            name, end = self._explicit(folded, at) or self._longest(folded, at)
            if name is not None:
                if begin < at:
                    yield "".join(units[begin:at]), None
                yield "".join(units[at:end]), name
                begin = end
            at = end
        if begin < len(units):
            yield "".join(units[begin:]), None

    def _explicit(self, units: Sequence[str], at: int) -> tuple[str, int] | None:
        if tuple(units[at : at + 2]) != _EXPLICIT:
            return None
        name, end = self._longest(units, at + 2)
        if name is None:
            return None
        return name, end + 2 * (tuple(units[end : end + 2]) in _ENDINGS)

    def _longest(self, units: Sequence[str], at: int) -> tuple[str | None, int]:
        """The longest name that begins at `at`, and where it ends; None, and the next place."""
        node, found, end = self._root, None, at + 1
        for place in range(at, len(units)):
            node = node.get(units[place], {})
            if not node:
                break
            if "" in node:
                found, end = node[""], place + 1
        return found, end


def named_embeddings(prompt: str, names: Iterable[str]) -> list[str]:
    """Those of `names` that a prompt names, in the order in which it names them first."""
    known = EmbeddingNames(names)
    if not known:
        return []
    found = (name for run in parse(prompt) for _, name in known.split(run.text))
    return list(dict.fromkeys(name for name in found if name is not None))


def missing_embeddings(prompt: str, names: Iterable[str]) -> list[str]:
    """What a prompt calls `embedding:NAME` though none of `names` is that."""
    if not _MISSING.search(prompt):
        return []
    known = EmbeddingNames(names)
    texts = (text for run in parse(prompt) for text, name in known.split(run.text) if name is None)
    return list(dict.fromkeys(word for text in texts for word in _MISSING.findall(text)))


def _folded(units: Sequence[str]) -> list[str]:
    """Units as they are compared: capitals, the composition of accents and blanks are alike."""
    return [
        " " if unit.isspace() else unicodedata.normalize("NFC", unit.casefold()) for unit in units
    ]
