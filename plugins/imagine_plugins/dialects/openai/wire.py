"""Reads the requests of OpenAI's Images API: JSON, or forms with pictures."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from imagine_core import strict_json
from imagine_core.errors import FieldError, ImagineError
from imagine_core.fields import DEFAULTS, FIELDS, PLACEHOLDER, from_json
from imagine_core.pictures.formats import MEDIA_TYPES
from imagine_core.pictures.images import fitting_size, load_alpha
from imagine_core.pictures.infotext import read_infotext
from imagine_core.pictures.metadata import infotext_of
from imagine_core.strict_json import Refused, one_of, picture, within
from imagine_core.types import USUAL, ResolvedRequest
from imagine_core.web.dialect import Order
from imagine_core.web.reading import (
    known_model,
    preview_interval,
    read_extras,
    read_fields,
    take,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from imagine_core.service import Service
    from imagine_core.web.forms import Part

QUALITIES = {"auto": 1.0, "standard": 1.0, "medium": 1.0} | {
    "low": 0.6,
    "high": 1.4,
    "hd": 1.4,
    "xhigh": 1.7,
    "max": 2.0,
}
"""The steps of each quality, as a multiple of the usual ones."""

FIDELITIES = {"low": DEFAULTS["strength"], "high": 0.5}
"""The strength of an edit by its `input_fidelity`."""

BACKGROUNDS = ("auto", "opaque", "transparent")
SHOWN = ("b64_json", "url")
VARIED = 0.6
"""The strength of a variation."""

CLOUD = re.compile(r"(chatgpt|gpt|dall-e)\b.{0,100}", re.IGNORECASE)
"""Names of OpenAI's models, which some programs cannot change."""

SIZE = re.compile(r"(\d{1,9})x(\d{1,9})", re.ASCII)
PICTURE = re.compile(r"image(\[\d{0,3}\])?")
OWN_MASK = "without a mask, the transparent parts of the picture are repainted"


def _size(value: object) -> tuple[int, int] | None:
    text = strict_json.text(value)
    sides = SIZE.fullmatch(text)
    if sides is None and text != "auto":
        raise Refused('must be "auto", or width and height in pixels, like "512x768"')
    return None if sides is None else (int(sides[1]), int(sides[2]))


CONTRACT = {
    "size": _size,
    "quality": one_of(QUALITIES),
    "background": one_of(BACKGROUNDS),
    "input_fidelity": one_of(FIDELITIES),
    "output_format": one_of(MEDIA_TYPES),
    "output_compression": within(0, 100),
    "response_format": one_of(SHOWN),
    "stream": strict_json.flag,
    "partial_images": within(0, 3),
    **dict.fromkeys(("user", "safety_identifier", "moderation"), lambda _: None),
}
"""The fields that the API has beside those of `GenerationRequest`, and their readers."""


def read_order(body: bytes, request: Request, service: Service) -> Order:
    """The order in the body of a request; raises `MalformedBody` if it is no JSON and no form."""
    route = request.url.path.rpartition("/")[2]
    attempt = request.headers.get("x-stainless-retry-count")
    errors: list[FieldError] = []
    warnings: list[str] = []
    given, files = read_fields(body, request, typed=CONTRACT)
    key = _digest(route, given, files)
    given = {name: value for name, value in given.items() if value is not None}
    pictures = _pictures(given, files, errors)
    asked = {name: take(given, name, read, errors) for name, read in CONTRACT.items()}
    if asked["background"] == "transparent":
        warnings.append("background 'transparent' was ignored: pictures are opaque")
    shown = _shown(asked, given.get("model"), service, warnings)
    start = _start(route, pictures, errors, warnings)
    first = start.get("init_image") or b""
    start |= _mask(route, given, files, first, warnings)
    _settle_model(given, warnings, service)
    _fill(given, asked, first, route, service)
    if route == "variations" and "prompt" not in given:
        given["prompt"] = PLACEHOLDER
        start |= _prompts_of(first, longest=service.engine.settings.limits.prompt)
    wanted, problems = from_json(given)
    wanted = replace(wanted, **start)
    if asked["stream"] and asked["partial_images"]:
        drawn = ResolvedRequest.of(wanted, {})
        wanted = replace(wanted, preview_every=preview_interval(drawn, asked["partial_images"]))
    errors += problems
    extras = read_extras(given, errors, keeps=service.jobs.keeps)
    return Order(
        request=wanted,
        errors=tuple(errors),
        streams=bool(asked["stream"]),
        keeps="url" in shown,
        idempotency_key=None if attempt is None else key,
        retry=attempt not in (None, "0"),
        details={**asked, "shown": shown, "base": str(request.base_url), "route": route},
        **extras | {"warnings": (*warnings, *extras["warnings"])},
    )


def _digest(route: str, given: dict[str, Any], files: list[Part]) -> str:
    """The same for equal requests; a form has another boundary each time it is sent."""
    parts = [(file.name, hashlib.sha256(file.value).digest()) for file in files]
    told = repr((route, sorted(given.items()), parts))
    return hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()


def _pictures(given: dict[str, Any], files: list[Part], errors: list[FieldError]) -> list[bytes]:
    """The pictures to start from."""
    written = given.pop("image", None)
    listed = written if isinstance(written, list) else [] if written is None else [written]
    read = [take({"init_image": each}, "init_image", picture, errors) or b"" for each in listed]
    return [*read, *(file.value for file in files if PICTURE.fullmatch(file.name))]


def _shown(asked: dict[str, Any], model: object, service: Service, warnings: list[str]) -> set[str]:
    """What of "b64_json" and "url" the answer has of each picture.

    Without a `response_format` both: some programs know the one, some the other. Those that ask
    for one of OpenAI's own models prefer a URL, and then refuse to fetch one of this machine.
    """
    wanted = asked["response_format"]
    if asked["stream"] or not service.jobs.keeps:
        if wanted == "url":
            why = "a stream has pictures" if asked["stream"] else "this server keeps no results"
            warnings.append(f"response_format 'url' was ignored: {why}")
        return {"b64_json"}
    if wanted is None and isinstance(model, str) and model.startswith("gpt-"):
        return {"b64_json"}
    return {wanted} if wanted else set(SHOWN)


def _start(
    route: str, pictures: list[bytes], errors: list[FieldError], warnings: list[str]
) -> dict[str, Any]:
    """The picture to start from, of an edit or a variation."""
    if route == "generations":
        warnings += ["'image' was ignored: /v1/images/edits takes it"] if pictures else []
        return {}
    if not pictures:
        errors.append(FieldError("init_image", "is required: the picture to start from"))
    if len(pictures) > 1:
        warnings.append("only the first picture is used")
    return {"init_image": next(iter(pictures), None)}


def _mask(
    route: str, given: dict[str, Any], files: list[Part], picture: bytes, warnings: list[str]
) -> dict[str, bytes]:
    """The mask among the files of a form, or the picture, whose own transparency is one.

    DALL-E 2 has pictures repainted where they are transparent, the newer models do not. What is
    there is the white that shows through: the colours around are a better start.
    """
    sent = next((file.value for file in files if file.name == "mask" and file.value), None)
    if not given.get("mask") or sent is not None:
        given.pop("mask", None)
    named = sent is not None or "mask" in given
    if route == "generations" and named:
        given.pop("mask", None)
        warnings.append("'mask' was ignored: /v1/images/edits takes it")
    elif sent is not None:
        return {"mask": sent}
    elif route == "edits" and not named and not str(given.get("model")).startswith("gpt-"):
        return _own_mask(given, picture, warnings)
    return {}


def _own_mask(given: dict[str, Any], picture: bytes, warnings: list[str]) -> dict[str, bytes]:
    with suppress(ValueError):  # a broken picture is refused later
        alpha = load_alpha(picture)
        if alpha is not None and alpha.getextrema()[0] == 0:
            warnings.append(OWN_MASK)
            given.setdefault("mask_fill", "average")
            return {"mask": picture}
    return {}


def _prompts_of(data: bytes, *, longest: int) -> dict[str, str]:
    """The prompts in a picture's metadata; blank ones if it has none, or longer ones."""
    meta: dict[str, Any] = {}
    with suppress(ImagineError):
        meta = read_infotext(infotext_of(data) or "") or {}
    found = {"prompt": meta.get("prompt", ""), "negative_prompt": meta.get("neg", "")}
    return {name: text if len(text) <= longest else "" for name, text in found.items()}


def _settle_model(given: dict[str, Any], warnings: list[str], service: Service) -> None:
    """Let the names of OpenAI's models mean the default one."""
    name = given.get("model")
    if name == "":
        del given["model"]
    if isinstance(name, str) and CLOUD.fullmatch(name) and not service.settings.strict_models:
        given["model"], remark = known_model(name, service)
        warnings += filter(None, [remark])


def _fill(
    given: dict[str, Any], asked: dict[str, Any], start: bytes, route: str, service: Service
) -> None:
    """Add what the contract's own fields mean to those that draw, which have precedence."""
    model, size = given.get("model"), asked["size"]
    own: Mapping[str, Any] = USUAL
    with suppress(ImagineError):  # an unknown model is refused later
        catalogue = service.engine.catalogue
        info = catalogue.get(model) if isinstance(model, str) else catalogue.default()
        own = info.own
    width, height = size or fitting_size(start, (own["width"], own["height"]))
    steps = round(own["steps"] * QUALITIES[asked["quality"] or "auto"])
    strength = VARIED if route == "variations" else FIDELITIES[asked["input_fidelity"] or "low"]
    usual = {"width": width, "height": height, "steps": steps, "strength": strength}
    for field in FIELDS:
        if field.name in given:
            given[field.wire] = given.pop(field.name)
        elif field.name in usual:
            given.setdefault(field.wire, usual[field.name])
