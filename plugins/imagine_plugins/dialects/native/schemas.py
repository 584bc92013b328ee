"""The native wire format as JSON Schema, with the bounds of a server's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from imagine_core.fields import FIELDS
from imagine_core.models.folders import KINDS
from imagine_core.types import Phase
from imagine_core.web.dialect import Ended
from imagine_core.web.openapi import reference

if TYPE_CHECKING:
    from imagine_core.settings import Limits

Json = dict[str, Any]
FIELD = {field.wire: field for field in FIELDS}

STRING: Json = {"type": "string"}
BOOLEAN: Json = {"type": "boolean"}
COUNT: Json = {"type": "integer", "minimum": 0}
NUMBER: Json = {"type": "number"}
SECONDS: Json = {"type": "number", "minimum": 0}
STRINGS: Json = {"type": "array", "items": STRING}
NULL: Json = {"type": "null"}
NAME: Json = {"type": "string", "pattern": r"\S"}
PICTURE: Json = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"}
ID: Json = {"type": "string", "pattern": "^[0-9a-f]{24}$"}
SEED: Json = {"type": "string", "pattern": "^[0-9]{1,20}$"}


def record(required: Mapping[str, Json], optional: Mapping[str, Json] | None = None) -> Json:
    """An object: `required` keys, and any of the `optional` ones."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": properties}


def listed(schema: Json) -> Json:
    """An array of `schema`."""
    return {"type": "array", "items": schema}


def said(words: str, schema: Json) -> Json:
    """`schema` with a description."""
    return {**schema, "description": words}


def one_of(*values: object) -> Json:
    """One of these strings."""
    return {"type": "string", "enum": list(values)}


def any_of(*schemas: Json) -> Json:
    """At least one of these."""
    return {"anyOf": list(schemas)}


# ------------------------------------------------------------------------------------ requests


def generate_request(limits: Limits) -> Json:
    """The body of `POST /generate`."""
    properties = {field.wire: field.schema(limits) for field in FIELDS} | {
        "progress": said("A line on each phase and step.", BOOLEAN),
        "enhance": said(
            "Whether by any enhancer, or the name of one.", any_of(BOOLEAN, NAME, NULL)
        ),
        "on_disconnect": {"enum": ["cancel", "finish", None], "default": "cancel"},
    }
    return {
        "type": "object",
        "required": ["prompt"],
        "properties": properties,
        "description": UNKNOWN,
        "examples": [EXAMPLE],
    }


UNKNOWN = (
    "Keys that the server does not know are ignored, and named in `warnings` of the reply. "
    "Integers are written without a point: 512, not 512.0."
)
EXAMPLE = {"prompt": "a lighthouse in a storm", "width": 256, "height": 256, "steps": 10}


def enhance_request(limits: Limits) -> Json:
    """The body of `POST /enhance`."""
    choices = {
        "neg": said("Whether to make a negative prompt as well.", any_of(BOOLEAN, NULL)),
        "stream": any_of(BOOLEAN, NULL),
        "enhancer": said("A name from `GET /enhancers`.", any_of(NAME, NULL)),
        "model": said("The name of a language model.", any_of(NAME, NULL)),
        "seed": FIELD["seed"].schema(limits),
    }
    example = {"prompt": "a fox", "neg": True, "seed": "1"}
    whole = record({"prompt": FIELD["prompt"].schema(limits)}, choices)
    return whole | {"description": UNKNOWN, "examples": [example]}


STOP_REQUEST = record({"model": NAME}) | {"examples": [{"model": "doodle"}]}

# ------------------------------------------------------------------------------------- replies

PHASES = get_args(Phase)
LORAS = listed({"type": "object"})
HASHES = {"type": "object", "additionalProperties": STRING}
SUBSEED = {"subseed": said("Of a variation.", SEED)}
MADE = record({"img": PICTURE, "seed": SEED}, SUBSEED)
FINAL = record(
    {
        "id": ID,
        "img": PICTURE,
        "seed": SEED,
        "status": {"const": "final"},
        "model": STRING,
        "sampler": STRING,
        "schedule": STRING,
        "width": COUNT,
        "height": COUNT,
        "steps": COUNT,
        "steps_run": any_of(COUNT, NULL),
        "warnings": STRINGS,
        "timings": {"type": "object", "additionalProperties": SECONDS},
        "model_hash": any_of(STRING, NULL),
        "version": STRING,
    },
    {
        "prompt": said("Where it is not the request's: without tags, or an enhancer's.", STRING),
        "original_prompt": STRING,
        "enhancer": STRING,
        "loras": said("Those that changed the model, with those of the prompt.", LORAS),
        "vae": said("Where it is not the model's own.", STRING),
        "hashes": said("Of what changed the model.", HASHES),
        "images": said("Where there are several.", listed(MADE)),
        **SUBSEED,
    },
)
STEP = {"seed": SEED, "step": COUNT, "steps": COUNT, "image": COUNT}
PHASE_LINE = record(
    {"id": ID, "status": one_of(*PHASES)},
    {"position": COUNT, "wait": SECONDS, "fraction": NUMBER},
)
PROGRESS_LINE = record({"id": ID, "status": {"const": "progress"}, **STEP})
INTERMEDIATE_LINE = record(
    {"id": ID, "status": {"const": "intermediate"}, "img": PICTURE, **STEP, "model": STRING}
)
LINE = any_of(
    *(reference(name) for name in ("Phase", "Progress", "Intermediate", "Final", "Error"))
)

AT_WORK = {"position": COUNT, "wait": SECONDS, "fraction": NUMBER, "step": COUNT, "steps": COUNT}
STANDING = record({"id": ID, "status": one_of(*PHASES)}, AT_WORK)
GAVE_UP = record(
    {"id": ID, "status": one_of("failed", "cancelled"), "error": {"type": "object"}},
)
JOB = any_of(*(reference(name) for name in ("Standing", "Final", "GaveUp")))
ENDED = get_args(Ended)
LISTED = record({"id": ID, "status": one_of(*PHASES, *ENDED)}, {**AT_WORK, "expires_in": NUMBER})
JOBS = record({"jobs": listed(LISTED)})
CANCELLED = record({"id": ID, "status": one_of(*ENDED)})

BOUNDS = ("pixels", "steps", "images", "queue", "body", "prompt", "smallest", "multiple")
LIMITS = record(dict.fromkeys(BOUNDS, COUNT))
KIND = one_of(*KINDS)
MODEL_FIELDS: dict[str, Json] = {
    "name": STRING,
    "family": STRING,
    "format": STRING,
    "size": COUNT,
    "problem": any_of(STRING, NULL),
    "parameters": any_of(COUNT, NULL),
    "dtype": any_of(STRING, NULL),
    "clip_layers": any_of(COUNT, NULL),
    "recommended_size": any_of(
        {"type": "array", "items": COUNT, "minItems": 2, "maxItems": 2}, NULL
    ),
    "defaults": {"type": "object"},
    "guidance": one_of("free", "distilled", "none"),
    "metadata": {"type": "object"},
    "kind": KIND,
    "fits": STRINGS,
    "takes": STRINGS,
    "vae": any_of(STRING, NULL),
    "details": {"type": "object"},
}
MODEL = record({**MODEL_FIELDS, "hash": STRING})
MODELS = record(
    {
        "models": STRINGS,
        "default": any_of(STRING, NULL),
        "details": listed(record(MODEL_FIELDS)),
        "limits": reference("Limits"),
    }
)
SAMPLER = record(
    {
        "name": STRING,
        "label": STRING,
        "aliases": STRINGS,
        "schedules": STRINGS,
        "evaluations": COUNT,
        "stochastic": BOOLEAN,
        "plugin": STRING,
    }
)
SAMPLERS = record({"samplers": STRINGS, "details": listed(SAMPLER)})
ENHANCER = record(
    {"name": STRING, "label": STRING, "language_model": BOOLEAN, "problem": any_of(STRING, NULL)}
)
ENHANCERS = record(
    {"enhancers": STRINGS, "default": any_of(STRING, NULL), "details": listed(ENHANCER)}
)
ENHANCED = record(
    {
        "prompt": STRING,
        "original_prompt": STRING,
        "status": {"const": "final"},
        "enhancer": STRING,
        "model": any_of(STRING, NULL),
        "seed": SEED,
        "warnings": STRINGS,
    },
    {"neg": STRING},
)
ENHANCED_PART = record({"prompt": STRING, "status": {"const": "intermediate"}})
ENHANCED_LINE = any_of(*(reference(name) for name in ("EnhancedPart", "Enhanced", "Error")))
HEALTH = record(
    {"status": one_of("starting", "ready", "stopping", "failed", "stalled"), "ready": BOOLEAN},
    {"device": STRING, "message": STRING, "since": {"type": "string", "format": "date-time"}},
)
VERSION = record({"version": STRING, "limits": reference("Limits")})
STOPPED = record({"model": STRING, "status": one_of("unloaded", "when idle", "not loaded")})
LOADED = record(
    {
        "name": STRING,
        "kind": KIND,
        "family": STRING,
        "size": COUNT,
        "memory": COUNT,
        "in_use": COUNT,
        "idle_seconds": SECONDS,
        "expires_in": any_of(NUMBER, NULL),
    }
)
RUNNING = record(
    {
        "id": ID,
        "model": STRING,
        "sampler": STRING,
        "phase": one_of(*PHASES),
        "position": COUNT,
        "wait": any_of(SECONDS, NULL),
        "fraction": any_of(NUMBER, NULL),
        "step": COUNT,
        "steps": COUNT,
        "width": COUNT,
        "height": COUNT,
    }
)
PROCESSES = record(
    {
        "device": any_of(STRING, NULL),
        "dtype": any_of(STRING, NULL),
        "models": listed(LOADED),
        "queue": COUNT,
        "jobs": listed(RUNNING),
    }
)
