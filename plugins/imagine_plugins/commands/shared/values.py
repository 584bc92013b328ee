"""Types of flag values that click does not have."""

from __future__ import annotations

import math
import re

import click

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Finite(click.ParamType[float]):
    """A number that is neither infinite nor NaN."""

    name = "float"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number in `value`."""
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{str(value)!r} is no finite number", param, ctx)
        return number


class Key(click.ParamType[str]):
    """An API key, which must fit into a header."""

    name = "text"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """The key, without the line break that may end a file."""
        key = str(value).strip()
        if not key or not key.isprintable():
            self.fail("a key must not be empty, nor hold a line break", param, ctx)
        return key


class Duration(click.ParamType[float]):
    """Seconds, with or without units: 300, 30s, 5m, 1h30m; -1 means no limit."""

    name = "duration"

    def __init__(self, *, forever: bool = True) -> None:
        self._forever = forever

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The seconds in `value`."""
        if isinstance(value, float):
            return value
        text = str(value).strip().lower()
        if self._forever and re.fullmatch(r"-[0-9.]+[smh]?", text):
            return -1.0
        parts = re.findall(r"([0-9]+\.?[0-9]*)(ms|s|m|h|$)", text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            self.fail(f"{text!r} is no duration; it must look like 30s, 5m, 1h30m or 0", param, ctx)
        return math.fsum(float(number) * UNITS.get(unit, 1.0) for number, unit in parts)


class Names(click.ParamType[tuple[str, ...]]):
    """Names separated by commas; a list in the settings file."""

    name = "names"
    several = True

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The names in `value`."""
        del param, ctx
        if isinstance(value, tuple):
            return value
        return tuple(name.strip() for name in str(value).split(",") if name.strip())
