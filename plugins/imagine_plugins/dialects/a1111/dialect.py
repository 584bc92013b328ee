"""A1111's dialect: a request in JSON, and pictures with an `info` that is JSON in a string."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from imagine_core import GenerationRequest
from imagine_core.errors import (
    Cancelled,
    ImagineError,
    RequestError,
    UnknownName,
    UnusableModel,
)
from imagine_core.fields import renamed
from imagine_core.kinds import (
    Absent,
    Decimal,
    FirstPicture,
    Flag,
    Json,
    Object,
    Seed,
    Side,
    Text,
    Whole,
)
from imagine_core.pictures.formats import base64_of
from imagine_core.pictures.metadata import infotext_of
from imagine_core.rows import Row, read_rows, rows_schema
from imagine_core.sampling import resolve_or_default
from imagine_core.strict_json import parse_object
from imagine_core.types import HIRES_STRENGTH
from imagine_core.version import version
from imagine_core.web.app import explain, json_line
from imagine_core.web.callers import CallerOptions, caller_of
from imagine_core.web.dialect import LINES, Event, Failure, Finished, Order
from imagine_core.web.generation import so_far
from imagine_core.web.reading import read_extras
from imagine_core.web.security import FILE_ORIGINS

if TYPE_CHECKING:
    from starlette.requests import Request

    from imagine_core.models.catalogue import Catalogue
    from imagine_core.service import Service
    from imagine_core.web.dialect import Record

EXTRAS = ("enhance", "on_disconnect")
MODEL, CLIP, VAE = "sd_model_checkpoint", "CLIP_stop_at_last_layers", "sd_vae"
VAES = {"automatic": None, "none": "none"}  # what names no file: the model's, and the one in it
SEED_BITS = 32  # JavaScript keeps 53 bits of a number
PREVIEWS = 10
# fmt: off
ROWS = (
    Row("prompt",              Text(),             "",    "prompt"),
    Row("negative_prompt",     Text(),             "",    "negative_prompt"),
    Row("seed",                Seed(),             None,  "seed"),
    Row("steps",               Whole(1, "steps"),  50,    "steps"),
    Row("cfg_scale",           Decimal(0, 1000),   7.0,   "guidance_scale"),
    Row("width",               Side(),             512,   "width"),
    Row("height",              Side(),             512,   "height"),
    Row("batch_size",          Whole(1, "images"), 1,     "images"),
    Row("n_iter",              Whole(1, "images"), 1),
    Row("sampler_name",        Text(),             None,  "sampler"),
    Row("sampler_index",       Text(),             "Euler"),
    Row("scheduler",           Text(),             None,  "noise_schedule"),
    Row("clip_skip",           Whole(1, lowest="the last layer"), 1, "clip_skip"),
    Row("denoising_strength",  Decimal(0, 1),      0.75,  "strength"),
    Row("enable_hr",           Flag(),             default=False),
    Row("hr_scale",            Decimal(0, 1000),   2.0,   "hires_scale"),
    Row("hr_resize_x",         Whole(0, "pixels"), 0),
    Row("hr_resize_y",         Whole(0, "pixels"), 0),
    Row("include_init_images", Flag(),             default=False),
    Row("send_images",         Flag(),             default=True),
    Row("force_task_id",       Text(),             None),
    Row("init_images",         FirstPicture(),     None,  "init_image"),
    Row("mask",                Absent("masks are not there yet")),
    Row("script_name",         Absent("Script {!r:.100} not found")),
    Row("override_settings",   Object(),           {}),
    Row("override_settings_restore_afterwards", Flag(), default=True),
)
NAMES = {row.core: row.key for row in ROWS if row.core} | {
    "images": "batch_size x n_iter", "vae": VAE,
}

IGNORED: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("styles", "restore_faces", "tiling", "subseed_strength", "resize_mode"), ()),
    **dict.fromkeys(("seed_resize_from_w", "seed_resize_from_h", "refiner_checkpoint"), ()),
    **dict.fromkeys(("s_churn", "s_tmin", "s_tmax", "s_min_uncond", "alwayson_scripts"), ()),
    **dict.fromkeys(("firstphase_width", "firstphase_height"), ()),
    "override_settings": (),
    **dict.fromkeys(("s_noise", "initial_noise_multiplier", "eta"), (1,)),  # eta: webuiapi's own
}
IGNORED_HIRES = {
    "denoising_strength": (HIRES_STRENGTH,), "hr_upscaler": ("None", "Lanczos"),
    "hr_checkpoint_name": ("Use same checkpoint",), "hr_sampler_name": ("Use same sampler",),
    "hr_scheduler": ("Use same scheduler",),
    **dict.fromkeys(("hr_second_pass_steps", "hr_prompt", "hr_negative_prompt"), ()),
}
OBEYED = (MODEL, CLIP, VAE)  # of override_settings
NOTHING: tuple[object, ...] = (None, "", 0, -1, [], {}, "Automatic")
# fmt: on
"""Fields that are not obeyed, and the values that ask for nothing, beside those of `NOTHING`."""


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
        whole = rows_schema(ROWS, self._service.engine.settings.limits)
        fields = {key: {} for key in IGNORED | IGNORED_HIRES} | whole["properties"]
        required = ["init_images"] if self._img2img else []
        return {**whole, "properties": fields, "required": required}

    def read(self, body: bytes, request: Request) -> Order:
        """The order in a body, with the options that its client has set."""
        given, caller = parse_object(body), caller_of(request)
        if self._img2img and given.get("init_images") in NOTHING:
            raise NoInitImage
        pictures = given.get("init_images") if self._img2img else None
        override, stored = given.get("override_settings") or {}, self._options.of(caller)
        clip = override.get(CLIP) if isinstance(override, dict) else None
        given |= {
            "init_images": pictures,
            "clip_skip": clip or given.get("clip_skip") or stored.get(CLIP),
        }
        values, errors = read_rows(ROWS, given, self._service.engine.settings.limits)
        ours = {key: given[key] for key in EXTRAS if key in given}
        extras = read_extras(ours, errors, keeps=self._service.jobs.keeps)
        override = values["override_settings"]
        samplers, catalogue = self._service.plugins.samplers, self._service.engine.catalogue
        name, schedule = values["sampler_name"] or values["sampler_index"], values["scheduler"]
        spec, schedule, warnings = resolve_or_default(samplers, name, schedule or "default")
        model, unknown = catalogue.match_or_default(override.get(MODEL), stored.get(MODEL))
        vae, unknown_vae = vae_of(catalogue, override.get(VAE) or stored.get(VAE))
        hires = values["enable_hr"] and not self._img2img
        scales = (values["hr_resize_x"] / values["width"], values["hr_resize_y"] / values["height"])
        core = {row.core: values[row.key] for row in ROWS if row.core} | {
            "model": model and model.name,
            "vae": vae,
            "sampler": spec.name,
            "noise_schedule": schedule,
            "seed": secrets.randbits(SEED_BITS) if values["seed"] is None else values["seed"],
            "images": values["batch_size"] * values["n_iter"],
            "preview_every": max(1, values["steps"] // PREVIEWS),
            "hires_scale": (scales[0] or scales[1] or values["hr_scale"]) if hires else None,
        }
        if not self._img2img:
            del core["strength"]
        known = {MODEL: core["model"]} if override.get(MODEL) else {}
        stays = not (values["override_settings_restore_afterwards"] or errors)
        if stays and request.headers.get("origin", "").lower() in FILE_ORIGINS:
            warnings.append("pages opened from files set no options: override_settings hold once")
        elif stays:
            self._options.set(caller, {**override, **known})
        values |= {"seed": core["seed"], "override_settings": known, "init_images": None}
        told = (*warnings, *unknown, *unknown_vae, *_ignored(given, hires=hires))
        return Order(
            request=GenerationRequest(**core),
            errors=tuple(errors),
            details={"a1111": values},
            **extras | {"warnings": (*told, *extras["warnings"])},
        )

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
        each = {"prompt": request.prompt, "negative_prompt": request.negative_prompt, "subseed": -1}
        # fmt: off
        info = {
            **each, **{f"all_{name}s": [value] * len(seeds) for name, value in each.items()},
            "seed": seeds[0], "all_seeds": seeds, "width": request.width, "height": request.height,
            "sampler_name": self._service.plugins.samplers.get(request.sampler).label,
            "cfg_scale": request.guidance_scale, "steps": request.steps,
            "batch_size": values["batch_size"], "clip_skip": request.clip_skip,
            "denoising_strength": request.strength if self._img2img else None,
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


def _ignored(given: Mapping[str, Any], *, hires: bool) -> Iterator[str]:
    for key, nothing in (IGNORED | IGNORED_HIRES if hires else IGNORED).items():
        value = given.get(key)
        asked = value if isinstance(value, dict) else {"": value}
        quiet = (*NOTHING, *nothing)
        names = [n[:100] for n, v in asked.items() if v not in quiet and n not in OBEYED]
        if names:
            yield f"{' '.join([key, *filter(None, names[:20])])} has no effect here"
    if hires:
        yield "the hires fix scales back to width x height here"
    if isinstance(pictures := given["init_images"], list) and len(pictures) > 1:
        yield "of several init_images the first one is taken"
