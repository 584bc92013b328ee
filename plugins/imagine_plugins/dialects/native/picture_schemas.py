"""The requests and replies of upscalers and preprocessors as JSON Schema."""

from __future__ import annotations

from imagine_core.kinds import LARGEST_SCALE
from imagine_core.web.openapi import reference
from imagine_plugins.dialects.native.schemas import (
    BOOLEAN,
    COUNT,
    ID,
    NAME,
    NULL,
    PICTURE,
    SECONDS,
    STRING,
    STRINGS,
    UNKNOWN,
    Json,
    any_of,
    listed,
    record,
    said,
)

ENCODED: Json = {"type": "string", "pattern": r"\S", "contentEncoding": "base64"}
ABOVE_ZERO: Json = {"type": "number", "exclusiveMinimum": 0, "maximum": LARGEST_SCALE}
LONGEST_SIDE = 8192
"""Of a larger picture that is asked for by its sides: so no two are too long together."""

LENGTH: Json = {"type": "integer", "minimum": 1, "maximum": LONGEST_SIDE}
REST: Json = {"additionalProperties": True}
BY_SIDES = record({"width": LENGTH, "height": LENGTH}, {"scale": NULL}) | REST
BY_SCALE = record({}, {"width": NULL, "height": NULL}) | REST
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
"""A picture of one pixel."""

UPSCALE_REQUEST = record(
    {"img": said("The picture.", ENCODED)},
    {
        "upscaler": said("A name from `GET /upscalers`.", any_of(NAME, NULL)),
        "scale": said("The factor of each side.", any_of(ABOVE_ZERO, NULL)),
        "width": said("Of the result, with `height`, in place of `scale`.", any_of(LENGTH, NULL)),
        "height": any_of(LENGTH, NULL),
        "progress": said("A line on each phase and step.", any_of(BOOLEAN, NULL)),
    },
) | {"description": UNKNOWN, "examples": [{"img": DOT, "scale": 2}], **any_of(BY_SIDES, BY_SCALE)}
PREPROCESS_REQUEST = record(
    {
        "img": said("The picture.", ENCODED),
        "preprocessor": said("A name from `GET /preprocessors`.", NAME),
    }
) | {"description": UNKNOWN, "examples": [{"img": DOT, "preprocessor": "canny"}]}

ENLARGED = record(
    {
        "id": ID,
        "img": PICTURE,
        "status": {"const": "final"},
        "upscaler": STRING,
        "width": COUNT,
        "height": COUNT,
        "warnings": STRINGS,
        "timings": {"type": "object", "additionalProperties": SECONDS},
        "version": STRING,
    }
)
ENLARGING_LINE = record(
    {"id": ID, "status": {"const": "progress"}, "step": COUNT, "steps": COUNT},
)
ENLARGED_LINE = any_of(
    *(reference(name) for name in ("Phase", "Enlarging", "Enlarged", "Error")),
)
UPSCALER = record(
    {
        "name": STRING,
        "label": STRING,
        "aliases": STRINGS,
        "factor": said("Of one application; null for any.", any_of(COUNT, NULL)),
        "architecture": any_of(STRING, NULL),
        "problem": any_of(STRING, NULL),
        "plugin": said("Null for a file.", any_of(STRING, NULL)),
    }
)
UPSCALERS = record({"upscalers": STRINGS, "details": listed(UPSCALER)})
HINT = record(
    {"img": PICTURE, "preprocessor": STRING, "width": COUNT, "height": COUNT, "warnings": STRINGS}
)
PREPROCESSOR = record(
    {
        "name": STRING,
        "label": STRING,
        "aliases": STRINGS,
        "problem": any_of(STRING, NULL),
        "plugin": STRING,
    }
)
PREPROCESSORS = record({"preprocessors": STRINGS, "details": listed(PREPROCESSOR)})
