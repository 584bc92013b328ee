"""Logs a request that was refused before any work was done for it."""

from __future__ import annotations

import http
import logging
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from imagine_core.errors import ImagineError

if TYPE_CHECKING:
    from starlette.types import Scope

log = logging.getLogger("imagine")


def log_refusal(scope: Scope, error: Exception) -> None:
    """Log the route and the kind of error, never what the client wrote.

    Routes whose requests are logged elsewhere set `imagine_logged` in their scope.
    """
    if scope.get("imagine_logged"):
        return
    kind = kind_of(error)
    names = [each.field for each in getattr(error, "fields", ())]
    method, path = scope.get("method", "?"), scope["path"][:100]
    log.info(
        "refused %s %s: %s%s",
        method,
        path,
        kind,
        f" ({', '.join(names)})" if names else "",
        extra={
            "fields": {
                "outcome": "refused",
                "method": method,
                "path": path,
                "error": kind,
                "wrong": names,
            }
        },
    )


def kind_of(error: Exception) -> str:
    """The name of the kind of `error` for programs."""
    if isinstance(error, HTTPException):
        return http.HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return error.type if isinstance(error, ImagineError) else "internal"
