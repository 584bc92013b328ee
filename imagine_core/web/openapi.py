"""Builds the OpenAPI document of an application from the descriptions of its routes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.routing import BaseRoute, Route

from imagine_core.errors import (
    BodyTooLarge,
    Busy,
    EncodedBody,
    Forbidden,
    ImagineError,
    MalformedBody,
    MalformedRequest,
    Unauthorized,
)
from imagine_core.web.app import STATUS
from imagine_core.web.marks import Marks, mark, marks_of

if TYPE_CHECKING:
    from imagine_core.settings import ServerSettings

__all__ = [
    "described",
    "document",
    "failures",
    "json_content",
    "operation",
    "reference",
    "shape",
]

Json = dict[str, Any]
R = TypeVar("R", bound=BaseRoute)

OPENAPI = "3.1.0"
WITH_BODY = {"POST", "PUT", "PATCH"}
EVERYWHERE: tuple[type[ImagineError], ...] = (MalformedRequest, Forbidden, Busy)
"""Errors that any request may get before its route is known."""

ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message", "fields"],
            "properties": {
                "type": {"type": "string", "description": "A name for programs."},
                "message": {"type": "string", "description": "What, which, and what to do."},
                "fields": {
                    "type": "array",
                    "description": "Every field that is wrong.",
                    "items": {
                        "type": "object",
                        "required": ["field", "message"],
                        "properties": {
                            "field": {"type": "string"},
                            "message": {"type": "string"},
                        },
                    },
                },
                "nearest": {
                    "type": "array",
                    "description": "Of an unknown name: those that look like it.",
                    "items": {"type": "string"},
                },
                "retry_after": {
                    "type": "integer",
                    "description": "Seconds after which another try is likely to help.",
                },
                "id": {"type": "string", "description": "What the server's log has it under."},
            },
        }
    },
}

BUG: Json = {
    "description": "`internal`: a bug; the server's log says more under the error's `id`.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
SCHEMES = {
    "key": {"type": "http", "scheme": "bearer"},
    "password": {"type": "http", "scheme": "basic", "description": "Any user name."},
    "header": {"type": "apiKey", "in": "header", "name": "api-key"},
}
"""The ways to send the key."""

TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object"}
"""Python's types that `shape` knows, in JSON Schema."""


def described(
    route: R, operation: Mapping[str, Any], *, schemas: Mapping[str, Any] | None = None
) -> R:
    """Describe a route for `GET /openapi.json`.

    Errors of every route, the key and parameters of the path are added to the description.

    Args:
        route: The route.
        operation: An Operation Object of OpenAPI 3.1: `summary`, `requestBody`, `responses`, ...
        schemas: Schemas that it refers to as `#/components/schemas/NAME`.
    """
    return mark(route, operation=operation, schemas=schemas or {})


def shape(form: object) -> Json:
    """The schema of values like `form`, in which types stand for their values.

    {"name": str} is an object with that key, [int] an array of whole numbers, (str, None) either,
    dict any object, object any value. What is no type is a constant.
    """
    match form:
        case dict():
            properties = {name: shape(each) for name, each in form.items()}
            return {"type": "object", "required": list(form), "properties": properties}
        case list():
            items = shape(tuple(form)) if len(form) > 1 else shape(form[0]) if form else False
            return {"type": "array", "items": items}
        case tuple():
            return {"anyOf": [shape(each) for each in form]}
        case type():
            return {"type": TYPES[form]} if form in TYPES else {}
    return {"const": form}


def failures(*kinds: type[ImagineError], error: str = "Error") -> dict[str, Json]:
    """The responses of an operation that raises `kinds`, by status; `error` is their schema."""
    meanings: defaultdict[int, list[str]] = defaultdict(list)
    headers: defaultdict[int, Json] = defaultdict(dict)
    for kind in kinds:
        status = next(STATUS[each] for each in kind.__mro__ if each in STATUS)
        meanings[status].append(f"`{kind.type}`: {(kind.__doc__ or '').partition(chr(10))[0]}")
        if issubclass(kind, Busy):
            headers[status]["Retry-After"] = {"schema": {"type": "integer"}, "required": True}
        if issubclass(kind, Unauthorized):
            headers[status]["WWW-Authenticate"] = {"schema": {"type": "string"}, "required": True}
        if issubclass(kind, EncodedBody):
            headers[status]["Accept-Encoding"] = {"schema": {"type": "string"}, "required": True}
    return {
        str(status): {
            "description": "\n\n".join(lines),
            **({"headers": headers[status]} if headers[status] else {}),
            "content": {"application/json": {"schema": reference(error)}},
        }
        for status, lines in sorted(meanings.items())
    }


def operation(
    summary: str,
    form: object,
    *raises: type[ImagineError],
    takes: str | None = None,
    query: Sequence[str] = (),
    error: str = "Error",
) -> Json:
    """An Operation Object with a JSON answer like `form`, see `shape`.

    Args:
        summary: What it does.
        form: The answer.
        raises: Its errors.
        takes: The name of the schema of its body.
        query: Truth values in the query.
        error: The name of the schema of its errors.
    """
    answer = {
        "description": "The answer.",
        "content": json_content(shape(form)),
    }
    whole: Json = {
        "summary": summary,
        "responses": {"200": answer, **failures(*raises, error=error)},
    }
    boolean = {"in": "query", "schema": {"type": "boolean"}}
    if query:
        whole["parameters"] = [{"name": name, **boolean} for name in query]
    if takes is not None:
        whole["requestBody"] = {"required": True, "content": json_content(reference(takes))}
    return whole


def reference(name: str) -> Json:
    """A reference to the document's schema `name`."""
    return {"$ref": f"#/components/schemas/{name}"}


def json_content(schema: Json | Mapping[str, Any]) -> Json:
    """The content of a body in JSON."""
    return {"application/json": {"schema": schema}}


def document(routes: Sequence[BaseRoute], settings: ServerSettings, *, version: str) -> Json:
    """The OpenAPI document of `routes` on a server with `settings`."""
    wants_key = settings.api_key is not None
    paths: dict[str, Json] = {}
    schemas: Json = {"Error": ERROR}
    for route in routes:
        if not isinstance(route, Route):
            continue  # mounts and websockets are no operations
        marks = marks_of(route)
        schemas |= marks.schemas
        for method in methods(route):
            key = wants_key and not marks.without_key
            whole = _operation(route, method, marks, key=key)
            paths.setdefault(plain(route.path), {})[method.lower()] = whole
    components: Json = {"schemas": schemas}
    if wants_key:
        components["securitySchemes"] = SCHEMES
    return {
        "openapi": OPENAPI,
        "info": {"title": "Imagine", "version": version},
        "paths": paths,
        "components": components,
    }


def methods(route: Route) -> list[str]:
    """The methods to document; every route with GET has HEAD as well, so HEAD is left out."""
    return sorted((route.methods or {"GET"}) - {"HEAD"})


def plain(path: str) -> str:
    """A Starlette path in OpenAPI's notation, without types of parameters."""
    return re.sub(r"{(\w+):\w+}", r"{\1}", path)


def _operation(route: Route, method: str, marks: Marks, *, key: bool) -> Json:
    said = marks.operation
    usual: list[type[ImagineError]] = [*EVERYWHERE]
    if method in WITH_BODY:
        usual += [MalformedBody, BodyTooLarge, EncodedBody]
    if key:
        usual.append(Unauthorized)
    words = re.findall(r"\w+", plain(route.path)) or ["root"]
    whole: Json = {
        "operationId": "_".join([method.lower(), *words]),
        **said,
    }
    whole["parameters"] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in route.param_convertors
    ] + said.get("parameters", [])
    # OpenAPI requires a response, even of a route without a description.
    mine = said.get("responses", {"default": {"description": "Not described."}})
    errors = {**failures(*usual), "500": BUG}
    if marks.fail is not None and (marks.error is not None or not said):
        own = {} if marks.error is None else {"content": json_content(marks.error)}
        errors = {
            status: {name: value for name, value in error.items() if name != "content"} | own
            for status, error in errors.items()
        }
    whole["responses"] = _merged(mine, errors)
    if key:
        whole["security"] = [{name: []} for name in SCHEMES]
    return whole


def _merged(mine: Mapping[str, Json], usual: Mapping[str, Json]) -> dict[str, Json]:
    """The responses of both, by status; the descriptions of one status are joined."""
    merged = {**usual, **mine}
    for status in mine.keys() & usual.keys():
        lines = _lines(mine[status], usual[status])
        merged[status] = {**usual[status], **mine[status], "description": "\n\n".join(lines)}
    return {status: merged[status] for status in sorted(merged)}


def _lines(*responses: Json) -> Iterable[str]:
    def every() -> Iterator[str]:
        for response in responses:
            yield from response["description"].split("\n\n")

    return dict.fromkeys(every())
