"""`GET /openapi.json`: the requests and replies of all plugins' routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from imagine_core import hookimpl

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from imagine_core.service import Service

OPERATION = {
    "summary": "This document",
    "responses": {
        "200": {
            "description": "OpenAPI 3.1, with the bounds of this server.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
}


@hookimpl
def register_routes(register: Callable[[BaseRoute], None], service: Service) -> None:
    """Register the route; the document is made on request, when all routes exist."""
    from starlette.routing import Route

    from imagine_core.version import version
    from imagine_core.web.app import AsciiJSONResponse
    from imagine_core.web.openapi import described, document

    async def openapi(request: Request) -> Response:
        routes = request.app.routes
        return AsciiJSONResponse(document(routes, service.settings, version=version()))

    register(described(Route("/openapi.json", openapi, methods=["GET"]), OPERATION))
