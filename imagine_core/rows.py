"""The fields of another API's requests: one row each, read as leniently as their kinds allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from imagine_core.errors import FieldError
from imagine_core.kinds import Json, Kind, Whole, loosely
from imagine_core.settings import Limits
from imagine_core.strict_json import Refused

__all__ = [
    "Row",
    "read_rows",
    "rows_schema",
]


class Row(NamedTuple):
    """A field of an API.

    Attributes:
        key: Its name there.
        kind: How it is read and bounded.
        default: What null, "" and its absence stand for.
        core: Its name in `GenerationRequest`, if it has one there.
    """

    key: str
    kind: Kind
    default: Any = None
    core: str | None = None

    def default_within(self, limits: Limits) -> Any:
        """The default, or the most that a server with `limits` takes."""
        if isinstance(self.kind, Whole) and self.kind.most is not None:
            return min(self.default, getattr(limits, self.kind.most))
        return self.default


def read_rows(
    rows: Iterable[Row], given: Mapping[str, Any], limits: Limits
) -> tuple[dict[str, Any], list[FieldError]]:
    """The value of each row by its key, and the errors; a field with an error has its default."""
    values, errors = {}, []
    for row in rows:
        values[row.key] = row.default_within(limits)
        if (value := given.get(row.key)) in (None, ""):
            continue
        try:
            read = loosely(row.kind, value)
            problem = row.kind.problem(read, limits)
        except Refused as error:
            problem = str(error)
        if problem is None:
            values[row.key] = read
        else:
            errors.append(FieldError(row.key, problem))
    return values, errors


def rows_schema(rows: Iterable[Row], limits: Limits) -> Json:
    """The JSON Schema of an object with these fields, none of them required."""
    fields = {
        row.key: {
            "anyOf": [row.kind.schema(limits), {"type": "null"}],
            "default": row.default_within(limits),
        }
        for row in rows
    }
    return {"type": "object", "properties": fields}
