"""Shows over HTTP what a preprocessor makes of a picture: `POST /preprocess`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from imagine_core import strict_json
from imagine_core.errors import FieldError, RequestError
from imagine_core.listing import preprocessor_details
from imagine_core.pictures.fitting import load_bounded
from imagine_core.pictures.formats import base64_of
from imagine_core.pictures.images import blamed
from imagine_core.pictures.metadata import png_bytes
from imagine_core.web.answers import Call, answering
from imagine_core.web.reading import ignored

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from imagine_core.service import Service

FIELDS: dict[str, Callable[[object], Any]] = {
    "img": strict_json.picture,
    "preprocessor": strict_json.name,
}
"""The fields of `POST /preprocess`."""

REQUIRED = {
    "img": "is required: the picture in base64",
    "preprocessor": "is required: a name from GET /preprocessors",
}
"""What is said of those that are missing or null."""


def preprocessors(service: Service) -> dict[str, Any]:
    """`GET /preprocessors`: the names, and details of each."""
    details = preprocessor_details(service.plugins)
    usable = [each["name"] for each in details if each["problem"] is None]
    return {"preprocessors": usable, "details": details}


def preprocess_endpoint(service: Service) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """`POST /preprocess`: the hint that a preprocessor makes of a picture."""

    def answer(call: Call) -> dict[str, Any]:
        return preprocess(service, call.given)

    return answering(service, answer, reads=True)


def preprocess(service: Service, given: dict[str, Any]) -> dict[str, Any]:
    """The reply: a picture of more pixels than a request may ask for is scaled to that.

    Raises:
        RequestError: A field is missing or cannot be used.
        UnknownName: There is no such preprocessor.
    """
    values, errors = {}, []
    for name, read in FIELDS.items():
        value = given.pop(name, None)
        if value is None:
            errors.append(FieldError(name, REQUIRED[name]))
            continue
        try:
            values[name] = read(value)
        except strict_json.Refused as error:
            errors.append(FieldError(name, str(error)))
    if errors:
        raise RequestError(errors)
    preprocessor = service.plugins.preprocessors.get(values["preprocessor"])
    problem = preprocessor.unavailable()
    if problem is not None:
        raise RequestError([FieldError("preprocessor", f"cannot be used: {problem}")])
    with blamed("img"):
        image = load_bounded(values["img"], service.engine.settings.limits.pixels)
    hint = service.engine.prepare(preprocessor, image)
    return {
        "img": base64_of(png_bytes(hint, None)),
        "preprocessor": preprocessor.name,
        "width": hint.width,
        "height": hint.height,
        "warnings": list(ignored(given)),
    }
