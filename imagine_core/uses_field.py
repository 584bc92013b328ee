"""Fields that list files and how each is used: `loras`, `controls`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Generic, NamedTuple, TypeVar

from imagine_core import strict_json
from imagine_core.kinds import EMPTY, Decimal, Json, Kind
from imagine_core.settings import Limits
from imagine_core.strict_json import Refused

__all__ = [
    "Member",
    "Uses",
]

T = TypeVar("T")
PART = Decimal(0.0, 1.0)
LONGEST = 1000
"""Characters of a name, or of another text that belongs to it."""


class Words(Kind):
    """A name, or another short text that is not blank."""

    def read(self, value: object) -> str:
        return strict_json.name(value)

    def problem(self, value: str | None, limits: Limits) -> str | None:
        del limits
        if value is None:
            return None
        if not value.strip():
            return EMPTY
        return f"must have at most {LONGEST} characters" if len(value) > LONGEST else None

    def schema(self, limits: Limits) -> Json:
        del limits
        return {"type": "string", "pattern": r"\S", "maxLength": LONGEST}


class Member(NamedTuple):
    """A key of each object in a list.

    Attributes:
        attribute: Its name in the core.
        kind: How it is read and bounded.
        required: Whether each object must have it.
        says: What the schema says of it.
    """

    attribute: str
    kind: Kind
    required: bool = False
    says: str = ""


@dataclass(frozen=True, slots=True)
class Uses(Kind, Generic[T]):
    """A list of objects that each name a file.

    Attributes:
        make: The core's class of each.
        label: What one is called.
        members: Their keys.
        example: An object that may stand in the list, as JSON.
        most: How many a list may have.
    """

    make: type[T]
    label: str
    members: Mapping[str, Member]
    example: str
    most: int

    def read(self, value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise Refused(f"must be a list of objects, not {strict_json.kind_of(value)}")
        return tuple(self._use(place, each) for place, each in enumerate(value[: self.most + 1], 1))

    def write(self, value: tuple[T, ...]) -> list[Json]:
        return [dict(self._written(use)) for use in value]

    def problem(self, value: tuple[T, ...], limits: Limits) -> str | None:
        if len(value) > self.most:
            return f"must be at most {self.most}"
        return next((text for use in value for text in self._problems(use, limits)), None)

    def schema(self, limits: Limits) -> Json:
        defaults = self._defaults()
        properties = {}
        for key, (attribute, kind, _, says) in self.members.items():
            properties[key] = dict(kind.schema(limits))
            if defaults.get(attribute) is not None:
                properties[key]["default"] = defaults[attribute]
            if says:
                properties[key]["description"] = says
        use = {
            "type": "object",
            "required": [key for key, member in self.members.items() if member.required],
            "properties": properties,
            "additionalProperties": False,
        }
        return {"type": "array", "items": use, "maxItems": self.most}

    def _use(self, place: int, given: object) -> T:
        which = f"{self.label} {place}"
        if not isinstance(given, dict):
            other = strict_json.kind_of(given)
            raise Refused(f"must be objects like {self.example}; {which} is {other}")
        values = {}
        for key, value in given.items():
            if key not in self.members:
                known = ", ".join(self.members)
                raise Refused(f"{which} has the key {key[:40]!r}; known: {known}")
            attribute, kind, required, _ = self.members[key]
            if value is None and not required:
                continue
            try:
                values[attribute] = kind.read(value)
            except Refused as error:
                raise Refused(f"{key} of {which} {error}") from None
        for key, member in self.members.items():
            if member.required and member.attribute not in values:
                raise Refused(f"{which} has no {key}")
        return self.make(**values)

    def _written(self, use: T) -> Iterator[tuple[str, object]]:
        defaults = self._defaults()
        for key, (attribute, kind, required, _) in self.members.items():
            value = getattr(use, attribute)
            if required or key == "weight" or value != defaults[attribute]:
                yield key, kind.write(value)

    def _problems(self, use: T, limits: Limits) -> Iterator[str]:
        name = str(getattr(use, "name", ""))
        for key, member in self.members.items():
            problem = member.kind.problem(getattr(use, member.attribute), limits)
            if problem is not None:
                whose = f" of {name[:80]!r}" if key != "name" else ""
                yield f"{key}{whose} {problem}"

    def _defaults(self) -> Mapping[str, Any]:
        each = fields(self.make)  # type: ignore[arg-type]
        return {one.name: one.default for one in each if one.default is not MISSING}
