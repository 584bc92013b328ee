"""Remembers on disk what files were recognised as: the headers of a thousand take seconds."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imagine_core.interfaces import ModelInfo, ModelLoader
from imagine_core.models.hashing import save_json
from imagine_core.models.stamps import Stamp
from imagine_core.version import version

WORTH_SAVING = 20
"""New files of one look at a folder: fewer are recognised sooner than written."""

MOST = 5000
TUPLES = ("fits", "takes", "recommended_size")


def default_file() -> Path:
    """Where it is remembered."""
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("imagine")) / "recognised.json"


class Remembered:
    """What files were recognised as, by path and stamp, as long as the loaders stay what they are.

    Args:
        loaders: The loaders that recognise.
        file: Where it is remembered.
    """

    def __init__(self, loaders: Iterable[ModelLoader], *, file: Path | None = None) -> None:
        self._loaders = tuple(loaders)
        self._file = file
        self._entries: dict[str, Any] | None = None
        self._new = 0

    def get(self, path: Path, kind: str, stamp: Stamp) -> ModelInfo | None:
        """What the file was, taken for `kind`; None if that is not known."""
        entry: Any = self._known().get(f"{kind}|{path}")
        with suppress(AttributeError, KeyError, TypeError, ValueError):  # the file may be damaged
            if entry["stamp"] == _written(stamp):
                fields = {**entry["info"], "path": path}
                return ModelInfo(**fields | {name: tuple(fields[name]) for name in TUPLES})
        return None

    def put(self, info: ModelInfo, kind: str, stamp: Stamp) -> None:
        """Remember it until `save`."""
        fields = {name: value for name, value in asdict(info).items() if name != "path"}
        self._known()[f"{kind}|{info.path}"] = {"stamp": _written(stamp), "info": fields}
        self._new += 1

    def save(self) -> None:
        """Write it, if it is worth it; what cannot be written is done without."""
        if self._new < WORTH_SAVING:
            return
        self._new = 0
        entries = dict(list(self._known().items())[-MOST:])
        with suppress(TypeError, ValueError):  # a plugin's details may be no JSON
            save_json(self._path(), {"loaders": _fingerprint(self._loaders), "files": entries})

    def _path(self) -> Path:
        return default_file() if self._file is None else self._file

    def _known(self) -> dict[str, Any]:
        if self._entries is None:
            self._entries = _read(self._path(), _fingerprint(self._loaders))
        return self._entries


def _read(file: Path, loaders: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
        files = content["files"] if content["loaders"] == loaders else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return files if isinstance(files, dict) else {}


def _written(stamp: Stamp) -> list[list[int]]:
    return sorted(map(list, stamp))


def _fingerprint(loaders: Iterable[ModelLoader]) -> str:
    """The same as long as no loader's code changes."""
    digest = hashlib.sha256(version().encode())
    for loader in loaders:
        module = sys.modules.get(type(loader).__module__)
        file = getattr(module, "__file__", None)
        code = [] if file is None else sorted(Path(file).parent.rglob("*.py"))
        with suppress(OSError):
            times = [each.stat().st_mtime_ns for each in code]
            digest.update(f"{loader.name}|{type(loader).__module__}|{times}".encode())
    return digest.hexdigest()
