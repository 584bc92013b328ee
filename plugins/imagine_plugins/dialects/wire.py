"""The native wire format: what each field of a request and of a reply is called in the core."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from imagine_core.errors import FieldError, RequestError
from imagine_core.pictures.images import init_image_problem
from imagine_core.types import (
    GenerationRequest,
)
from imagine_plugins.dialects import strict
from imagine_plugins.dialects.strict import Refused

if TYPE_CHECKING:
    pass

Check = Callable[[GenerationRequest], list[FieldError]]

MOST_WARNINGS = 20


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of a request.

    Attributes:
        wire: Its name on the wire.
        core: Its name in `GenerationRequest`.
        read: Takes its JSON value; raises `Refused`.
        write: Makes the JSON value of a core one.
        optional: Whether null means the default.
    """

    wire: str
    core: str
    read: Callable[[object], Any]
    write: Callable[[Any], Any] = _same
    optional: bool = False


def row(
    wire: str,
    core: str,
    read: Callable[[object], Any],
    *,
    write: Callable[[Any], Any] = _same,
    optional: bool = False,
) -> Field:
    """A row of the table of fields."""
    return Field(wire=wire, core=core, read=read, write=write, optional=optional)


def base64_of(data: bytes | None) -> str | None:
    """`data` in base64, if there is any."""
    return None if data is None else base64.b64encode(data).decode("ascii")


def _digits(seed: int | None) -> str | None:
    return None if seed is None else str(seed)


# fmt: off
FIELDS = (
    row("prompt",        "prompt",          strict.text),
    row("model",         "model",           strict.text,    optional=True),
    row("width",         "width",           strict.integer),
    row("height",        "height",          strict.integer),
    row("steps",         "steps",           strict.integer),
    row("guidance",      "guidance_scale",  strict.number),
    row("sampler",       "sampler",         strict.text),
    row("schedule",      "noise_schedule",  strict.text),
    row("seed",          "seed",            strict.seed,    optional=True, write=_digits),
    row("neg",           "negative_prompt", strict.text),
    row("img",           "init_image",      strict.picture, optional=True, write=base64_of),
    row("strength",      "strength",        strict.number),
    row("clip",          "clip_skip",       strict.integer),
    row("stream",        "preview_every",   strict.every,   optional=True),
    row("preview",       "preview",         strict.text),
    row("hires",         "hires_scale",     strict.number,  optional=True),
    row("n",             "images",          strict.integer),
    row("deterministic", "deterministic",   strict.flag),
    row("original_prompt", "original_prompt", strict.text,  optional=True),
)
# fmt: on

DEFAULTS = {each.name: each.default for each in fields(GenerationRequest)}
WIRE_NAMES = {field.core: field.wire for field in FIELDS}
CORE_NAMES = {field.wire: field.core for field in FIELDS}
ORDER = {field.wire: place for place, field in enumerate(FIELDS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request as it came over the wire.

    Attributes:
        request: What is to be made.
        progress: Whether the client wants lines on phases and steps.
        enhance: The enhancer that is to make its prompt better, "" for any; None for none.
        finishes: Whether it goes on when its client leaves.
        warnings: Keys that were ignored.
    """

    request: GenerationRequest
    progress: bool = False
    enhance: str | None = None
    finishes: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def streams(self) -> bool:
        """Whether the reply is a stream of lines."""
        return self.progress or self.request.preview_every > 0


# ------------------------------------------------------------------------------------ requests


def read_order(body: bytes, check: Check) -> Order:
    """The order in the body of `POST /generate`.

    Args:
        body: The bytes.
        check: What the engine cannot serve of a request.

    Raises:
        MalformedBody: The body is not a JSON object.
        RequestError: Fields that cannot be served, every one of them, under their wire names.
    """
    given = strict.parse_object(body)
    values, problems = _read_fields(given)
    progress = _read(given.pop("progress", False), strict.flag, problems, "progress")
    enhance = _read(given.pop("enhance", None), strict.choice, problems, "enhance")
    ending = given.pop("on_disconnect", None)
    finishes = _read(ending, strict.on_disconnect, problems, "on_disconnect")
    if "prompt" not in values:
        problems.setdefault("prompt", "is required: say what to draw")
    # Engine's checks of fields that are wrong already run on their defaults, and find nothing.
    request = GenerationRequest(**{"prompt": "-", **values})
    for error in check(request):
        problems.setdefault(WIRE_NAMES.get(error.field, error.field), error.message)
    if problems:
        listed = sorted(problems.items(), key=lambda item: ORDER.get(item[0], len(ORDER)))
        raise RequestError(FieldError(name, message) for name, message in listed)
    return Order(
        request=request,
        progress=bool(progress),
        enhance=enhance,
        finishes=bool(finishes),
        warnings=tuple(ignored(given)),
    )


def _read_fields(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Take the fields out of `given`: core values, and what is wrong with the others."""
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for field in FIELDS:
        if field.wire not in given:
            continue
        value = given.pop(field.wire)
        if value is None and field.optional:
            continue
        taken = _read(value, field.read, problems, field.wire)
        if field.wire not in problems:
            values[field.core] = taken
    image = values.get("init_image")
    problem = None if image is None else init_image_problem(image)
    if problem is not None:
        problems["img"] = problem
    return values, problems


def _read(value: object, read: Callable[[object], Any], problems: dict[str, str], name: str) -> Any:
    try:
        return read(value)
    except Refused as error:
        problems[name] = str(error)
        return None


def ignored(left: Mapping[str, object]) -> Iterable[str]:
    """What to say of the keys that nobody took."""
    for name in list(left)[:MOST_WARNINGS]:
        yield f"unknown key {name[:100]!r} was ignored"
    if len(left) > MOST_WARNINGS:
        yield f"{len(left) - MOST_WARNINGS} more unknown keys were ignored"


def write_request(request: GenerationRequest) -> dict[str, Any]:
    """The JSON of a request: what differs from the defaults, and the prompt."""
    values = {field: getattr(request, field.core) for field in FIELDS}
    return {
        field.wire: field.write(value)
        for field, value in values.items()
        if value != DEFAULTS[field.core]
    }


def on_wire(error: RequestError) -> RequestError:
    """`error` under the wire names of its fields."""
    return _renamed(error, WIRE_NAMES)


def in_core(error: RequestError) -> RequestError:
    """`error` under the core's names of its fields."""
    return _renamed(error, CORE_NAMES)


def _renamed(error: RequestError, names: Mapping[str, str]) -> RequestError:
    return RequestError(FieldError(names.get(e.field, e.field), e.message) for e in error.fields)
