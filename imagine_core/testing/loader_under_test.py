"""A loader under test, with a model, a LoRA or an upscaler that it can load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from imagine_core.interfaces import Device, DiffusionModel, ModelInfo, ModelLoader
from imagine_core.parts import FittedLora, Layers, Lora, Upscaler
from imagine_core.registry import Registry
from imagine_core.testing.plugin_registration import alone


@dataclass(kw_only=True)
class Loaded:
    """A loader under test, with a file or a folder that it can load.

    Attributes:
        plugin: The plugin that registers it.
        path: The file or folder.
        device: Where it is to run.
        patience: Seconds that recognising it may take.
    """

    plugin: object
    path: Path
    device: Device
    patience: float

    @cached_property
    def loaders(self) -> Registry[ModelLoader]:
        """Those of the plugin."""
        return alone(self.plugin).loaders

    @cached_property
    def loader(self) -> ModelLoader:
        """The loader of the plugin that can load it; else the one that says why it cannot."""
        found = [(loader, loader.recognise(self.path)) for loader in self.loaders]
        known = [(loader, info) for loader, info in found if info is not None]
        if known:
            return min(known, key=lambda each: each[1].problem is not None)[0]
        names = ", ".join(self.loaders.names()) or "there is none"
        raise AssertionError(f"no loader of the plugin recognises {self.path.name} ({names})")

    @cached_property
    def info(self) -> ModelInfo:
        """What it says that the model is."""
        info = self.loader.recognise(self.path)
        assert info is not None, f"it does not recognise {self.path.name}"
        return info

    def load(
        self,
        info: ModelInfo,
        progress: Callable[[float], None] = lambda _: None,
        *,
        loader: ModelLoader | None = None,
    ) -> Any:
        """What is in it, as its loader or another one loads it."""
        chosen = loader or self.loader
        return chosen.load(info, device=self.device, full_precision=False, progress=progress)


@dataclass(kw_only=True)
class LoadedModel(Loaded):
    """A loader under test, with a model.

    Attributes:
        size: Width and height of the pictures to try.
    """

    size: tuple[int, int]

    @cached_property
    def model(self) -> DiffusionModel:
        """The model, loaded."""
        model: DiffusionModel = self.load(self.info)
        return model


@dataclass(kw_only=True)
class LoadedLora(Loaded):
    """A loader under test, with a LoRA.

    Attributes:
        layers: The layers of a model that it is for.
    """

    layers: Layers

    @cached_property
    def lora(self) -> Lora:
        """The LoRA, loaded."""
        lora: Lora = self.load(self.info)
        return lora

    @cached_property
    def fitted(self) -> FittedLora:
        """What it changes in the model."""
        return self.lora.fit(self.layers)


@dataclass(kw_only=True)
class LoadedUpscaler(Loaded):
    """A loader under test, with an upscaler."""

    @cached_property
    def upscaler(self) -> Upscaler:
        """The upscaler, loaded."""
        upscaler: Upscaler = self.load(self.info)
        return upscaler
