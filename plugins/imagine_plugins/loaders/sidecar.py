"""Reads the JSON file beside a model, which overrides what the model says of itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagine_core.fields import FIELDS
from imagine_core.models.stamps import sidecar_of
from imagine_core.settings import Limits
from imagine_core.strict_json import Refused
from imagine_core.types import OWN
from imagine_plugins.loaders.problems import ProblemError

SIZE_LIMIT = 2**20
SIDES = range(64, 4097)
PREDICTIONS = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v_prediction": "v_prediction",
    "v": "v_prediction",
}

DEFAULTABLE = {field.wire: field for field in FIELDS if field.name in OWN - {"width", "height"}}


class SidecarError(ProblemError):
    """A sidecar that cannot be understood; the text names the file and the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What a sidecar decides; None leaves it to the model.

    Attributes:
        prediction_type: "epsilon" or "v_prediction".
        zero_terminal_snr: Whether the training's last step was pure noise.
        recommended_size: Width and height.
        vae: The name of a VAE to draw with.
        defaults: What a request gets that does not say it, by names of `GenerationRequest`.
    """

    prediction_type: str | None = None
    zero_terminal_snr: bool | None = None
    recommended_size: tuple[int, int] | None = None
    vae: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)


def read_sidecar(path: Path) -> Overrides:
    """The overrides beside the model at `path`; none where there is no such file.

    Unknown keys are ignored: other tools write such files too.
    """
    beside = sidecar_of(path)
    try:
        if not beside.is_file():
            return Overrides()
        if beside.stat().st_size > SIZE_LIMIT:
            raise SidecarError(f"{beside.name} beside it is larger than a megabyte")
        content = json.loads(beside.read_text("utf-8-sig"))  # Windows' editors put a mark first
    except OSError as error:
        raise SidecarError(f"{beside.name} beside it cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        place = f" from line {error.lineno} on" if isinstance(error, json.JSONDecodeError) else ""
        raise SidecarError(
            f"{beside.name} beside it is no JSON{place}; mend or delete it"
        ) from error
    if not isinstance(content, dict):
        return Overrides()
    return Overrides(
        prediction_type=_prediction(beside.name, content),
        zero_terminal_snr=_flag(beside.name, content, "zero_terminal_snr"),
        recommended_size=_size(beside.name, content),
        vae=_name(beside.name, content, "vae"),
        defaults=_defaults(beside.name, content),
    )


def parse_size(text: object) -> tuple[int, int] | None:
    """Width and height from "1024x768", if it is that and within reason."""
    match = (
        re.fullmatch(r"\s*(\d{1,5})\s*[xX]\s*(\d{1,5})\s*", text) if isinstance(text, str) else None
    )
    if match is None:
        return None
    width, height = int(match[1]), int(match[2])
    return _checked_size(width, height)


def _checked_size(width: int, height: int) -> tuple[int, int] | None:
    if width in SIDES and height in SIDES and width % 8 == height % 8 == 0:
        return width, height
    return None


def _prediction(file: str, content: Mapping[str, Any]) -> str | None:
    value = content.get("prediction_type")
    if value is None:
        return None
    if not isinstance(value, str) or value.lower() not in PREDICTIONS:
        raise SidecarError(f'{file}: prediction_type must be "epsilon" or "v_prediction"')
    return PREDICTIONS[value.lower()]


def _flag(file: str, content: Mapping[str, Any], name: str) -> bool | None:
    value = content.get(name)
    if value is not None and not isinstance(value, bool):
        raise SidecarError(f"{file}: {name} must be true or false")
    return value


def _name(file: str, content: Mapping[str, Any], key: str) -> str | None:
    value = content.get(key)
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise SidecarError(f'{file}: {key} must be a name, as "imagine list" has it')
    return value and value.strip()


def _defaults(file: str, content: Mapping[str, Any]) -> dict[str, Any]:
    given = content.get("defaults", {})
    if not isinstance(given, dict):
        raise SidecarError(f"{file}: defaults must be an object")
    unknown = [name for name in given if name not in DEFAULTABLE]
    if unknown:
        known = ", ".join(DEFAULTABLE)
        raise SidecarError(f"{file}: defaults has {unknown[0][:80]!r}, which is none of {known}")
    found = {}
    for name, value in given.items():
        row = DEFAULTABLE[name]
        try:
            found[row.name] = row.kind.read(value)
        except Refused as error:
            raise SidecarError(f"{file}: {name} of defaults {error}") from error
        if (problem := row.kind.problem(found[row.name], Limits())) is not None:
            raise SidecarError(f"{file}: {name} of defaults {problem}")
    return found


def _size(file: str, content: Mapping[str, Any]) -> tuple[int, int] | None:
    value = content.get("recommended_size")
    if value is None:
        return None
    match value:
        case [int(width), int(height)]:
            size = _checked_size(width, height)
        case _:
            size = parse_size(value)
    if size is None:
        raise SidecarError(
            f'{file}: recommended_size must be like "1024x768", multiples of 8 from 64 to 4096'
        )
    return size
