"""Reads the keys of an order that every dialect has beside the fields of its request."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from imagine_core import strict_json
from imagine_core.errors import FieldError, ImagineError, MalformedBody, UnknownName
from imagine_core.fields import FIELDS
from imagine_core.interfaces import steps_to_run
from imagine_core.kinds import Axes, Borders, Decimal, Flag, Side, Whole
from imagine_core.strict_json import Refused
from imagine_core.web.forms import Part, read_form

if TYPE_CHECKING:
    from starlette.requests import Request

    from imagine_core.service import Service
    from imagine_core.types import ResolvedRequest
from imagine_core.uses_field import Uses

__all__ = [
    "ignored",
    "known_model",
    "preview_interval",
    "read_extras",
    "read_fields",
    "take",
]

MOST_WARNINGS = 20
MANY = 10_000
WHOLE = re.compile(r"-?\d{1,100}", re.ASCII)
TYPED = {
    name
    for each in FIELDS
    if isinstance(each.kind, Whole | Side | Decimal | Flag | Axes | Borders | Uses)
    for name in (each.name, each.wire)
}
KEEPS_NOTHING = "this server keeps no results: on_disconnect 'finish' was ignored"


def read_extras(given: dict[str, Any], errors: list[FieldError], *, keeps: bool) -> dict[str, Any]:
    """What `Order` takes from the keys "enhance" and "on_disconnect", and a warning of the rest.

    Args:
        given: What is left of the body; both keys are taken out.
        errors: Gets the keys that cannot be read.
        keeps: Whether the server keeps results of disconnected clients.
    """
    enhance = take(given, "enhance", strict_json.choice, errors)
    finishes = take(given, "on_disconnect", _finishes, errors) or False
    warnings = list(ignored(given))
    if finishes and not keeps:
        warnings.append(KEEPS_NOTHING)
    return {"enhance": enhance, "finishes": finishes, "warnings": tuple(warnings)}


def take(
    given: dict[str, Any], name: str, read: Callable[[object], Any], errors: list[FieldError]
) -> Any:
    """The value of a key that is not a request field; None if absent or not to be read."""
    if name not in given:
        return None
    try:
        return read(given.pop(name))
    except Refused as error:
        errors.append(FieldError(name, str(error)))
        return None


def ignored(left: Mapping[str, object]) -> Iterable[str]:
    """A warning about the unknown keys."""
    for name in list(left)[:MOST_WARNINGS]:
        yield f"unknown key {name[:100]!r} was ignored"
    if len(left) > MOST_WARNINGS:
        yield f"{len(left) - MOST_WARNINGS} more unknown keys were ignored"


def read_fields(
    body: bytes, request: Request, *, typed: Collection[str] = ()
) -> tuple[dict[str, Any], list[Part]]:
    """The fields of a JSON object or of a form, and the files of the form.

    Of a form, numbers, booleans and lists are read as in JSON for those fields of
    `GenerationRequest` that are such, under either name, and for `typed`.

    Raises:
        MalformedBody: The body is neither.
    """
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/"):
        return strict_json.parse_object(body), []
    given: dict[str, Any] = {}
    files = []
    for part in read_form(body, content_type):
        if part.is_file:
            files.append(part)
        else:
            exact = part.name not in TYPED and part.name not in typed
            given[part.name] = part.text() if exact else _json_value(part.text())
    return given, files


def _json_value(text: str) -> object:
    text = text.strip()
    if not text:
        return None
    if WHOLE.fullmatch(text):
        return int(text)
    with suppress(ValueError):
        return float(text)
    if text.startswith("["):
        with suppress(MalformedBody):
            return strict_json.parse_object(f'{{"list": {text}}}'.encode())["list"]
    return {"true": True, "false": False}.get(text.lower(), text)


def known_model(name: str, service: Service) -> tuple[str | None, str]:
    """A model's name, or None for the default model and a remark, if `name` is unknown."""
    catalogue = service.engine.catalogue
    try:
        return catalogue.find(name, "model").name, ""
    except UnknownName:
        with suppress(ImagineError):
            default = catalogue.default().name
            return None, f"there is no model {name[:100]!r} here: {default!r} draws instead"
        return None, ""


def preview_interval(request: ResolvedRequest, most: int) -> int:
    """The steps between two previews, so that a request has at most so many before its end."""
    strength = 1.0 if request.init_image is None else min(max(request.strength, 0.0), 1.0)
    steps = min(max(request.steps, 1), MANY)  # it is checked later
    second = (
        0
        if request.hires_scale is None
        else steps_to_run(min(max(request.hires_steps or steps, 1), MANY), request.hires_strength)
    )
    return max(math.ceil((steps_to_run(steps, strength) + second) / (most + 1)), 1)


def _finishes(value: object) -> bool:
    if value not in (None, "cancel", "finish"):
        raise Refused(f'must be "cancel" or "finish", not {strict_json.kind_of(value)}')
    return value == "finish"
