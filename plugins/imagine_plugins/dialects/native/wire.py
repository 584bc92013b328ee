"""The native wire format of requests: JSON objects with one key per field, and a few more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from imagine_core import strict_json
from imagine_core.errors import FieldError
from imagine_core.fields import from_json
from imagine_core.strict_json import Refused
from imagine_core.web.dialect import Order

MOST_WARNINGS = 20
KEEPS_NOTHING = "this server keeps no results: on_disconnect 'finish' was ignored"


def read_order(body: bytes, *, keeps: bool = True) -> Order:
    """The order in the body of `POST /generate`.

    Args:
        body: The bytes.
        keeps: Whether the server keeps results of disconnected clients.

    Raises:
        MalformedBody: The body is not a JSON object.
    """
    given = strict_json.parse_object(body)
    request, errors = from_json(given)
    progress = _take(given, "progress", strict_json.flag, errors) or False
    enhance = _take(given, "enhance", strict_json.choice, errors)
    finishes = _take(given, "on_disconnect", _finishes, errors) or False
    warnings = list(ignored(given))
    if finishes and not keeps:
        warnings.append(KEEPS_NOTHING)
    return Order(
        request=request,
        errors=tuple(errors),
        streams=progress or request.preview_every > 0,
        enhance=enhance,
        finishes=finishes,
        warnings=tuple(warnings),
        details={"progress": progress},
    )


def ignored(left: Mapping[str, object]) -> Iterable[str]:
    """A warning about the unknown keys."""
    for name in list(left)[:MOST_WARNINGS]:
        yield f"unknown key {name[:100]!r} was ignored"
    if len(left) > MOST_WARNINGS:
        yield f"{len(left) - MOST_WARNINGS} more unknown keys were ignored"


def _take(
    given: dict[str, Any], name: str, read: Callable[[object], Any], errors: list[FieldError]
) -> Any:
    """The value of a key that is not a request field; None if absent."""
    if name not in given:
        return None
    try:
        return read(given.pop(name))
    except Refused as error:
        errors.append(FieldError(name, str(error)))
        return None


def _finishes(value: object) -> bool:
    if value not in (None, "cancel", "finish"):
        raise Refused(f'must be "cancel" or "finish", not {strict_json.kind_of(value)}')
    return value == "finish"
