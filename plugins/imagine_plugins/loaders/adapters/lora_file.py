"""A LoRA in memory, as models take it."""

from __future__ import annotations

import re
from pathlib import Path
from weakref import WeakKeyDictionary

from imagine_core.models.hashing import FileHash
from imagine_core.parts import FittedLora, Layers
from imagine_plugins.loaders.adapters.reading import AdapterFile
from imagine_plugins.loaders.problems import named

HASH_DIGITS = 12
STATED_HASH = "sshs_model_hash"  # kohya's scripts write it: the sha256 of what follows the header


class LoraFile:
    """A LoRA in memory.

    Args:
        name: What messages call it.
        path: Where it lies.
        file: What was read of it.
    """

    def __init__(self, name: str, path: Path, file: AdapterFile) -> None:
        self.name = name
        self._file: AdapterFile | None = file
        self._fitted: WeakKeyDictionary[Layers, FittedLora] = WeakKeyDictionary()
        stated = file.header.metadata.get(STATED_HASH, "").lower()
        self._stated = stated[:HASH_DIGITS] if re.fullmatch("[0-9a-f]{64}", stated) else None
        self._hash = FileHash(path, start=file.header.start, digits=HASH_DIGITS)
        if self._stated is None:
            self._hash.start()

    @property
    def hash(self) -> str | None:
        """First 12 hex digits of the sha256 of its tensors, as A1111 has it; None until known."""
        return self._stated or self._hash.value

    def fit(self, layers: Layers) -> FittedLora:
        """What it changes in a model; raises `UnusableModel` where that is nothing."""
        if layers not in self._fitted:
            assert self._file is not None, "it was closed"
            with named(self.name, kind="LoRA"):
                self._fitted[layers] = self._file.fit(layers)
        return self._fitted[layers]

    def close(self) -> None:
        """Release the tensors and stop computing the hash."""
        self._hash.stop()
        self._file = None
        self._fitted.clear()
