"""The field `loras` of a request: how it is read, written and bounded."""

from __future__ import annotations

from imagine_core.kinds import Decimal
from imagine_core.lora_tags import WEIGHT_LIMIT
from imagine_core.types import LoraUse
from imagine_core.uses_field import PART, Member, Uses, Words

__all__ = [
    "Loras",
]

MOST = 32
"""LoRAs of one request; more leave nothing of the model."""

WEIGHT = Decimal(-WEIGHT_LIMIT, WEIGHT_LIMIT)
MEMBERS = {
    "name": Member("name", Words(), required=True, says="A name from `GET /models?kind=lora`."),
    "weight": Member("weight", WEIGHT),
    "text_weight": Member(
        "text_weight", WEIGHT, says="Of the text encoders; as `weight` unless it is there."
    ),
    "start": Member("start", PART),
    "end": Member("end", PART),
    "blocks": Member("blocks", Words(), says="Weights by block, as in docs/loras.md."),
}


class Loras(Uses[LoraUse]):
    """A list of LoRAs, each with its weight."""

    def __init__(self) -> None:
        super().__init__(LoraUse, "LoRA", MEMBERS, '{"name": "ink", "weight": 0.8}', MOST)
