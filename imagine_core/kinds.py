"""The kinds of values that fields of a request have: how each is read, written and bounded."""

from __future__ import annotations

import base64
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from imagine_core import strict_json
from imagine_core.settings import Limits

__all__ = [
    "LARGEST_SCALE",
    "SEEDS",
    "SIDE_STEP",
    "SMALLEST_SIDE",
    "Absent",
    "Axes",
    "Borders",
    "Choice",
    "Decimal",
    "Every",
    "FirstPicture",
    "Flag",
    "Json",
    "Kind",
    "Name",
    "Object",
    "Picture",
    "Seed",
    "Side",
    "Text",
    "Whole",
    "draw_seed",
    "loosely",
]

Json = dict[str, Any]
SEEDS = 2**64
"""Seeds are 0 .. SEEDS-1; what is counted beyond wraps around."""

SEED_BITS = 63
"""Of seeds that are drawn: a reader of JSON that knows signed integers alone can hold them."""

WORDS = dict.fromkeys(("true", "yes", "on", "t", "y"), True) | dict.fromkeys(
    ("false", "no", "off", "f", "n"), False
)
"""How forms and lenient clients write truth values."""

EMPTY = "must not be empty"
LARGEST_SCALE = 64
"""The largest factor by which a picture is enlarged."""

SMALLEST_SIDE = 64
SIDE_STEP = 8
SIDES = 4
AXES = ("", "xy")
"""The axes along which a picture is seamless, where JSON says false or true."""
"""Sides of a picture are multiples of this: one cell of a latent."""


class Kind:
    """A kind of value. By default JSON writes it as it is, and no server has an objection."""

    def read(self, value: object) -> Any:
        """The core's value of a JSON one; raises `strict_json.Refused` saying what is taken."""
        raise NotImplementedError

    def write(self, value: Any) -> object:
        """The JSON value of a core one."""
        return value

    def problem(self, value: Any, limits: Limits) -> str | None:
        """Why a server with `limits` cannot serve `value`, or None if it can."""
        del value, limits
        return None

    def schema(self, limits: Limits) -> Json:
        """The JSON Schema of what `read` takes and `problem` finds nothing wrong with."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """Text of any language, up to the server's limit of characters.

    Attributes:
        required: Whether JSON must have one that is not blank.
    """

    required: bool = False

    def read(self, value: object) -> str:
        return strict_json.name(value) if self.required else strict_json.text(value)

    def problem(self, value: str | None, limits: Limits) -> str | None:
        longest = f"must have at most {limits.prompt:,} characters"
        return longest if value is not None and len(value) > limits.prompt else None

    def schema(self, limits: Limits) -> Json:
        pattern = {"pattern": r"\S"} if self.required else {}
        return {"type": "string", "maxLength": limits.prompt, **pattern}


class Name(Kind):
    """The name of something that is registered; whether it is known, the engine finds out."""

    def read(self, value: object) -> str:
        return strict_json.text(value)

    def problem(self, value: str | None, limits: Limits) -> str | None:
        del limits
        return EMPTY if value is not None and not value.strip() else None

    def schema(self, limits: Limits) -> Json:
        del limits
        return {"type": "string", "pattern": r"\S"}


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, value: object) -> str:
        return strict_json.text(value)

    def problem(self, value: str, limits: Limits) -> str | None:
        del limits
        listed = " or ".join(repr(word) for word in self.words)
        return None if value in self.words else f"must be {listed}"

    def schema(self, limits: Limits) -> Json:
        del limits
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A whole number.

    Attributes:
        least, most: Its bounds, both allowed; `most` may name an attribute of `Limits`.
        lowest: What `least` means, in a word.
    """

    least: int
    most: str | None = None
    lowest: str = ""

    def read(self, value: object) -> int:
        return strict_json.integer(value)

    def problem(self, value: int | None, limits: Limits) -> str | None:
        if value is None:
            return None
        if self.most is None:
            fine, rule = value >= self.least, f"must be {self.least} ({self.lowest}) or more"
        else:
            most = getattr(limits, self.most)
            fine, rule = self.least <= value <= most, f"must be from {self.least} to {most}"
        return None if fine else rule

    def schema(self, limits: Limits) -> Json:
        most = {} if self.most is None else {"maximum": getattr(limits, self.most)}
        return {"type": "integer", "minimum": self.least, **most}


@dataclass(frozen=True, slots=True)
class Every(Whole):
    """How often: every so many steps; 0, which JSON also says as false, is never."""

    def read(self, value: object) -> int:
        return strict_json.every(value)

    def write(self, value: int) -> int | None:
        return value or None

    def schema(self, limits: Limits) -> Json:
        return {"anyOf": [Whole.schema(self, limits), {"const": False}]}


class Side(Kind):
    """A side of a picture, in pixels."""

    def read(self, value: object) -> int:
        return strict_json.integer(value)

    def problem(self, value: int, limits: Limits) -> str | None:
        most = _longest_side(limits)
        if SMALLEST_SIDE <= value <= most and value % SIDE_STEP == 0:
            return None
        return f"must be a multiple of {SIDE_STEP} from {SMALLEST_SIDE} to {most:,}"

    def schema(self, limits: Limits) -> Json:
        bounds = {"minimum": SMALLEST_SIDE, "maximum": _longest_side(limits)}
        return {"type": "integer", **bounds, "multipleOf": SIDE_STEP}


@dataclass(frozen=True, slots=True)
class Decimal(Kind):
    """A finite number from `least`, or `above` it, to `most`."""

    least: float
    most: float
    above: bool = False

    def read(self, value: object) -> float:
        return strict_json.number(value)

    def problem(self, value: float | None, limits: Limits) -> str | None:
        del limits
        excluded = self.least if self.above else None
        if value is None or (self.least <= value <= self.most and value != excluded):
            return None
        least = f"more than {self.least} and at most" if self.above else f"from {self.least} to"
        return f"must be {least} {self.most}"

    def schema(self, limits: Limits) -> Json:
        del limits
        least = "exclusiveMinimum" if self.above else "minimum"
        return {"type": "number", least: self.least, "maximum": self.most}


@dataclass(frozen=True, slots=True)
class Borders(Kind):
    """Pixels along each side of a picture: left, top, right, bottom."""

    def read(self, value: object) -> tuple[int, int, int, int]:
        if not isinstance(value, list) or len(value) != SIDES:
            raise strict_json.Refused("must be [left, top, right, bottom], in pixels")
        left, top, right, bottom = map(strict_json.integer, value)
        return left, top, right, bottom

    def write(self, value: tuple[int, int, int, int]) -> list[int]:
        return list(value)

    def problem(self, value: tuple[int, ...], limits: Limits) -> str | None:
        most = _longest_side(limits)
        if all(0 <= side <= most and side % SIDE_STEP == 0 for side in value):
            return None
        return f"must be multiples of {SIDE_STEP} from 0 to {most:,}"

    def schema(self, limits: Limits) -> Json:
        bounds = {"minimum": 0, "maximum": _longest_side(limits), "multipleOf": SIDE_STEP}
        side = {"type": "integer", **bounds}
        return {"type": "array", "items": side, "minItems": SIDES, "maxItems": SIDES}


class Axes(Kind):
    """The axes along which a picture is seamless: true for both, false for none, "x" or "y"."""

    def read(self, value: object) -> str:
        if isinstance(value, bool):
            return AXES[value]
        return strict_json.text(value)

    def write(self, value: str) -> str | bool:
        return {"": False, "xy": True}.get(value, value)

    def problem(self, value: str, limits: Limits) -> str | None:
        del limits
        return None if value in ("", "x", "y", "xy") else 'must be true, false, "x" or "y"'

    def schema(self, limits: Limits) -> Json:
        del limits
        return {"enum": [True, False, "x", "y", "xy", ""]}


class Flag(Kind):
    """True or false."""

    def read(self, value: object) -> bool:
        return strict_json.flag(value)

    def schema(self, limits: Limits) -> Json:
        del limits
        return {"type": "boolean"}


class Seed(Kind):
    """A seed, written as a string, since most readers of JSON keep 53 bits of a number.

    -1 is None, which asks for a random one.
    """

    def read(self, value: object) -> int | None:
        return strict_json.seed(value)

    def write(self, value: int | None) -> str | None:
        return None if value is None else str(value)

    def problem(self, value: int | None, limits: Limits) -> str | None:
        del limits
        return None if value is None or 0 <= value < SEEDS else "must be from 0 to 2^64-1"

    def schema(self, limits: Limits) -> Json:
        del limits
        number = {"type": "integer", "minimum": -1, "maximum": SEEDS - 1}
        digits = {"type": "string", "pattern": f"^(-1|{digits_up_to(SEEDS - 1)})$"}
        return {"anyOf": [number, digits]}


class Picture(Kind):
    """An encoded picture, in base64; whether it can be decoded, the engine finds out."""

    def read(self, value: object) -> bytes:
        return strict_json.picture(value)

    def write(self, value: bytes | None) -> str | None:
        return None if value is None else base64.b64encode(value).decode("ascii")

    def schema(self, limits: Limits) -> Json:
        del limits
        return {"type": "string", "pattern": r"\S", "contentEncoding": "base64"}


class FirstPicture(Picture):
    """A list of encoded pictures, the first of which counts."""

    def read(self, value: object) -> bytes:
        return super().read(value[0] if isinstance(value, list) and value else value)

    def schema(self, limits: Limits) -> Json:
        return {"type": "array", "items": super().schema(limits), "minItems": 1}


class Object(Kind):
    """A JSON object with any keys."""

    def read(self, value: object) -> Json:
        if not isinstance(value, dict):
            raise strict_json.Refused(f"must be an object, not {strict_json.kind_of(value)}")
        return value

    def schema(self, limits: Limits) -> Json:
        del limits
        return {"type": "object"}


@dataclass(frozen=True, slots=True)
class Absent(Kind):
    """A field that asks for what is not there; `missing` says so of its value, {}."""

    missing: str

    def read(self, value: object) -> None:
        raise strict_json.Refused(self.missing.format(value))

    def schema(self, limits: Limits) -> Json:
        del limits
        return {"const": ""}


def draw_seed() -> int:
    """A random seed, for a request that names none."""
    return secrets.randbits(SEED_BITS)


def loosely(kind: Kind, value: object) -> Any:
    """`kind.read` of what other servers take for it too: "20" and 20.0 are 20, "on" and 1 are true.

    Raises:
        strict_json.Refused: It is nothing of the kind.
    """
    if isinstance(kind, Picture | Object | Absent):
        return kind.read(value)
    if isinstance(kind, Text | Name | Choice):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return kind.read(str(value) if number else value)
    if isinstance(value, str):
        value = _from_text(value)
    if isinstance(kind, Flag):
        return kind.read(bool(value) if value in (0, 1) else value)
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return kind.read(value)


def _from_text(text: str) -> object:
    """The number or the truth value that `text` is, or `text`."""
    if (word := text.strip().casefold()) in WORDS:
        return WORDS[word]
    for read in (int, float):
        with suppress(ValueError):
            return read(word)
    return text


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
