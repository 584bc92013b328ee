"""The hooks that plugins implement; docs/hooks.md has a section on each.

Nouns are registered through a callback, so that a bad item raises at the plugin's own line and a
test is `plugin.register_samplers(register=items.append)`. Plugins name only the arguments they use.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from imagine_core.interfaces import (
    Device,
    Enhancer,
    HttpApi,
    ModelLoader,
    Preprocessor,
    SamplerSpec,
    UpscalerSpec,
)
from imagine_core.types import Generation

if TYPE_CHECKING:
    import click
    from starlette.routing import BaseRoute

    from imagine_core.service import Service

PROJECT = "imagine"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_devices(register: Callable[[Device], None]) -> None:
    """Register the compute devices that this plugin drives."""


@hookspec
def register_samplers(register: Callable[[SamplerSpec], None]) -> None:
    """Register the samplers that this plugin brings."""


@hookspec
def register_model_loaders(register: Callable[[ModelLoader], None]) -> None:
    """Register the model formats that this plugin reads."""


@hookspec
def register_model_folders(register: Callable[[Path], None]) -> None:
    """Register folders whose models come with this plugin; a user's model of that name wins."""


@hookspec
def register_enhancers(register: Callable[[Enhancer], None]) -> None:
    """Register the prompt enhancers that this plugin brings."""


@hookspec
def register_upscalers(register: Callable[[UpscalerSpec], None]) -> None:
    """Register upscalers that need no file; one that does is a model format."""


@hookspec
def register_preprocessors(register: Callable[[Preprocessor], None]) -> None:
    """Register what makes hints for ControlNets of pictures."""


@hookspec
def register_routes(register: Callable[[BaseRoute], None], service: Service) -> None:
    """Register HTTP routes: an API dialect, a page, a probe."""


@hookspec
def register_apis(register: Callable[[HttpApi], None]) -> None:
    """Register the APIs among this plugin's routes that other programs know."""


@hookspec
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register commands of the `imagine` program."""


@hookspec
def generation_started(generation: Generation) -> None:
    """A request was accepted: its names are resolved, and it waits in the queue."""


@hookspec
def generation_finished(generation: Generation) -> None:
    """An accepted request has ended; `generation.outcome` says how."""
