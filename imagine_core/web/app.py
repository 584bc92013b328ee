"""The HTTP application: the routes of all plugins, and one answer for each kind of error."""

from __future__ import annotations

import asyncio
import copy
import http
import json
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from imagine_core import errors
from imagine_core.errors import ImagineError
from imagine_core.web.access import Access
from imagine_core.web.bodies import BodyGuard
from imagine_core.web.marks import Fail, fail_of
from imagine_core.web.refusals import kind_of, log_refusal
from imagine_core.web.security import KeyGuard, OriginGuard
from imagine_core.web.targets import OriginForm

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from imagine_core.service import Service

__all__ = [
    "STATUS",
    "AsciiJSONResponse",
    "Sent",
    "build_app",
    "error_response",
    "explain",
    "json_line",
]

log = logging.getLogger("imagine")

STATUS: dict[type[ImagineError], int] = {
    errors.ImagineError: 500,
    errors.RequestError: 422,
    errors.MalformedRequest: 400,
    errors.MalformedBody: 400,
    errors.EncodedBody: 415,
    errors.BodyTooLarge: 413,
    errors.UnknownName: 404,
    errors.NoModel: 404,
    errors.UnusableModel: 422,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.Busy: 503,
    errors.ShuttingDown: 503,
    errors.Stalled: 503,
    errors.Cancelled: 409,
    errors.OutOfMemory: 507,
    errors.GenerationFailed: 500,
    errors.EnhancerFailed: 502,
    errors.Offline: 503,
    errors.ServerFailed: 502,
    errors.InvalidFile: 422,
    errors.SettingsError: 500,
    errors.PluginError: 500,
}
"""The HTTP status of every error, decided nowhere else."""


def build_app(service: Service) -> Starlette:
    """The application over `service`: its plugins' routes behind the guards of its settings."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.engine.start()
        yield
        await asyncio.to_thread(service.engine.close)

    routes = service.plugins.routes(service)
    access = Access(service.settings)
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: _no_such_route},
        middleware=[
            Middleware(OriginForm),
            Middleware(OriginGuard, access=access, routes=routes, refuse=error_response),
            Middleware(Faults, routes=routes),
            Middleware(KeyGuard, access=access, routes=routes),
            Middleware(
                BodyGuard,
                limit=service.engine.settings.limits.body,
                stopping=lambda: service.engine.stopping,
            ),
        ],
    )
    app.router.redirect_slashes = False  # a redirected POST loses its body in many clients
    return app


class AsciiJSONResponse(Response):
    """JSON in ASCII: lone surrogates, which a client may have sent, cannot break it."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """`content` as one line."""
        return json_line(content)


def json_line(content: object) -> bytes:
    """`content` as one line of ASCII JSON, with a newline for terminals."""
    return json.dumps(content, allow_nan=False).encode("ascii") + b"\n"


def explain(error: Exception) -> tuple[int, dict[str, Any]]:
    """The status and the body of `error`; a fault of the server is logged under an id in the body.

    Dialects with an error format of their own, and streams that have begun, build on this. An
    error that reaches several clients is logged once, under one id.
    """
    answer: tuple[int, dict[str, Any]] | None = getattr(error, "imagine_answer", None)
    if answer is None:
        answer = _explain(error)
        setattr(error, "imagine_answer", answer)  # noqa: B010 - the attribute is ours, not theirs
    return answer


def without_frames(error: Exception) -> ImagineError:
    """`error` to keep, without its traceback, which holds the pictures of its frames."""
    kept = copy.copy(error) if isinstance(error, ImagineError) else ImagineError(str(error))
    setattr(kept, "imagine_answer", explain(error))  # noqa: B010 - the attribute is ours
    return kept


def _explain(error: Exception) -> tuple[int, dict[str, Any]]:
    if isinstance(error, HTTPException):
        return error.status_code, error_body(kind_of(error), str(error.detail))
    if not isinstance(error, ImagineError):
        number = _logged("a request failed", error)
        body = error_body(
            "internal", f"the server failed; its log says why under {number}", id=number
        )
        return 500, body
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    more: dict[str, Any] = {}
    if isinstance(error, errors.UnknownName):
        more["nearest"] = list(error.nearest)
    if isinstance(error, errors.Busy):
        more["retry_after"] = error.retry_after
    if status == http.HTTPStatus.INTERNAL_SERVER_ERROR:
        more["id"] = _logged(error.message, error)
    fields = getattr(error, "fields", ())
    listed = [{"field": each.field, "message": each.message} for each in fields]
    return status, error_body(error.type, error.message, listed, **more)


def fail_with_json(error: Exception) -> tuple[int, bytes]:
    """The status and the JSON body of `error`, in the usual form."""
    status, body = explain(error)
    return status, json_line(body)


def error_response(error: Exception, fail: Fail | None = None) -> Response:
    """The response to `error`, in the form that `fail` makes."""
    status, body, *further = (fail or fail_with_json)(error)
    headers: dict[str, str] = dict(*further)
    if isinstance(error, errors.Busy):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.EncodedBody):
        headers["Accept-Encoding"] = "identity"  # RFC 9110, 15.5.16
    return Response(body, status, headers, media_type="application/json")


def error_body(
    kind: str, message: str, fields: list[dict[str, str]] | None = None, **more: object
) -> dict[str, Any]:
    """The body of an error."""
    return {"error": {"type": kind, "message": message, "fields": fields or [], **more}}


class Sent:
    """The `send` of one request; `begun` says whether anything was sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        """Send `message`."""
        self.begun = True
        await self._send(message)


class Faults:
    """Turns exceptions of the application into responses, and logs their tracebacks."""

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        self.app, self.routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application; respond for it if it raises."""
        sent = Sent(send)
        try:
            await self.app(scope, receive, sent)
        except ClientDisconnect:
            log.debug("a client left while it sent its request")
        except Exception as error:
            if scope["type"] != "http" or sent.begun:
                raise  # the server closes the connection, so the client sees that half is missing
            log_refusal(scope, error)
            response = error_response(error, fail_of(self.routes, scope))
            await response(scope, receive, send)


def _logged(message: str, error: Exception) -> str:
    """Log `error` with its traceback; returns the id that it is logged under."""
    number = secrets.token_hex(6)
    log.error("error %s: %s", number, message, exc_info=error)
    return number


async def _no_such_route(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (404, 405), in our words and the form of the route's dialect."""
    assert isinstance(error, HTTPException)
    path, routes = request.url.path[:200], request.app.routes
    messages = {
        404: f"there is no {path!r} here{_hint(path, routes)}",
        405: f"{path!r} does not take {request.method[:20]}",
    }
    told = HTTPException(error.status_code, messages.get(error.status_code, str(error.detail)))
    log_refusal(request.scope, told)
    response = error_response(told, fail_of(routes, request.scope))
    response.headers.update(error.headers or {})
    return response


def _hint(path: str, routes: Sequence[BaseRoute]) -> str:
    """The route that is meant where an address was entered with a part too much or too little."""
    for known in (route.path for route in routes if isinstance(route, Route)):
        if len(known) > 1 and (known.endswith(path) or path.endswith(known)) and path != "/":
            return f"; did you mean {known!r}?"
    return ""
