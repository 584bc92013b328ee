"""The native wire format of requests: JSON objects with one key per field, and a few more."""

from __future__ import annotations

from imagine_core import strict_json
from imagine_core.fields import from_json
from imagine_core.web.dialect import Order
from imagine_core.web.reading import read_extras, take


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
    progress = take(given, "progress", strict_json.flag, errors) or False
    extras = read_extras(given, errors, keeps=keeps)
    return Order(
        request=request,
        errors=tuple(errors),
        streams=progress or request.preview_every > 0,
        details={"progress": progress},
        **extras,
    )
