"""The marks on routes: their access rules, their OpenAPI description and their error format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.routing import BaseRoute, Match

if TYPE_CHECKING:
    from starlette.types import Scope

R = TypeVar("R", bound=BaseRoute)
Failure = tuple[int, bytes] | tuple[int, bytes, Mapping[str, str]]
"""The status and the JSON body of an error, and further headers if it needs any."""

Fail = Callable[[Exception], Failure]
"""Makes the answer to an error."""

ATTRIBUTE = "imagine_marks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What the application knows of a route.

    Attributes:
        without_key: Whether it needs no API key.
        open_to_files: Whether pages that were opened from a file may call it.
        operation: Its Operation Object of OpenAPI, without the parts common to all routes.
        schemas: The schemas that the operation refers to, by name.
        fail: Formats its errors and those of the guards before it; None for the usual form.
        error: The schema of its errors; None for that of the usual form.
        prefix: Unknown paths that begin with it get errors of its form as well.
    """

    without_key: bool = False
    open_to_files: bool = False
    operation: Mapping[str, Any] = field(default_factory=dict)
    schemas: Mapping[str, Any] = field(default_factory=dict)
    fail: Fail | None = None
    error: Mapping[str, Any] | None = None
    prefix: str | None = None


def marks_of(route: BaseRoute | None) -> Marks:
    """The marks of a route; those of no route allow nothing."""
    marks = getattr(route, ATTRIBUTE, None)
    return marks if isinstance(marks, Marks) else Marks()


def mark(route: R, **changes: Any) -> R:
    """Change some marks of a route, and return it."""
    setattr(route, ATTRIBUTE, replace(marks_of(route), **changes))
    return route


def route_of(routes: Sequence[BaseRoute], scope: Scope) -> BaseRoute | None:
    """The route that answers a request."""
    return next((route for route in routes if route.matches(scope)[0] is Match.FULL), None)


def fail_of(routes: Sequence[BaseRoute], scope: Scope) -> Fail | None:
    """The error formatter of a request, even if no route answers it; None for the usual form."""
    if scope["type"] != "http":
        return None
    matches = [(route.matches(scope)[0], route) for route in routes]
    for wanted in (Match.FULL, Match.PARTIAL):
        for match, route in matches:
            if match is wanted:
                return marks_of(route).fail
    path = scope["path"]
    near = [marks for marks in map(marks_of, routes) if marks.prefix is not None]
    near = [marks for marks in near if path.startswith(marks.prefix or "")]
    return max(near, key=lambda marks: len(marks.prefix or "")).fail if near else None
