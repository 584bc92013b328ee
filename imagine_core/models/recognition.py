"""What loaders say of a file: the first that can use it, else why none can."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from imagine_core.interfaces import ModelInfo, ModelLoader
from imagine_core.models.folders import KINDS, place_of

log = logging.getLogger("imagine")

UNREADABLE = "?"  # the family of what no loader could say anything of
NOT_TEXT = "its file name is not valid UTF-8, so that no request can name it; rename it"


def recognise(loaders: Iterable[ModelLoader], path: Path, kind: str | None) -> ModelInfo | None:
    """As `Catalogue.recognise`."""
    refusals = []
    for loader in loaders:
        info = _ask(loader, path)
        if info is not None and info.problem is None and kind in (None, info.kind):
            return askable(info)
        if info is not None:
            refusals.append(info)
    first = min(refusals, key=lambda info: _weight(info, kind), default=None)
    return first and askable(_misplaced(first, kind or first.kind))


def _weight(refusal: ModelInfo, kind: str | None) -> int:
    """Which refusal of a file that is taken for `kind` is believed: the one that weighs least."""
    if refusal.family == UNREADABLE:
        return 3
    if kind in (None, refusal.kind):
        return 0
    return 1 if refusal.problem is None else 2


def _misplaced(info: ModelInfo, kind: str) -> ModelInfo:
    """`info` as it is listed among the files of `kind`."""
    if info.problem is not None:
        return replace(info, kind=kind)
    family = info.family if info.kind == "model" else info.kind
    said = f"{KINDS[info.kind]}; it belongs {place_of(info.kind)}"
    return replace(info, kind=kind, family=family, problem=said)


def _ask(loader: ModelLoader, path: Path) -> ModelInfo | None:
    try:
        found = loader.recognise(path)
        info = found and replace(found, loader=loader.name)
    except Exception as error:  # a fault of one plugin must not hide the models of the others
        # Clients see the class alone: the message may hold a path.
        log.exception("loader %r failed on %s", loader.name, path)
        problem = f"loader {loader.name!r} failed on it with {type(error).__name__}"
        return unreadable(path, loader.name, problem)
    if info is not None and info.kind not in KINDS:
        problem = f"loader {loader.name!r} takes it for {info.kind!r}, which is no known kind"
        return unreadable(path, loader.name, problem)
    return info


def unreadable(path: Path, loader: str, problem: str) -> ModelInfo:
    """A file that no loader could say anything of but `problem`."""
    return ModelInfo(
        name=path.stem, path=path, loader=loader, family=UNREADABLE, size=0, problem=problem
    )


def askable(info: ModelInfo) -> ModelInfo:
    """`info` under a name that JSON can hold: file names are bytes."""
    try:
        info.name.encode()
    except UnicodeEncodeError:
        name = os.fsencode(info.name).decode("utf-8", "backslashreplace")
        return replace(info, name=name, problem=NOT_TEXT)
    return info
