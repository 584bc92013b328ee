"""Registers the formats of models and of what changes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from imagine_core import hookimpl

if TYPE_CHECKING:
    from imagine_core import ModelLoader


@hookimpl
def register_model_loaders(register: Callable[[ModelLoader], None]) -> None:
    """Register all. They are imported here: `imagine --help` has no use for them."""
    from imagine_plugins.loaders.checkpoint import CheckpointLoader
    from imagine_plugins.loaders.controlnet import ControlNetLoader
    from imagine_plugins.loaders.embedding import EmbeddingLoader
    from imagine_plugins.loaders.folder import FolderLoader
    from imagine_plugins.loaders.lora import LoraLoader
    from imagine_plugins.loaders.upscaler import UpscalerLoader
    from imagine_plugins.loaders.vae import VaeLoader

    register(CheckpointLoader())
    register(FolderLoader())
    register(LoraLoader())
    register(EmbeddingLoader())
    register(VaeLoader())
    register(ControlNetLoader())
    register(UpscalerLoader())
