"""A1111's dialect: a request in JSON, and pictures with an `info` that is JSON in a string."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from imagine_core import GenerationRequest
from imagine_core.errors import (
    Cancelled,
    FieldError,
    ImagineError,
    RequestError,
    UnknownName,
    UnusableModel,
)
from imagine_core.fields import renamed
from imagine_core.kinds import SEEDS, Json
from imagine_core.pictures.formats import base64_of
from imagine_core.pictures.metadata import infotext_of
from imagine_core.rows import read_rows, rows_schema
from imagine_core.sampling import resolve_or_default
from imagine_core.strict_json import parse_object
from imagine_core.version import version
from imagine_core.web.app import explain, json_line
from imagine_core.web.callers import CallerOptions, caller_of
from imagine_core.web.dialect import LINES, Event, Failure, Finished, Order
from imagine_core.web.generation import so_far
from imagine_core.web.reading import read_extras
from imagine_core.web.security import FILE_ORIGINS
from imagine_plugins.dialects.a1111.controlnet import Units, unit_schema
from imagine_plugins.dialects.a1111.fields import (
    CLIP,
    EXTRAS,
    IGNORED,
    IGNORED_HIRES,
    MODEL,
    NAMES,
    NOTHING,
    ROWS,
    VAE,
    ignored,
)
from imagine_plugins.dialects.a1111.hires import hires_fields
from imagine_plugins.dialects.a1111.masks import start_fields

if TYPE_CHECKING:
    from starlette.requests import Request

    from imagine_core.models.catalogue import Catalogue
    from imagine_core.service import Service
    from imagine_core.web.dialect import Record

VAES = {"automatic": None, "none": "none"}  # what names no file: the model's, and the one in it
SEED_BITS = 32  # JavaScript keeps 53 bits of a number
PREVIEWS = 10


class NoInitImage(UnknownName):
    """img2img was asked for without a picture."""

    def __init__(self) -> None:
        self.kind, self.name, self.nearest = "picture", "init_images", ()
        ImagineError.__init__(self, "Init image not found")


class A1111:
    """Translates between A1111's API and the core."""

    framing = LINES

    def __init__(self, service: Service, options: CallerOptions, *, img2img: bool) -> None:
        self._service, self._options, self._img2img = service, options, img2img

    def schema(self) -> Json:
        """The JSON Schema of a body; what stands there without a type is taken, but not obeyed."""
        limits = self._service.engine.settings.limits
        whole = rows_schema(ROWS, limits)
        fields = {key: {} for key in IGNORED | IGNORED_HIRES} | whole["properties"]
        fields["alwayson_scripts"] = {"anyOf": [unit_schema(limits), {"type": "null"}]}
        required = ["init_images"] if self._img2img else []
        return {**whole, "properties": fields, "required": required}

    def read(self, body: bytes, request: Request) -> Order:
        """The order in a body, with the options that its client has set."""
        given, caller = parse_object(body), caller_of(request)
        if not self._img2img:
            given |= {"init_images": None, "mask": None}
        elif given.get("init_images") in NOTHING:
            raise NoInitImage
        limits = self._service.engine.settings.limits
        override, stored = given.get("override_settings") or {}, self._options.of(caller)
        clip = override.get(CLIP) if isinstance(override, dict) else None
        given["clip_skip"] = clip or given.get("clip_skip") or stored.get(CLIP)
        values, errors = read_rows(ROWS, given, limits)
        values["enable_hr"] = values["enable_hr"] and not self._img2img
        ours = {key: given[key] for key in EXTRAS if key in given}
        extras = read_extras(ours, errors, keeps=self._service.jobs.keeps)
        core, warnings = self._core(values, stored, errors)
        known = {MODEL: core["model"]} if values["override_settings"].get(MODEL) else {}
        stays = not (values["override_settings_restore_afterwards"] or errors)
        if stays and request.headers.get("origin", "").lower() in FILE_ORIGINS:
            warnings.append("pages opened from files set no options: override_settings hold once")
        elif stays:
            self._options.set(caller, {**values["override_settings"], **known})
        shown = {"seed": core["seed"], "override_settings": known}
        hidden: Json = {"init_images": None, "mask": None, "alwayson_scripts": {}}
        told = (*warnings, *ignored(given, hires=values["enable_hr"]))
        return Order(
            request=GenerationRequest(**core),
            errors=tuple(errors),
            details={"a1111": values | shown | hidden},
            **extras | {"warnings": (*told, *extras["warnings"])},
        )

    def _core(
        self, values: dict[str, Any], stored: Mapping[str, Any], errors: list[FieldError]
    ) -> tuple[dict[str, Any], list[str]]:
        """The fields of the request in the core's words, and warnings."""
        service, override = self._service, values["override_settings"]
        samplers, catalogue = service.plugins.samplers, service.engine.catalogue
        name, schedule = values["sampler_name"] or values["sampler_index"], values["scheduler"]
        spec, schedule, warnings = resolve_or_default(samplers, name, schedule or "default")
        model, unknown = catalogue.match_or_default(override.get(MODEL), stored.get(MODEL))
        vae, unknown_vae = vae_of(catalogue, override.get(VAE) or stored.get(VAE))
        warnings += [*unknown, *unknown_vae]
        for seed in ("seed", "subseed"):
            drawn = secrets.randbits(SEED_BITS)
            values[seed] = drawn if values[seed] is None else values[seed]
        core = {row.core: values[row.key] for row in ROWS if row.core} | {
            "model": model and model.name,
            "vae": vae,
            "sampler": spec.name,
            "noise_schedule": schedule,
            "subseed": values["subseed"] if values["subseed_strength"] else None,
            "images": values["batch_size"] * values["n_iter"],
            "tiling": "xy" if values["tiling"] else "",
            "preview_every": max(1, values["steps"] // PREVIEWS),
            **hires_fields(values, service, spec, warnings=warnings, errors=errors),
            **start_fields(values, warnings, most=service.engine.settings.limits.pixels),
        }
        if not self._img2img:
            del core["strength"]
        scale = core["hires_scale"] or 1
        units = Units(
            service=service,
            size=(round(values["width"] * scale), round(values["height"] * scale)),
            start=core["init_image"],
            whole=core["mask_padding"] is None,
            hires=values["enable_hr"],
            errors=errors,
            warnings=warnings,
        )
        return core | {"controls": units.read(values["alwayson_scripts"])}, warnings

    def say(self, event: Event, record: Record) -> bytes | None:
        """The whole answer; of an interrupted order with the last preview, if there is one."""
        done = so_far(self._service, record) if isinstance(event, Cancelled) else event
        if not isinstance(done, Finished):
            return None
        values, request = record.order.details["a1111"], done.result.request
        start = record.order.request.init_image
        if values["include_init_images"] and start is not None:
            values = {**values, "init_images": [base64_of(start)]}
        warnings = [*record.order.warnings, *done.result.warnings]
        seeds = done.seeds or (request.seed or 0,)
        each = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
        subseeds = done.subseeds or [(values["subseed"] + i) % SEEDS for i in range(len(seeds))]
        strength = request.hires_strength if request.hires_scale else None
        # fmt: off
        info = {
            **each, **{f"all_{name}s": [value] * len(seeds) for name, value in each.items()},
            "seed": seeds[0], "all_seeds": seeds, "subseed": subseeds[0], "all_subseeds": subseeds,
            "subseed_strength": request.subseed_strength,
            "seed_resize_from_w": -1, "seed_resize_from_h": -1,
            "width": request.width, "height": request.height,
            "sampler_name": self._service.plugins.samplers.get(request.sampler).label,
            "cfg_scale": request.guidance_scale, "steps": request.steps,
            "batch_size": values["batch_size"], "clip_skip": request.clip_skip,
            "denoising_strength": request.strength if self._img2img else strength,
            "sd_model_name": request.model, "sd_model_hash": done.result.model_hash,
            "infotexts": [infotext_of(png) or "" for png in done.pngs],
            "sd_vae_name": request.vae, "sd_vae_hash": done.result.hashes.get("vae"),
            "index_of_first_image": 0, "job_timestamp": time.strftime("%Y%m%d%H%M%S"),
            "version": f"Imagine {version()}", "extra_generation_params": {}, "styles": [],
            "warnings": warnings,
        }
        # fmt: on
        pngs = done.pngs if values["send_images"] else ()
        images = [base64_of(png) for png in pngs]
        answer = {"images": images, "parameters": values, "info": json.dumps(info)}
        return json_line({**answer, "warnings": warnings})

    def fail(self, error: Exception, *, begun: bool = False) -> Failure:
        """Errors in A1111's form, with its names of fields."""
        del begun
        error = renamed(error, NAMES) if isinstance(error, RequestError) else error
        status, body = explain(error)
        said = body["error"]["message"]
        form = {"error": type(error).__name__, "detail": said, "body": "", "errors": said}
        return status, json_line(form)


def vae_of(catalogue: Catalogue, text: object) -> tuple[str | None, list[str]]:
    """The VAE that a client means, as requests name it; for an unknown one, a warning."""
    name = str(text or "Automatic")
    if name.casefold() in VAES:
        return VAES[name.casefold()], []
    try:
        return catalogue.match(name, "vae").name, []
    except (UnknownName, UnusableModel) as error:
        return None, [f"{error}; the model's own draws instead"]
