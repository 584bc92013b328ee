"""Finds the words that an adapter was trained with in the metadata of its file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard

PHRASES = ("modelspec.trigger_phrase", "ss_trigger_words", "trigger_words", "trigger_word")
LONGEST = 200
MOST = 20


def triggers(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The words that call what was trained.

    What the metadata calls so; else the tags that all pictures of one of kohya's folders have.
    """
    said = [phrase for name in PHRASES for phrase in _phrases(metadata.get(name, ""))]
    return _shown(said or _everywhere(metadata))


def tags(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The tags of the training's pictures, the most frequent first."""
    count: Counter[str] = Counter()
    for _, folder in _folders(metadata):
        count.update(folder)
    return _shown(tag for tag, _ in count.most_common())


def _phrases(text: str) -> Iterator[str]:
    given = _json(text) if text.lstrip().startswith("[") else None
    parts = given if isinstance(given, list) else text.split(",")
    yield from (part for part in parts if isinstance(part, str) and part.strip())


def _everywhere(metadata: Mapping[str, str]) -> Iterator[str]:
    pictures = _json(metadata.get("ss_dataset_dirs", "{}"))
    for name, folder in _folders(metadata):
        known = pictures.get(name) if isinstance(pictures, dict) else None
        count = known.get("img_count") if isinstance(known, dict) else None
        if _is_count(count) and count > 1:
            yield from (tag for tag, times in folder.items() if times >= count)


def _folders(metadata: Mapping[str, str]) -> Iterator[tuple[str, dict[str, int]]]:
    folders = _json(metadata.get("ss_tag_frequency", "{}"))
    for name, folder in folders.items() if isinstance(folders, dict) else ():
        if isinstance(folder, dict):
            yield name, {tag: times for tag, times in folder.items() if _is_count(times)}


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value < 2**48


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _shown(words: Iterable[str]) -> tuple[str, ...]:
    """Each once, without blanks and line ends around and inside, the first `MOST` of them."""
    found: dict[str, None] = {}
    for word in words:
        text = " ".join("".join(c if c.isprintable() else " " for c in word[:LONGEST]).split())
        if text:
            found.setdefault(text)
        if len(found) == MOST:
            break
    return tuple(found)
