"""Reads JSON strictly: no duplicate keys, and each value in exactly the type of its field."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from imagine_core.errors import MalformedBody

__all__ = [
    "Refused",
    "choice",
    "every",
    "flag",
    "integer",
    "kind_of",
    "name",
    "number",
    "one_of",
    "parse_object",
    "picture",
    "seed",
    "text",
    "within",
]

MAX_VALUES = 100_000
"""Brackets and commas of a body: each may cost a hundred bytes of memory; a dozen is enough."""

MAX_DIGITS = 100
"""Longer integers are kept as written: Python is slow to convert them, and refuses over 4300."""

BLANKS = b" \t\r\n\v\f"
DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


class Refused(ValueError):
    """A value is not what its field takes; the message says what it takes."""


class Huge(float):
    """A number far beyond what any field takes, which remembers how it was written."""

    def __init__(self, written: str) -> None:
        self.written = written

    def __str__(self) -> str:
        if len(self.written) <= 30:
            return self.written
        return f"{self.written[:10]}...{self.written[-5:]} ({len(self.written):,} characters)"


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; raises `MalformedBody` saying what it is instead."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedBody(f"the body is not UTF-8: byte {error.start} is wrong") from None
    if not text.strip():
        raise MalformedBody('the body is empty; send a JSON object such as {"prompt": "a fox"}')
    if sum(body.count(mark) for mark in (b"[", b"{", b",")) > MAX_VALUES:
        raise MalformedBody("the body holds too many values")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_float=_float)
    except RecursionError:
        raise MalformedBody("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise MalformedBody(f"the body must be a JSON object, not {kind_of(value)}")
    return value


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise MalformedBody(f"the key {twice[:100]!r} appears more than once")
    return value


def _integer(digits: str) -> int | Huge:
    return int(digits) if len(digits) <= MAX_DIGITS else Huge(digits)


def _float(written: str) -> float:
    value = float(written)
    return value if math.isfinite(value) else Huge(written)


def kind_of(value: object) -> str:
    """What `value` is, in the words of JSON."""
    if value is None or isinstance(value, bool):
        return str(json.dumps(value))
    if isinstance(value, Huge):
        return f"the number {value}"
    if isinstance(value, int | float):
        return f"the number {value:.20g}" if isinstance(value, float) else f"the number {value}"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def text(value: object) -> str:
    """A string that is Unicode: JSON can hold half of a surrogate pair, which is no character."""
    if not isinstance(value, str):
        raise Refused(f"must be a string, not {kind_of(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused("must be Unicode, but holds half of a surrogate pair") from None
    return value


def name(value: object) -> str:
    """A name, which is never empty."""
    given = text(value)
    if not given.strip():
        raise Refused("must not be empty")
    return given


def integer(value: object) -> int:
    """A whole number."""
    _refuse_huge(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"must be a whole number, not {kind_of(value)}")
    return value


def number(value: object) -> float:
    """A finite number."""
    _refuse_huge(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise Refused(f"must be a finite number, not {kind_of(value)}")
    return float(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def _refuse_huge(value: object) -> None:
    if isinstance(value, Huge):
        raise Refused(f"is out of all bounds: {value}")


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Refused(f"must be true or false, not {kind_of(value)}")
    return value


def seed(value: object) -> int | None:
    """A whole number, or one in a string, since most readers of JSON keep 53 bits of a number.

    -1 asks for a random one.
    """
    _refuse_huge(value)
    if isinstance(value, str) and re.fullmatch(r"-1|[0-9]{1,20}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        wrong = json.dumps(value[:50]) if isinstance(value, str) else kind_of(value)
        raise Refused(f"must be a whole number, as such or as a string, not {wrong}")
    return None if value == -1 else value


def every(value: object) -> int:
    """An interval in steps: a whole number; false, as 0, is never."""
    return 0 if value is False else integer(value)


def choice(value: object) -> str | None:
    """A name; true for any, which is the empty name, and false or null for none."""
    if value is None or isinstance(value, bool):
        return "" if value else None
    if not isinstance(value, str) or not value.strip():
        raise Refused(f"must be true, false or a name, not {kind_of(value)}")
    return text(value)


def one_of(words: Iterable[str]) -> Callable[[object], str]:
    """A reader of one of `words`."""
    known = list(words)

    def read(value: object) -> str:
        if value not in known:
            raise Refused(f"must be one of {', '.join(known)}")
        return str(value)

    return read


def within(least: int, most: int) -> Callable[[object], int]:
    """A reader of a whole number from `least` to `most`."""

    def read(value: object) -> int:
        if not least <= integer(value) <= most:
            raise Refused(f"must be from {least} to {most}")
        return integer(value)

    return read


def picture(value: object) -> bytes:
    """The bytes in a base64 string, with or without the prefix of a data URL."""
    if not isinstance(value, str):
        raise Refused(f"must be a picture in base64, not {kind_of(value)}")
    prefix = DATA_URL.match(value, 0, 300)
    encoded = value[prefix.end() :] if prefix else value
    try:
        return base64.b64decode(encoded.encode("ascii").translate(None, BLANKS), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("is not base64") from None
