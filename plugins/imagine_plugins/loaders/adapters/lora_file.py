"""A LoRA in memory, as models take it."""

from __future__ import annotations

import hashlib
import re
from weakref import WeakKeyDictionary

from imagine_core.parts import FittedLora, Layers
from imagine_plugins.loaders.adapters.reading import AdapterFile
from imagine_plugins.loaders.problems import named

HASH_DIGITS = 12
STATED_HASH = "sshs_model_hash"  # kohya's scripts write it: the sha256 of what follows the header


class LoraFile:
    """A LoRA in memory.

    Args:
        name: What messages call it.
        file: What was read of it.
    """

    def __init__(self, name: str, file: AdapterFile) -> None:
        self.name = name
        self._file: AdapterFile | None = file
        self._fitted: WeakKeyDictionary[Layers, FittedLora] = WeakKeyDictionary()
        stated = file.header.metadata.get(STATED_HASH, "").lower()
        whole = stated if re.fullmatch("[0-9a-f]{64}", stated) else _sha256(file)
        self.hash = whole[:HASH_DIGITS]

    def fit(self, layers: Layers) -> FittedLora:
        """What it changes in a model; raises `UnusableModel` where that is nothing."""
        if layers not in self._fitted:
            assert self._file is not None, "it was closed"
            with named(self.name, kind="LoRA"):
                self._fitted[layers] = self._file.fit(layers)
        return self._fitted[layers]

    def close(self) -> None:
        """Release the tensors."""
        self._file = None
        self._fitted.clear()


def _sha256(file: AdapterFile) -> str:
    """Of the tensors' bytes: a second for a gigabyte, and equal requests give equal pictures."""
    return hashlib.sha256(file.data.numpy().data).hexdigest()
