"""OpenAI's Images API: pictures under /v1/images, models in /v1/models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from imagine_core import HttpApi, hookimpl

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from imagine_core.service import Service


@hookimpl
def register_routes(register: Callable[[BaseRoute], None], service: Service) -> None:
    """Register the routes; only a server imports their modules."""
    from imagine_plugins.dialects.openai.routes import openai_routes

    for route in openai_routes(service):
        register(route)


@hookimpl
def register_apis(register: Callable[[HttpApi], None]) -> None:
    """Register the API for the programs that know it."""
    register(
        HttpApi(
            name="OpenAI API",
            path="/v1",
            programs=("Open WebUI", "LibreChat", "the openai packages"),
            key="the server's key",
            no_key="any key",
        )
    )
