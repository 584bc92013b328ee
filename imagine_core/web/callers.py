"""Tells clients apart by their key and their address, and remembers what belongs to them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from imagine_core.errors import FieldError, RequestError

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = [
    "CallerOptions",
    "Newest",
    "caller_of",
]

K = TypeVar("K")
V = TypeVar("V")

MOST = 1000
MOST_CHARACTERS = 2**14
MOST_NESTED = 20


class Newest(dict[K, V]):
    """A dictionary of the newest entries: any number of clients takes no more memory."""

    def put(self, key: K, value: V) -> None:
        """Set an entry; the oldest one is dropped if there are too many."""
        self.pop(key, None)
        self[key] = value
        if len(self) > MOST:
            del self[next(iter(self))]


def caller_of(request: Request) -> str:
    """The client of a request, as a name that does not disclose its key.

    Programs behind one address with one key are one client.
    """
    address = "" if request.client is None else request.client.host
    key = request.headers.get("authorization") or request.headers.get("api-key") or ""
    return hashlib.sha256(f"{address} {key}".encode()).hexdigest()


class CallerOptions:
    """What each client has set for its later requests: JSON values by name."""

    def __init__(self) -> None:
        self._set: Newest[str, str] = Newest()  # as text, which takes a tenth of the values' memory
        self._turn = threading.Lock()

    def of(self, caller: str) -> dict[str, Any]:
        """What a client has set."""
        with self._turn:
            text = self._set.get(caller, "{}")
        options: dict[str, Any] = json.loads(text)
        return options

    def set(self, caller: str, given: Mapping[str, Any]) -> None:
        """Add to what a client has set; raises `RequestError` if that is too much to keep."""
        text = _text({**self.of(caller), **given})
        if text is None:
            problem = (
                f"must be finite, nested at most {MOST_NESTED} deep, and at most "
                f"{MOST_CHARACTERS:,} characters together"
            )
            raise RequestError([FieldError("options", problem)])
        with self._turn:
            self._set.put(caller, text)


def _text(options: dict[str, Any]) -> str | None:
    if not _is_flat(options, MOST_NESTED):
        return None
    try:
        text = json.dumps(options, allow_nan=False)
    except ValueError:  # no JSON has NaN or Infinity
        return None
    return text if len(text) <= MOST_CHARACTERS else None


def _is_flat(value: object, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(_is_flat(each, levels - 1) for each in inner)
