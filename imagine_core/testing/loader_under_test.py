"""A loader under test, with a model that it can load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from imagine_core.interfaces import Device, DiffusionModel, ModelInfo, ModelLoader
from imagine_core.testing.plugin_registration import alone


@dataclass
class Loaded:
    """A loader under test, with a model that it can load.

    Attributes:
        plugin: The plugin that registers it.
        path: The model.
        device: Where the model is to run.
        size: Width and height of the pictures to try.
        patience: Seconds that recognising the model may take.
    """

    plugin: object
    path: Path
    device: Device
    size: tuple[int, int]
    patience: float

    @cached_property
    def loader(self) -> ModelLoader:
        """The loader of the plugin that recognises the model."""
        loaders = alone(self.plugin).loaders
        for loader in loaders:
            if loader.recognise(self.path) is not None:
                return loader
        names = ", ".join(loaders.names()) or "there is none"
        raise AssertionError(f"no loader of the plugin recognises {self.path.name} ({names})")

    @cached_property
    def info(self) -> ModelInfo:
        """What it says that the model is."""
        info = self.loader.recognise(self.path)
        assert info is not None, f"it does not recognise {self.path.name}"
        return info

    @cached_property
    def model(self) -> DiffusionModel:
        """The model, loaded."""
        return self.load(self.info)

    def load(self, info: ModelInfo, progress: Callable[[float], None] = id) -> DiffusionModel:  # type: ignore[assignment]
        """A model."""
        model: DiffusionModel = self.loader.load(
            info, device=self.device, full_precision=False, progress=progress
        )
        return model
