"""The flags of a request's fields, and the request they give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from imagine_core import GenerationRequest, GenerationResult
from imagine_core.control_field import Controls
from imagine_core.errors import RequestError
from imagine_core.fields import FIELDS, PLACEHOLDER, Field, from_json, on_wire
from imagine_core.kinds import (
    Axes,
    Borders,
    Choice,
    Decimal,
    Every,
    Flag,
    Kind,
    Picture,
    Seed,
    Side,
    Text,
    Whole,
)
from imagine_core.lora_field import Loras
from imagine_core.pictures.metadata import read_meta
from imagine_core.types import USUAL
from imagine_core.uses_field import Uses
from imagine_plugins.commands.shared.parameters import (
    BordersParameter,
    ControlParameter,
    LoraParameter,
    read_input,
)
from imagine_plugins.commands.shared.values import Finite

NO_LORA = "none"
"""Names no LoRA: with `--again`, the picture's are left out."""

DEFAULT_NEGATIVE = "ugly, deformed, blurry, low quality"
"""The command line has a negative prompt by default, the wire has none."""


def field_options() -> list[click.Option]:
    """An option for each field that has a flag."""
    return [_option(field) for field in FIELDS if field.flags]


def request_of(prompt: str, given: Mapping[str, Any]) -> GenerationRequest:
    """The request of a command line.

    Args:
        prompt: The prompt.
        given: The values of `field_options`, under the names of their flags.
    """
    if not prompt.strip():
        raise click.UsageError("the prompt is empty")
    values = _values(given, [field for field in FIELDS if field.flags], steps=given["steps"])
    return GenerationRequest(prompt=_unicode(prompt).strip(), **values)


def request_again(
    file: Path, prompt: str, given: Mapping[str, Any], *, is_given: Callable[[str], bool]
) -> tuple[GenerationRequest, list[str]]:
    """The request that a picture was made from, and what of its settings cannot be read.

    Args:
        file: The picture, as `imagine info` takes it.
        prompt: Another prompt; blank for the picture's own.
        given: The values of `field_options`.
        is_given: Whether the command line has the flag; then it wins over the picture.

    Raises:
        InvalidFile: It cannot be read, or holds no settings.
    """
    meta = read_meta(file)
    known = {field.wire: meta[field.wire] for field in FIELDS if field.wire in meta}
    known.pop("stream", None)  # what was seen on the way makes no other picture
    own = known.get("prompt", "")
    if prompt.strip() or not isinstance(own, str):
        own = prompt
    request, errors = from_json({**known, "prompt": PLACEHOLDER})
    request = replace(request, prompt=_unicode(own).strip())
    chosen = [f for f in FIELDS if f.flags and is_given(f.parameter)]
    steps = given["steps"] if is_given("steps") else request.steps
    values = _values(given, chosen, steps=steps)
    values = {**_without_lost_pictures(request), **values}
    remarks = [
        f"{file}: {on_wire(RequestError([error]))}" for error in errors if error.field not in values
    ]
    return replace(request, **values), remarks


def _without_lost_pictures(request: GenerationRequest) -> dict[str, Any]:
    """What a picture's settings ask for whose own pictures were not kept with it."""
    kept = tuple(use for use in request.controls if use.image)
    return {} if kept == request.controls else {"controls": kept}


def changed_files(file: Path, result: GenerationResult) -> Iterator[str]:
    """What changed the model of a picture, and is another file now or not there."""
    hashes = read_meta(file).get("hashes")
    for name, before in hashes.items() if isinstance(hashes, dict) else ():
        now = result.hashes.get(name)
        if name.startswith("embed:") and now is None:
            yield f"{file}: it was drawn with the embedding {name.removeprefix('embed:')!r}"
        elif now not in (None, before):
            yield f"{file}: it was drawn with another file of that name: {name}"


def _values(
    given: Mapping[str, Any], fields: Iterable[Field], *, steps: int | None
) -> dict[str, Any]:
    """The core's values of flags; a LoRA may count `steps`, the usual ones where they are None."""
    count = USUAL["steps"] if steps is None else steps
    values: dict[str, Any] = {}
    for field in fields:
        value = given[field.parameter]
        if isinstance(field.kind, Loras):
            tags = (tag for tag in value or () if tag.name.casefold() != NO_LORA)
            values[field.name] = tuple(tag.use(count) for tag in tags)
        elif value is not None:
            values[field.name] = _core_value(field, value)
    return values


def _shown_default(field: Field) -> bool | str:
    """What the help says of the default; click takes a text for what is decided later."""
    return (
        not isinstance(field.kind, Every)
        if field.usual is None
        else f"the model's, or {field.usual}"
    )


def _default(field: Field) -> Any:
    """The default of its flag; nothing at all is None there."""
    return None if field.default in ("", (), (0, 0, 0, 0)) else field.default


def _option(field: Field) -> click.Option:
    if isinstance(field.kind, Flag):
        return click.Option(list(field.flags), is_flag=True, default=field.default, help=field.help)
    return click.Option(
        list(field.flags),
        type=_type(field),
        multiple=isinstance(field.kind, Uses),
        default=DEFAULT_NEGATIVE if field.wire == "neg" else _default(field),
        show_default=_shown_default(field),
        metavar=field.metavar,
        help=field.help,
    )


def _type(field: Field) -> click.ParamType[Any]:
    types: dict[type[Kind], click.ParamType[Any]] = {
        Every: click.IntRange(min=0),
        Decimal: Finite(),
        Seed: click.INT,
        Whole: click.INT,
        Side: click.INT,
        Loras: LoraParameter(),
        Controls: ControlParameter(),
        Borders: BordersParameter(),
        Axes: click.Choice(("x", "y", "xy")),
    }
    if isinstance(field.kind, Choice):
        return click.Choice(field.kind.words)
    return types.get(type(field.kind), click.STRING)


def _core_value(field: Field, value: Any) -> Any:
    match field.kind:
        case Picture():
            return read_input(value)
        case Seed():
            return field.kind.read(value)
        case Text():
            return _unicode(value)
    return value


def _unicode(text: str) -> str:
    """Rejects an argument that is not text, which can be neither sent nor saved."""
    return text.encode("utf-8", "replace").decode("utf-8")
