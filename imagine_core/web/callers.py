"""Tells clients apart: by their key and their address."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = [
    "caller_of",
]


def caller_of(request: Request) -> str:
    """The client of a request, as a name that does not disclose its key.

    Programs behind one address with one key are one client.
    """
    address = "" if request.client is None else request.client.host
    key = request.headers.get("authorization") or request.headers.get("api-key") or ""
    return hashlib.sha256(f"{address} {key}".encode()).hexdigest()
