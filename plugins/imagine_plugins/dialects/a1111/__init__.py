"""A1111's HTTP API under `/sdapi/v1`, which many programs speak."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from imagine_core import HttpApi, hookimpl

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from imagine_core.service import Service


@hookimpl
def register_apis(register: Callable[[HttpApi], None]) -> None:
    """Register what to enter into programs."""
    programs = ("SillyTavern", "Open WebUI", "LibreChat", "webuiapi")
    key, no_key = "authentication user:KEY", "no authentication"
    register(HttpApi(name="A1111 API", path="", programs=programs, key=key, no_key=no_key))


@hookimpl
def register_routes(register: Callable[[BaseRoute], None], service: Service) -> None:
    """Register the routes; only a server imports their module."""
    from imagine_plugins.dialects.a1111.routes import a1111_routes

    for route in a1111_routes(service):
        register(route)
