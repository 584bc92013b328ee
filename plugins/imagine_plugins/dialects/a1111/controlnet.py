"""The units of A1111's ControlNet extension (sd-webui-controlnet), and the routes it adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from imagine_core import strict_json
from imagine_core.control_field import MOST
from imagine_core.errors import FieldError, RequestError, UnknownName
from imagine_core.kinds import Decimal, Flag, Json, Picture, Text, loosely
from imagine_core.pictures.fitting import load_bounded
from imagine_core.pictures.formats import base64_of
from imagine_core.pictures.images import blamed
from imagine_core.pictures.infotext_values import MODES
from imagine_core.pictures.metadata import png_bytes
from imagine_core.rows import Row, read_rows, rows_schema
from imagine_core.strict_json import Refused
from imagine_core.types import ControlUse
from imagine_plugins.dialects.a1111.fields import CROP, FITS, NOTHING, Listed
from imagine_plugins.dialects.a1111.masks import refitted

if TYPE_CHECKING:
    from imagine_core import Preprocessor
    from imagine_core.service import Service
    from imagine_core.settings import Limits
    from imagine_core.web.answers import Call

SCRIPT = "controlnet"
NONE = "none"
VERSION = 2
"""Of the extension's API: units are objects under `alwayson_scripts`."""

# fmt: off
UNIT = (
    Row("enabled",        Flag(),              default=True),
    Row("module",         Text(),              NONE),
    Row("model",          Text(),              "None"),
    Row("image",          Picture(),           None),
    Row("weight",         Decimal(0.0, 10.0),  1.0),
    Row("guidance_start", Decimal(0.0, 1.0),   0.0),
    Row("guidance_end",   Decimal(0.0, 1.0),   1.0),
    Row("control_mode",   Listed(tuple(MODES.values())), 0),
    Row("resize_mode",    FITS,                CROP),
)
OTHER_NAMES = {"input_image": "image", "guidance": "guidance_end", "mask_image": "mask"}
IGNORED = (
    "mask", "advanced_weighting", "effective_region_mask", "ipadapter_input", "loopback",
    "batch_images", "guessmode", "guess_mode",
)
THRESHOLDS = ("threshold_a", "threshold_b")
USUAL = {"canny": (100, 200)}
"""The thresholds of the preprocessors here that have some."""
# fmt: on


@dataclass(slots=True, kw_only=True)
class Units:
    """Reads the units of a request.

    Attributes:
        service: The server.
        size: Width and height that hints are drawn at.
        start: The picture to start from, the hint of a unit without one.
        whole: Whether the picture is drawn as a whole; of parts, hints are the same part.
        hires: Whether there is a second pass.
        errors: Gets what cannot be served, under the core's name of the field.
        warnings: Gets what has no effect.
    """

    service: Service
    size: tuple[int, int]
    start: bytes | None = None
    whole: bool = True
    hires: bool = False
    errors: list[FieldError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def read(self, scripts: Mapping[str, Any]) -> tuple[ControlUse, ...]:
        """The ControlNets that `alwayson_scripts` asks for."""
        others, uses = [], []
        for key, script in scripts.items():
            if key.casefold() != SCRIPT:
                others += [key[:100]] if script not in NOTHING else []
                continue
            for place, unit in self._switched_on(script):
                try:
                    uses.append(self._unit(place, unit))
                except Refused as error:
                    self.errors.append(FieldError("controls", f"unit {place} {error}"))
        if others:
            self.warnings.append(f"alwayson_scripts {' '.join(others[:20])} has no effect here")
        return tuple(uses)

    def _switched_on(self, script: object) -> list[tuple[int, object]]:
        """The place of each unit that is switched on, and the unit; one more than may be."""
        units = script.get("args") if isinstance(script, dict) else script
        if units is None:
            return []
        if not isinstance(units, list):
            message = f'of {SCRIPT} must be {{"args": [units]}}, not {strict_json.kind_of(units)}'
            self.errors.append(FieldError("controls", message))
            return []
        on = ((place, unit) for place, unit in enumerate(units) if not _is_off(unit))
        return list(islice(on, MOST + 1))

    def _unit(self, place: int, unit: object) -> ControlUse:
        """The use of a unit that is switched on."""
        if not isinstance(unit, dict):
            raise Refused(f"must be an object, not {strict_json.kind_of(unit)}")
        given: dict[str, Any] = {
            **unit,
            **{n: unit[o] for o, n in OTHER_NAMES.items() if o in unit},
        }
        given["image"] = _image(given.get("image"))
        values, wrong = read_rows(UNIT, given, self.service.engine.settings.limits)
        if wrong:
            raise Refused("; ".join(f"has {each.field}: {each.message}" for each in wrong))
        if values["model"].strip().casefold() in ("", NONE):
            known = [info.name for info in self.service.engine.catalogue.usable("controlnet")]
            there = f"there are {', '.join(known[:20])}" if known else "there is none here"
            raise Refused(f"names no model: {there}")
        preprocessor = module_of(self.service, values["module"])
        self.warnings += self._ignored(place, given, preprocessor)
        return ControlUse(
            name=values["model"],
            image=self._hint(values),
            weight=values["weight"],
            start=values["guidance_start"],
            end=values["guidance_end"],
            mode=tuple(MODES)[values["control_mode"]],
            preprocessor=None if preprocessor is None else preprocessor.name,
        )

    def _hint(self, values: Mapping[str, Any]) -> bytes:
        image: bytes | None = values["image"] or self.start
        if image is None:
            raise Refused("has no image")
        most = self.service.engine.settings.limits.pixels
        if self.whole and self.size[0] * self.size[1] <= most:
            return refitted(image, self.size, values["resize_mode"])
        return image

    def _ignored(
        self, place: int, given: Mapping[str, Any], preprocessor: Preprocessor | None
    ) -> Iterator[str]:
        """A warning of what the unit asks for and does not get."""
        names = [name for name in IGNORED if given.get(name) not in (*NOTHING, False)]
        if self.hires and str(given.get("hr_option") or "Both").casefold() != "both":
            names.append("hr_option")
        if preprocessor is not None:
            usual = USUAL.get(preprocessor.name, (None, None))
            names += [
                name
                for name, default in zip(THRESHOLDS, usual, strict=True)
                if given.get(name) not in (None, -1, default)
            ]
            own = (None, -1, 0, min(self.size))
            if not given.get("pixel_perfect") and given.get("processor_res") not in own:
                names.append("processor_res")
        if names:
            yield f"{', '.join(names)} of ControlNet unit {place} has no effect here"


class ControlAnswers:
    """What the extension's routes answer; called on threads."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def models(self, _: Call) -> object:
        """The ControlNets."""
        return {"model_list": self._models()}

    def modules(self, _: Call) -> object:
        """The preprocessors, and "none" for hints that are finished."""
        names = module_names(self._service)
        detail = {name: {"model_free": False, "sliders": []} for name in names}
        return {"module_list": names, "module_detail": detail}

    def types(self, _: Call) -> object:
        """All ControlNets for each preprocessor that can be used, and for all of them."""
        service = self._service
        models = {"model_list": ["None", *self._models()], "default_model": "None"}
        modules = {"module_list": module_names(service), "default_option": NONE}
        found = {"All": {**modules, **models}}
        for each in _usable(service):
            modules = {"module_list": [NONE, each.name], "default_option": each.name}
            found[each.label] = {**modules, **models}
        return {"control_types": found}

    def detect(self, call: Call) -> object:
        """The hints that a preprocessor makes of pictures."""
        limits = self._service.engine.settings.limits
        sent = call.given.get("controlnet_input_images") or call.given.get("controlnet_images")
        if not isinstance(sent, list) or not 0 < len(sent) <= limits.images:
            message = f"must be a list of 1 to {limits.images} pictures"
            raise RequestError([FieldError("controlnet_input_images", message)])
        with _refused("controlnet_module"):
            name = call.given.get("controlnet_module") or NONE
            preprocessor = module_of(self._service, strict_json.text(name))
        return {"images": [self._hint(each, preprocessor) for each in sent], "info": "Success"}

    def _models(self) -> list[str]:
        """As the extension names them: "canny [d14c016b]"."""
        found = self._service.engine.catalogue.usable("controlnet")
        hashes = [info.details.get("short_hash") for info in found]
        return [
            f"{info.name} [{digits}]" if digits else info.name
            for info, digits in zip(found, hashes, strict=True)
        ]

    def _hint(self, sent: object, preprocessor: Preprocessor | None) -> str:
        with _refused("controlnet_input_images"):
            data = strict_json.picture(sent)
        with blamed("controlnet_input_images"):
            image = load_bounded(data, self._service.engine.settings.limits.pixels)
        if preprocessor is not None:
            image = self._service.engine.prepare(preprocessor, image)
        return base64_of(png_bytes(image, None))


class _refused:  # noqa: N801 - reads as a statement
    """Turns a refusal into an error of a field."""

    def __init__(self, field: str) -> None:
        self._field = field

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Refused):
            raise RequestError([FieldError(self._field, str(error))]) from None


def module_names(service: Service) -> list[str]:
    """The names of the preprocessors that can be used, the extension's among them."""
    return [NONE, *(name for each in _usable(service) for name in (each.name, *each.aliases))]


def _usable(service: Service) -> list[Preprocessor]:
    return [each for each in service.plugins.preprocessors if each.unavailable() is None]


def module_of(service: Service, name: str) -> Preprocessor | None:
    """The preprocessor that a client means; None for a finished hint.

    Raises:
        Refused: It is not there.
    """
    if name.strip().casefold() in ("", NONE):
        return None
    try:
        preprocessor = service.plugins.preprocessors.get(name)
    except UnknownName:
        there = ", ".join(module_names(service))
        message = f"asks for the module {name[:100]!r}, which is not here: there are {there}"
        raise Refused(message) from None
    problem = preprocessor.unavailable()
    if problem is not None:
        raise Refused(f"asks for the module {preprocessor.name!r}, which cannot be used: {problem}")
    return preprocessor


def unit_schema(limits: Limits) -> Json:
    """The JSON Schema of `alwayson_scripts`."""
    unit = {**rows_schema(UNIT, limits), "required": ["model"]}
    args = {"type": "array", "items": unit, "maxItems": MOST}
    script = {"type": "object", "properties": {"args": args}}
    return {"type": "object", "properties": {SCRIPT: script}}


def detect_schema(limits: Limits) -> Json:
    """The JSON Schema of the body of `/controlnet/detect`."""
    pictures = {"type": "array", "items": Picture().schema(limits), "minItems": 1}
    return {
        "type": "object",
        "required": ["controlnet_input_images"],
        "properties": {
            "controlnet_module": {"type": "string"},
            "controlnet_input_images": {**pictures, "maxItems": limits.images},
        },
    }


def _is_off(unit: object) -> bool:
    value = unit.get("enabled") if isinstance(unit, dict) else None
    with suppress(Refused):
        return value not in (None, "") and not loosely(Flag(), value)
    return False


def _image(value: object) -> object:
    """The picture in what the extension takes for one: it may stand with its mask."""
    if isinstance(value, list):
        value = value[0] if value else None
    return value.get("image") if isinstance(value, dict) else value
