"""The guards of the application: they refuse unknown hosts and origins, and missing keys.

Any web page can make a browser post to this machine. curl sends JSON without a JSON content type,
so the content type cannot tell such requests apart; the Origin header that browsers add does. A
page can also make its own host name resolve to this machine (DNS rebinding): then Origin and Host
agree, and only the Host gives it away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute

from imagine_core.errors import Forbidden, ImagineError, MalformedRequest, Unauthorized
from imagine_core.web.marks import fail_of, mark, marks_of, route_of
from imagine_core.web.refusals import log_refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from imagine_core.web.access import Access
    from imagine_core.web.marks import Fail

__all__ = [
    "FILE_ORIGINS",
    "open_to_files",
    "without_key",
]

R = TypeVar("R", bound=BaseRoute)

FILE_ORIGINS = ("null", "file://")
"""The Origin of pages that were opened as files. Sandboxed frames of any site send "null" too, so
it opens only routes that do not show the work of other clients."""

SINGLE = (
    *("host", "origin", "authorization", "api-key", "content-type"),
    "access-control-request-method",
)
"""Headers that a request may have once (RFC 9110, 5.3). Of two, a proxy may judge one and this
server the other, so requests with two are refused."""


# ------------------------------------------------------------------------------ marks on routes


def without_key(route: R) -> R:
    """Mark a route that needs no API key, such as a probe or a page that asks for the key."""
    return mark(route, without_key=True)


def open_to_files(route: R) -> R:
    """Mark a route for pages opened from a file: it must not show the work of other clients."""
    return mark(route, open_to_files=True)


# ---------------------------------------------------------------------------------- middleware


class OriginGuard:
    """Refuses unknown hosts and origins, and lets allowed pages read the answers (CORS).

    Args:
        app: The application behind.
        access: Decides on hosts and origins.
        routes: The application's routes, with their marks.
        refuse: Builds the response for a refusal.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Access,
        routes: Sequence[BaseRoute],
        refuse: Callable[[ImagineError, Fail | None], Response],
    ) -> None:
        self.app, self.access, self.routes, self.refuse = app, access, routes, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the headers; answer preflights."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check(scope, headers)
        except (MalformedRequest, Forbidden) as error:
            log_refusal(scope, error)
            await _refuse(scope, receive, send, self.refuse(error, fail_of(self.routes, scope)))
            return
        origin = headers.get("origin")
        if origin is not None and _is_preflight(scope, headers):
            response = Response(status_code=204, headers=_preflight_headers(headers))
            await response(scope, receive, _readable(send, origin))
            return
        await self.app(scope, receive, _readable(send, origin))

    def _check(self, scope: Scope, headers: Headers) -> None:
        for name in SINGLE:
            if len(headers.getlist(name)) > 1:
                raise MalformedRequest(f"it has more than one {name.title()} header")
        host = headers.get("host")  # None: an HTTP/1.0 client, and so no browser
        if host is not None and not self.access.host(host):
            raise Forbidden("Host", host)
        origin = headers.get("origin")
        if origin is None or self.access.origin(origin, host or ""):
            return
        asked = scope
        if _is_preflight(scope, headers):
            asked = {**scope, "method": headers["access-control-request-method"]}
        opened = marks_of(route_of(self.routes, asked)).open_to_files
        if not (opened and origin.lower() in FILE_ORIGINS):
            raise Forbidden("Origin", origin)


class KeyGuard:
    """Requires the API key on every route that is not marked `without_key`."""

    def __init__(self, app: ASGIApp, *, access: Access, routes: Sequence[BaseRoute]) -> None:
        self.app, self.access, self.routes = app, access, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the key."""
        if scope["type"] in ("http", "websocket"):
            free = marks_of(route_of(self.routes, scope)).without_key
            if not (free or self.access.key(Headers(scope=scope))):
                raise Unauthorized
        await self.app(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send, response: Response) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
    else:
        await response(scope, receive, send)


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    return scope.get("method") == "OPTIONS" and "access-control-request-method" in headers


def _preflight_headers(asked: Headers) -> dict[str, str]:
    """Allow any method and header: an allowed page may call every route."""
    granted = {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers": asked.get("access-control-request-headers", "*"),
        "Access-Control-Max-Age": "600",
    }
    if asked.get("access-control-request-private-network") == "true":
        granted["Access-Control-Allow-Private-Network"] = "true"
    return granted


def _readable(send: Send, origin: str | None) -> Send:
    """`send` with the headers that let a page of `origin` read the answer."""

    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.add_vary_header("Origin")
            if origin is not None:
                headers["Access-Control-Allow-Origin"] = origin
                headers["Access-Control-Expose-Headers"] = "Retry-After, X-Job-Id"
        await send(message)

    return sender
