"""The native HTTP API: `POST /generate`, and the routes around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from imagine_core import hookimpl

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from imagine_core.service import Service


@hookimpl
def register_routes(register: Callable[[BaseRoute], None], service: Service) -> None:
    """Register the routes; only a server imports their modules."""
    from imagine_core.web.openapi import described
    from imagine_plugins.dialects.native.operations import OPERATIONS, native_schemas
    from imagine_plugins.dialects.native.routes import native_routes

    schemas = native_schemas(service.engine.settings.limits)
    for route in native_routes(service):
        register(described(route, OPERATIONS[route.path], schemas=schemas))
