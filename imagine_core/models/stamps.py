"""Tells whether the files of a model were replaced."""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "sidecar_of",
]

Stamp = frozenset[tuple[int, int, int, int]]


def stamp_of(path: Path) -> Stamp:
    """What changes when a model is replaced: identity, times and size of each of its files.

    Its sidecar counts as one of them. Size and time alone would not do: fine-tunes of one
    architecture have the same size, and copying tools can keep times.
    """
    files = [*path.glob("*/*"), *path.glob("*")] if path.is_dir() else [path]
    stats = [each.stat() for each in (*files, sidecar_of(path)) if each.exists()]
    if not stats:
        raise FileNotFoundError(path)
    return frozenset((s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in stats)


def has_changed(path: Path, stamp: Stamp) -> bool:
    """Whether the model was replaced since it was stamped; False if it is gone."""
    try:
        return stamp_of(path) != stamp
    except OSError:
        return False


def sidecar_of(path: Path) -> Path:
    """Where the JSON file beside a model is, if it has one."""
    return path.with_name(f"{path.name}.json") if path.is_dir() else path.with_suffix(".json")
