"""Reads request targets as clients mean them: in absolute form, and with a slash too many."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

SLASHES = re.compile(r"/{2,}")
ABSOLUTE = re.compile(rb"https?://([^/]*)(.*)", re.IGNORECASE | re.DOTALL)


class OriginForm:
    """Gives the application the path of `GET http://host/path`, and its host as the Host header.

    RFC 9112, 3.2.2: the host of the target replaces the header, so the guards check that one.
    Programs that join an address and a path make `//sdapi/v1/txt2img` of `http://host/`; paths with
    repeated slashes, or one at the end, are those without.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a path as its target."""
        target = ABSOLUTE.fullmatch(scope.get("raw_path") or b"")
        if target is not None:
            path = target[2] or b"/"
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope = {
                **scope,
                "raw_path": path,
                "path": unquote(path.decode("ascii", "replace")),
                "headers": [(b"host", target[1]), *others],
            }
        if scope["type"] == "http":
            scope = {**scope, "path": SLASHES.sub("/", scope["path"]).rstrip("/") or "/"}
        await self.app(scope, receive, send)
