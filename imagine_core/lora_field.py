"""The field `loras` of a request: how it is read, written and bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imagine_core import strict_json
from imagine_core.kinds import EMPTY, Decimal, Json, Kind
from imagine_core.lora_tags import WEIGHT_LIMIT
from imagine_core.settings import Limits
from imagine_core.strict_json import Refused
from imagine_core.types import LoraUse

__all__ = [
    "Loras",
]

MOST = 32
"""LoRAs of one request; more leave nothing of the model."""

LONGEST = 1000
"""Characters of a name, or of weights by block."""

WEIGHT, PART = Decimal(-WEIGHT_LIMIT, WEIGHT_LIMIT), Decimal(0.0, 1.0)
NUMBERS = {"weight": WEIGHT, "text_weight": WEIGHT, "start": PART, "end": PART}
READERS: dict[str, Callable[[object], Any]] = {
    "name": strict_json.name,
    **dict.fromkeys(NUMBERS, strict_json.number),
    "blocks": strict_json.name,
}


class Loras(Kind):
    """A list of LoRAs, each with its weight."""

    def read(self, value: object) -> tuple[LoraUse, ...]:
        if not isinstance(value, list):
            raise Refused(f"must be a list of objects, not {strict_json.kind_of(value)}")
        return tuple(_use(place, each) for place, each in enumerate(value[: MOST + 1], 1))

    def write(self, value: tuple[LoraUse, ...]) -> list[Json]:
        return [_written(use) for use in value]

    def problem(self, value: tuple[LoraUse, ...], limits: Limits) -> str | None:
        if len(value) > MOST:
            return f"must be at most {MOST}"
        problems = (_problem(use, limits) for use in value)
        return next(filter(None, problems), None)

    def schema(self, limits: Limits) -> Json:
        numbers = {name: kind.schema(limits) for name, kind in NUMBERS.items()}
        text = {"type": "string", "pattern": r"\S", "maxLength": LONGEST}
        use = {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {**text, "description": "A name from `GET /models?kind=lora`."},
                "weight": {**numbers["weight"], "default": 1.0},
                "text_weight": {
                    **numbers["text_weight"],
                    "description": "Of the text encoders; as `weight` unless it is there.",
                },
                "start": {**numbers["start"], "default": 0.0},
                "end": {**numbers["end"], "default": 1.0},
                "blocks": {**text, "description": "Weights by block, as in docs/loras.md."},
            },
            "additionalProperties": False,
        }
        return {"type": "array", "items": use, "maxItems": MOST}


def _use(place: int, given: object) -> LoraUse:
    if not isinstance(given, dict):
        kind = strict_json.kind_of(given)
        raise Refused(
            f'must be objects like {{"name": "ink", "weight": 0.8}}; LoRA {place} is {kind}'
        )
    if "name" not in given:
        raise Refused(f"LoRA {place} has no name")
    values = {}
    for key, value in given.items():
        if key not in READERS:
            raise Refused(f"LoRA {place} has the key {key[:40]!r}; known: {', '.join(READERS)}")
        if value is None and key != "name":
            continue
        try:
            values[key] = READERS[key](value)
        except Refused as error:
            raise Refused(f"{key} of LoRA {place} {error}") from None
    return LoraUse(**values)


def _written(use: LoraUse) -> Json:
    written: Json = {"name": use.name, "weight": use.weight}
    if use.text_weight is not None:
        written["text_weight"] = use.text_weight
    if (use.start, use.end) != (0.0, 1.0):
        written |= {"start": use.start, "end": use.end}
    return written if use.blocks is None else {**written, "blocks": use.blocks}


def _problem(use: LoraUse, limits: Limits) -> str | None:
    if not use.name.strip():
        return f"name {EMPTY}"
    for name, kind in NUMBERS.items():
        problem = kind.problem(getattr(use, name), limits)
        if problem is not None:
            return f"{name} of {use.name[:80]!r} {problem}"
    if max(len(use.name), len(use.blocks or "")) > LONGEST:
        return f"name and blocks must have at most {LONGEST} characters"
    return None
