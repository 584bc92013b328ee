"""The kinds of values that fields of a request have: how each is read, written and bounded."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any, Protocol

from imagine_core import strict_json
from imagine_core.settings import Limits

Json = dict[str, Any]
Bound = float | str
"""A number, or the name of the `Limits` attribute that has it."""

SEEDS = 2**64
"""Seeds are 0 .. SEEDS-1; what is counted beyond wraps around."""

SMALLEST_SIDE = 64
SIDE_STEP = 8
"""Sides of a picture are multiples of this: one cell of a latent."""


class Kind(Protocol):
    """A kind of value."""

    def read(self, value: object) -> Any:
        """The core's value of a JSON one; raises `strict_json.Refused` saying what is taken."""

    def write(self, value: Any) -> object:
        """The JSON value of a core one."""

    def problem(self, value: Any, limits: Limits) -> str | None:
        """Why a server with `limits` cannot serve `value`, or None if it can."""

    def schema(self, limits: Limits) -> Json:
        """The JSON Schema of what `read` takes and `problem` finds nothing wrong with."""


@dataclass(frozen=True, slots=True)
class Text:
    """Text of any language, up to the server's limit of characters."""

    required: bool = False

    def read(self, value: object) -> str:
        """A string."""
        return strict_json.text(value)

    def write(self, value: str | None) -> str | None:
        """The string."""
        return value

    def problem(self, value: str | None, limits: Limits) -> str | None:
        """It is too long, or empty where it is required."""
        if value is None:
            return None
        if self.required and not value.strip():
            return "must not be empty"
        if len(value) > limits.prompt:
            return f"must have at most {limits.prompt:,} characters"
        return None

    def schema(self, limits: Limits) -> Json:
        """A string."""
        pattern = {"pattern": r"\S"} if self.required else {}
        return {"type": "string", "maxLength": limits.prompt, **pattern}


@dataclass(frozen=True, slots=True)
class Name:
    """The name of something that is registered; whether it is known, the engine finds out."""

    def read(self, value: object) -> str:
        """A string."""
        return strict_json.text(value)

    def write(self, value: str | None) -> str | None:
        """The string."""
        return value

    def problem(self, value: str | None, limits: Limits) -> str | None:
        """It is empty."""
        del limits
        return "must not be empty" if value is not None and not value.strip() else None

    def schema(self, limits: Limits) -> Json:
        """A string that is not blank."""
        del limits
        return {"type": "string", "pattern": r"\S"}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, value: object) -> str:
        """A string."""
        return strict_json.text(value)

    def write(self, value: str) -> str:
        """The string."""
        return value

    def problem(self, value: str, limits: Limits) -> str | None:
        """It is another word."""
        del limits
        listed = " or ".join(repr(word) for word in self.words)
        return None if value in self.words else f"must be {listed}"

    def schema(self, limits: Limits) -> Json:
        """One of the words."""
        del limits
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number.

    Attributes:
        least, most: Its bounds, both allowed.
        lowest: What `least` means, in a word.
    """

    least: int
    most: Bound | None = None
    lowest: str = ""

    def read(self, value: object) -> int:
        """An integer."""
        return strict_json.integer(value)

    def write(self, value: int) -> int | None:
        """The number."""
        return value

    def problem(self, value: int, limits: Limits) -> str | None:
        """It is out of bounds."""
        most = _bound(self.most, limits)
        if self.least <= value <= (math.inf if most is None else most):
            return None
        if most is None:
            return f"must be {self.least} ({self.lowest}) or more"
        return f"must be from {self.least} to {most}"

    def schema(self, limits: Limits) -> Json:
        """An integer in bounds."""
        most = _bound(self.most, limits)
        bounds = {"minimum": self.least} | ({} if most is None else {"maximum": most})
        return {"type": "integer", **bounds}


@dataclass(frozen=True, slots=True)
class Every(Whole):
    """How often: every so many steps; 0, which JSON also says as false, is never."""

    def read(self, value: object) -> int:
        """An integer, or false."""
        return strict_json.every(value)

    def write(self, value: int) -> int | None:
        """The number; null for never."""
        return value or None

    def schema(self, limits: Limits) -> Json:
        """An integer, or false."""
        return {"anyOf": [Whole.schema(self, limits), {"const": False}]}


@dataclass(frozen=True, slots=True)
class Side:
    """A side of a picture, in pixels."""

    def read(self, value: object) -> int:
        """An integer."""
        return strict_json.integer(value)

    def write(self, value: int) -> int:
        """The number."""
        return value

    def problem(self, value: int, limits: Limits) -> str | None:
        """It is no multiple of a latent's cell, or out of bounds."""
        most = _longest_side(limits)
        if SMALLEST_SIDE <= value <= most and value % SIDE_STEP == 0:
            return None
        return f"must be a multiple of {SIDE_STEP} from {SMALLEST_SIDE} to {most:,}"

    def schema(self, limits: Limits) -> Json:
        """A multiple in bounds."""
        bounds = {"minimum": SMALLEST_SIDE, "maximum": _longest_side(limits)}
        return {"type": "integer", **bounds, "multipleOf": SIDE_STEP}


@dataclass(frozen=True, slots=True)
class Decimal:
    """A finite number from `least` to `most`; `above` it where `least` itself is not allowed."""

    least: float
    most: float
    above: bool = False

    def read(self, value: object) -> float:
        """A number."""
        return strict_json.number(value)

    def write(self, value: float | None) -> float | None:
        """The number."""
        return value

    def problem(self, value: float | None, limits: Limits) -> str | None:
        """It is out of bounds, or no number at all."""
        del limits
        if value is None or (self.least <= value <= self.most and value != self._excluded):
            return None
        if self.above:
            return f"must be more than {self.least} and at most {self.most}"
        return f"must be from {self.least} to {self.most}"

    def schema(self, limits: Limits) -> Json:
        """A number in bounds."""
        del limits
        least = "exclusiveMinimum" if self.above else "minimum"
        return {"type": "number", least: self.least, "maximum": self.most}

    @property
    def _excluded(self) -> float | None:
        return self.least if self.above else None


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def read(self, value: object) -> bool:
        """A boolean."""
        return strict_json.flag(value)

    def write(self, value: bool) -> bool:  # noqa: FBT001 - a value
        """The boolean."""
        return value

    def problem(self, value: bool, limits: Limits) -> None:  # noqa: FBT001
        """Both are fine."""
        del value, limits

    def schema(self, limits: Limits) -> Json:
        """A boolean."""
        del limits
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Seed:
    """A seed: written as a string, since most readers of JSON keep 53 bits of a number."""

    def read(self, value: object) -> int | None:
        """An integer, or its digits; None for -1, which asks for a random seed."""
        return strict_json.seed(value)

    def write(self, value: int | None) -> str | None:
        """Its digits."""
        return None if value is None else str(value)

    def problem(self, value: int | None, limits: Limits) -> str | None:
        """It is out of bounds."""
        del limits
        return None if value is None or 0 <= value < SEEDS else "must be from 0 to 2^64-1"

    def schema(self, limits: Limits) -> Json:
        """An integer, or its digits."""
        del limits
        number = {"type": "integer", "minimum": -1, "maximum": SEEDS - 1}
        digits = {"type": "string", "pattern": f"^(-1|{digits_up_to(SEEDS - 1)})$"}
        return {"anyOf": [number, digits]}


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture; whether it can be decoded, the engine finds out."""

    def read(self, value: object) -> bytes:
        """The bytes in a base64 string, with or without the prefix of a data URL."""
        return strict_json.picture(value)

    def write(self, value: bytes | None) -> str | None:
        """The bytes in base64."""
        return None if value is None else base64.b64encode(value).decode("ascii")

    def problem(self, value: bytes | None, limits: Limits) -> None:
        """Only decoding it tells."""
        del value, limits

    def schema(self, limits: Limits) -> Json:
        """A base64 string."""
        del limits
        return {"type": "string", "pattern": r"\S", "contentEncoding": "base64"}


def _bound(bound: Bound | None, limits: Limits) -> Any:
    return getattr(limits, bound) if isinstance(bound, str) else bound


def _longest_side(limits: Limits) -> int:
    return limits.pixels // SMALLEST_SIDE // SIDE_STEP * SIDE_STEP


def digits_up_to(greatest: int) -> str:
    """The pattern of numbers up to `greatest` (10 or more) with no more digits than that has."""
    text = str(greatest)
    ways = [f"[0-9]{{1,{len(text) - 1}}}", text]
    for place, digit in enumerate(text):
        if digit != "0":
            rest = len(text) - place - 1
            ways.append(
                f"{text[:place]}[0-{int(digit) - 1}]" + (f"[0-9]{{{rest}}}" if rest else "")
            )
    return "|".join(ways)
