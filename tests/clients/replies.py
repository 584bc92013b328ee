"""What replies of the package `openai` hold."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from clients.native import SEED, STEPS, Pixels, pixels

if TYPE_CHECKING:
    from openai import BaseModel
    from openai.types import ImagesResponse

OWN: dict[str, Any] = {"seed": SEED, "steps": STEPS}
"""Settings that the package has no names for."""


def files(response: ImagesResponse) -> list[bytes]:
    """The encoded pictures of a response."""
    assert response.data is not None
    found = []
    for each in response.data:
        assert each.b64_json is not None
        found.append(base64.b64decode(each.b64_json, validate=True))
    return found


def pictures(response: ImagesResponse) -> list[Pixels]:
    """The pixels of each picture of a response."""
    return [pixels(data) for data in files(response)]


def extra(reply: BaseModel, name: str) -> Any:
    """A field that the package has no name for."""
    assert reply.model_extra is not None
    return reply.model_extra[name]
