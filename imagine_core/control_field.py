"""The field `controls` of a request: how it is read, written and bounded."""

from __future__ import annotations

from imagine_core.kinds import Choice, Decimal, Picture
from imagine_core.types import ControlUse
from imagine_core.uses_field import PART, Member, Uses, Words

__all__ = [
    "MEMBERS",
    "MOST",
    "Controls",
]

MOST = 8
"""ControlNets of one request; each takes nearly half of a forward."""

MEMBERS = {
    "name": Member(
        "name", Words(), required=True, says="A name from `GET /models?kind=controlnet`."
    ),
    "img": Member("image", Picture(), required=True, says="The hint, in base64."),
    "weight": Member("weight", Decimal(0.0, 10.0)),
    "start": Member("start", PART, says="The part of the steps after which it acts."),
    "end": Member("end", PART),
    "mode": Member("mode", Choice(("balanced", "prompt", "control"))),
    "preprocessor": Member(
        "preprocessor",
        Words(),
        says="Makes the hint of `img`: a name from `GET /preprocessors`; null for a finished one.",
    ),
}


class Controls(Uses[ControlUse]):
    """A list of ControlNets, each with its hint."""

    def __init__(self) -> None:
        example = '{"name": "canny", "img": "iVBORw0..."}'
        super().__init__(ControlUse, "ControlNet", MEMBERS, example, MOST)
