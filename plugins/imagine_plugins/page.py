"""The web page: serves the files of ui/ at `/`, and forbids other sites to frame them."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagine_core import hookimpl

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

PAGE = "imagine-ui.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Only the page's own files and server; pictures are blobs made by the page.
# Trusted types keep scripts from inserting HTML at all, and other scripts than the page's own:
# parts.js has the only policy, and makes it before any other script can.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types imagine-parts"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # The names carry no version: the browser revalidates each time (304).
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file of the page, as sent."""

    body: bytes
    media_type: str
    etag: str


def page_folder() -> Path:
    """The folder of the page's files: inside the installed package, or ui/ of a checkout."""
    package = Path(__file__).parent
    installed = package / "ui"
    return installed if installed.is_dir() else package.parent.parent / "ui"


def read_assets(folder: Path) -> dict[str, Asset]:
    """Every file of the page by its path on the server; `/` is the page itself."""
    assets = {f"/{path.relative_to(folder).as_posix()}": read_asset(path) for path in files(folder)}
    if f"/{PAGE}" in assets:
        assets["/"] = assets.pop(f"/{PAGE}")
    return assets


def files(folder: Path) -> Iterator[Path]:
    """The page's files; other files in the folder are not served."""
    return (path for path in sorted(folder.rglob("*")) if path.suffix in MEDIA_TYPES)


def read_asset(path: Path) -> Asset:
    """Read one file and compute its ETag."""
    body = path.read_bytes()
    digest = hashlib.sha256(body).hexdigest()[:32]
    return Asset(body=body, media_type=MEDIA_TYPES[path.suffix], etag=f'"{digest}"')


def asset_endpoint(asset: Asset) -> Callable[[Request], Awaitable[Response]]:
    """The response for `asset`: the file, or 304 if the browser has it."""
    from starlette.responses import Response

    headers = {**HEADERS, "etag": asset.etag}

    async def endpoint(request: Request) -> Response:
        known = request.headers.get("if-none-match", "").split(",")
        tags = {tag.strip().removeprefix("W/") for tag in known}
        if tags & {asset.etag, "*"}:
            return Response(status_code=304, headers=headers)
        return Response(asset.body, media_type=asset.media_type, headers=headers)

    return endpoint


def operation(path: str, asset: Asset) -> dict[str, Any]:
    """The entry of a file in the OpenAPI document."""
    kind = asset.media_type.partition(";")[0]
    found = {"description": "The file.", "content": {kind: {"schema": {"type": "string"}}}}
    return {
        "summary": "The web page" if path == "/" else "A file of the web page",
        "responses": {"200": found, "304": {"description": "The browser's copy is good."}},
    }


@hookimpl
def register_routes(register: Callable[[BaseRoute], None]) -> None:
    """Serve the page at `/`: one route a file, so that no path reaches others."""
    from starlette.routing import Route

    from imagine_core.web.openapi import described
    from imagine_core.web.security import without_key

    for path, asset in read_assets(page_folder()).items():
        route = Route(path, asset_endpoint(asset), methods=["GET"])
        # The user enters the key on the page, so it opens without one.
        register(without_key(described(route, operation(path, asset))))
