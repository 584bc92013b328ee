"""The native routes in the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from imagine_core.errors import (
    BodyTooLarge,
    Busy,
    Cancelled,
    EnhancerFailed,
    GenerationFailed,
    ImagineError,
    MalformedBody,
    NoModel,
    Offline,
    OutOfMemory,
    RequestError,
    ServerFailed,
    ShuttingDown,
    Stalled,
    UnknownName,
    UnusableModel,
)
from imagine_core.web.openapi import failures, reference
from imagine_plugins.dialects.native import picture_schemas, schemas

if TYPE_CHECKING:
    from imagine_core.settings import Limits

Json = dict[str, Any]

BODY: tuple[type[ImagineError], ...] = (MalformedBody, BodyTooLarge, RequestError)
ENHANCING: tuple[type[ImagineError], ...] = (
    UnknownName,
    EnhancerFailed,
    ServerFailed,
    Busy,
    ShuttingDown,
    Offline,
)
GENERATING: tuple[type[ImagineError], ...] = (
    *BODY,
    *ENHANCING,
    NoModel,
    UnusableModel,
    Cancelled,
    Stalled,
    GenerationFailed,
    OutOfMemory,
)

ENLARGING: tuple[type[ImagineError], ...] = (
    *BODY,
    UnknownName,
    UnusableModel,
    Busy,
    ShuttingDown,
    Stalled,
    Cancelled,
    GenerationFailed,
    OutOfMemory,
)

REPLIES: Json = {
    "Limits": schemas.LIMITS,
    "Phase": schemas.PHASE_LINE,
    "Progress": schemas.PROGRESS_LINE,
    "Intermediate": schemas.INTERMEDIATE_LINE,
    "Final": schemas.FINAL,
    "Line": schemas.LINE,
    "Standing": schemas.STANDING,
    "GaveUp": schemas.GAVE_UP,
    "Job": schemas.JOB,
    "Jobs": schemas.JOBS,
    "Cancelled": schemas.CANCELLED,
    "Models": schemas.MODELS,
    "Model": schemas.MODEL,
    "Samplers": schemas.SAMPLERS,
    "Enhancers": schemas.ENHANCERS,
    "Enhanced": schemas.ENHANCED,
    "EnhancedPart": schemas.ENHANCED_PART,
    "EnhancedLine": schemas.ENHANCED_LINE,
    "UpscaleRequest": picture_schemas.UPSCALE_REQUEST,
    "Enlarging": picture_schemas.ENLARGING_LINE,
    "Enlarged": picture_schemas.ENLARGED,
    "EnlargedLine": picture_schemas.ENLARGED_LINE,
    "Upscalers": picture_schemas.UPSCALERS,
    "PreprocessRequest": picture_schemas.PREPROCESS_REQUEST,
    "Hint": picture_schemas.HINT,
    "Preprocessors": picture_schemas.PREPROCESSORS,
    "Health": schemas.HEALTH,
    "Version": schemas.VERSION,
    "StopRequest": schemas.STOP_REQUEST,
    "Stopped": schemas.STOPPED,
    "Processes": schemas.PROCESSES,
}


def native_schemas(limits: Limits) -> Json:
    """The schemas that the operations refer to, by name."""
    return {
        "GenerateRequest": schemas.generate_request(limits),
        "EnhanceRequest": schemas.enhance_request(limits),
        **REPLIES,
    }


def operation(  # noqa: PLR0913 - what an Operation Object has
    summary: str,
    reply: str,
    *raises: type[ImagineError],
    body: str | None = None,
    lines: str | None = None,
    headers: Json | None = None,
    query: Json | None = None,
) -> Json:
    """An operation, from the names of its schemas."""
    content = {"application/json": {"schema": reference(reply)}}
    if lines is not None:
        content["application/x-ndjson"] = {"schema": reference(lines)}
    answer: Json = {"description": _answer(lines), "content": content}
    if headers is not None:
        answer["headers"] = headers
    whole: Json = {"summary": summary, "responses": {"200": answer, **failures(*raises)}}
    if query is not None:
        whole["parameters"] = [
            {"name": name, "in": "query", "schema": schema} for name, schema in query.items()
        ]
    if body is not None:
        taken = {"application/json": {"schema": reference(body)}}
        whole["requestBody"] = {"required": True, "content": taken}
    return whole


def _answer(lines: str | None) -> str:
    if lines is None:
        return "The answer."
    return (
        "One object; or, where a stream is asked for, one object a line, the last of which is the "
        "reply or an error."
    )


JOB_ID = {"X-Job-Id": {"description": "Its id.", "required": True, "schema": schemas.ID}}

OPERATIONS: dict[str, Json] = {
    "/generate": operation(
        "Make pictures",
        "Final",
        *GENERATING,
        body="GenerateRequest",
        lines="Line",
        headers=JOB_ID,
    ),
    "/jobs": operation("All requests in progress, and the results that are kept", "Jobs"),
    "/jobs/{id}": operation("How a request stands, or what it made", "Job", UnknownName),
    "/jobs/{id}/cancel": operation("Cancel a request", "Cancelled", UnknownName),
    "/enhance": operation(
        "Make a prompt better",
        "Enhanced",
        *BODY,
        *ENHANCING,
        body="EnhanceRequest",
        lines="EnhancedLine",
    ),
    "/enhancers": operation("The enhancers, the default first", "Enhancers"),
    "/upscale": operation(
        "Enlarge a picture",
        "Enlarged",
        *ENLARGING,
        body="UpscaleRequest",
        lines="EnlargedLine",
        headers=JOB_ID,
    ),
    "/upscalers": operation("The upscalers: those that need no file, then the files", "Upscalers"),
    "/preprocess": operation(
        "Make the hint of a ControlNet of a picture",
        "Hint",
        *BODY,
        UnknownName,
        body="PreprocessRequest",
    ),
    "/preprocessors": operation("What makes hints of pictures", "Preprocessors"),
    "/models": operation(
        "The models, and what one request may ask for; or the files of another kind",
        "Models",
        RequestError,
        query={"kind": schemas.KIND},
    ),
    "/models/{name}": operation(
        "One model, or one file of another kind, with its hash",
        "Model",
        UnknownName,
        RequestError,
        query={"kind": schemas.KIND},
    ),
    "/samplers": operation("The samplers", "Samplers"),
    "/health": operation("How the server is", "Health"),
    "/version": operation("Who answers, and what one request may ask for", "Version"),
    "/ps": operation("What is loaded, what runs and what waits", "Processes"),
    "/stop": operation("Let go of a model", "Stopped", *BODY, UnknownName, body="StopRequest"),
}
