"""Registers the model formats: single-file checkpoints and diffusers folders."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from imagine_core import hookimpl

if TYPE_CHECKING:
    from imagine_core import ModelLoader


@hookimpl
def register_model_loaders(register: Callable[[ModelLoader], None]) -> None:
    """Register both. They are imported here: `imagine --help` has no use for them."""
    from imagine_plugins.loaders.checkpoint import CheckpointLoader
    from imagine_plugins.loaders.folder import FolderLoader

    register(CheckpointLoader())
    register(FolderLoader())
