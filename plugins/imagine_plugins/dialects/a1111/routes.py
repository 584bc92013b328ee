"""The routes of A1111's API, and their descriptions for the OpenAPI document."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from imagine_core import errors
from imagine_core.control_field import MOST
from imagine_core.rows import rows_schema
from imagine_core.web.answers import Call, answering
from imagine_core.web.dialect import speaking
from imagine_core.web.generation import generation
from imagine_core.web.openapi import described, operation, reference, shape
from imagine_core.web.security import open_to_files
from imagine_plugins.dialects.a1111.answers import (
    MODEL_REST,
    PICTURE,
    SCHEDULER_REST,
    STATE,
    TASK,
    Answers,
)
from imagine_plugins.dialects.a1111.controlnet import (
    SCRIPT,
    VERSION,
    ControlAnswers,
    detect_schema,
)
from imagine_plugins.dialects.a1111.dialect import A1111
from imagine_plugins.dialects.a1111.extras import extras_endpoint, extras_schema

if TYPE_CHECKING:
    from imagine_core.service import Service

Raised = type[errors.ImagineError]
# fmt: off
BODY = (errors.MalformedBody, errors.BodyTooLarge, errors.RequestError)
NAMED = (errors.UnknownName, errors.UnusableModel)
DRAWING = (
    *NAMED, errors.ShuttingDown, errors.Stalled, errors.GenerationFailed, errors.OutOfMemory,
)
ERROR = {"error": str, "detail": str, "body": str, "errors": str}
DRAWN = {"images": [str], "parameters": dict, "info": str, "warnings": [str]}
INFO = {"info": str, "items": dict, "parameters": dict}
PENDING = {"size": int, "tasks": [str]}
PROGRESS = {
    "progress": float, "eta_relative": float, "current_image": (str, None), "textinfo": (str, None),
    "state": {**STATE, "job": str, "job_count": int, "sampling_step": int, "sampling_steps": int},
}
STANDING = {
    "active": bool, "queued": bool, "completed": bool, "progress": (float, None),
    "eta": (float, None), "live_preview": (str, None), "id_live_preview": int,
    "textinfo": (str, None),
}
MODELS = {"title": str, "model_name": str, "filename": str, "hash": (str, None), **MODEL_REST}
LORAS = {"name": str, "alias": str, "path": str, "metadata": dict}
EMBEDDINGS = {"loaded": dict, "skipped": dict}
VAE_FILES = {"model_name": str, "filename": str}
SAMPLERS = {"name": str, "aliases": [str], "options": {}}
SCHEDULERS = {"name": str, "label": str, **SCHEDULER_REST}
UPSCALERS = {
    "name": str, "model_name": (str, None), "model_path": (str, None), "model_url": None,
    "scale": int,
}
ENLARGED = {"html_info": str, "warnings": [str]}
CONTROL_MODELS = {"model_list": [str]}
CONTROL_MODULES = {"module_list": [str], "module_detail": dict}
LISTS = (
    "hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles",
    "artists", "artist-categories", "script-info", "extensions", "latent-upscale-modes",
    "sd-modules",
)
REFRESHED = ("checkpoints", "vae", "loras", "embeddings")
FIXED: dict[str, Any] = {
    **{f"GET /sdapi/v1/{name}": [] for name in LISTS},
    **{f"POST /sdapi/v1/refresh-{name}": None for name in REFRESHED},
    "POST /sdapi/v1/reload-checkpoint": {},
    "GET /sdapi/v1/scripts": {"txt2img": [SCRIPT], "img2img": [SCRIPT]},
    "GET /controlnet/version": {"version": VERSION},
    "GET /controlnet/settings": {"control_net_unit_count": MOST},
    "GET /sdapi/v1/cmd-flags": {},
    "GET /internal/ping": {},
    "GET /queue/status": {"queue_size": 0},
}
"""Routes with the same answer always; a plugin of Krita asks for the queue of Gradio."""

# fmt: on


def always(value: object) -> Callable[[Call], object]:
    """A route whose answer never changes."""

    def answer(_: Call) -> object:
        """The same always."""
        return value

    return answer


def a1111_routes(service: Service) -> Iterator[Route]:
    """The routes over `service`."""
    answers, limits = Answers(service), service.engine.settings.limits
    control = ControlAnswers(service)
    plain, img2img = (A1111(service, answers.options, img2img=each) for each in (False, True))
    schemas = {
        "A1111Error": shape(ERROR),
        "A1111Options": shape({}),
        "A1111Txt2img": plain.schema(),
        "A1111Task": rows_schema(TASK, limits),
        "A1111Picture": rows_schema(PICTURE, limits),
        "A1111Img2img": img2img.schema(),
        "A1111Extras": extras_schema(limits, batch=False),
        "A1111ExtrasBatch": extras_schema(limits, batch=True),
        "A1111Detect": detect_schema(limits),
    }

    def route(
        answer: Any, path: str, form: object, takes: str | None = None, *raises: Raised
    ) -> Route:
        summary, endpoint = answer.__doc__, answer
        if isinstance(answer, A1111):
            summary = "Make pictures."
            endpoint = generation(service, answer, opened=answers.opened)
        elif not inspect.iscoroutinefunction(answer):
            endpoint = answering(service, answer, reads=takes is not None)
        said = operation(
            summary,
            form,
            *((*BODY, *raises) if takes else ()),
            takes=takes,
            query=("skip_current_image",) if form is PROGRESS else (),
            error="A1111Error",
        )
        used = {name: schemas[name] for name in ("A1111Error", takes) if name is not None}
        method, _, path = path.partition(" ")
        made = Route(path, endpoint, methods=[method])
        made = described(made, said, schemas=used)
        error, prefix = reference("A1111Error"), path[: path.rindex("/") + 1]
        return speaking(made, plain, prefix=prefix, error=error)

    # fmt: off
    for_all: tuple[tuple[Any, ...], ...] = (
        (plain, "POST /sdapi/v1/txt2img", DRAWN, "A1111Txt2img", *DRAWING),
        (img2img, "POST /sdapi/v1/img2img", DRAWN, "A1111Img2img", *DRAWING),
        (answers.models, "GET /sdapi/v1/sd-models", [MODELS]),
        (answers.loras, "GET /sdapi/v1/loras", [LORAS]),
        (answers.embeddings, "GET /sdapi/v1/embeddings", EMBEDDINGS),
        (answers.vaes, "GET /sdapi/v1/sd-vae", [VAE_FILES]),
        (answers.samplers, "GET /sdapi/v1/samplers", [SAMPLERS]),
        (answers.schedulers, "GET /sdapi/v1/schedulers", [SCHEDULERS]),
        (answers.upscalers, "GET /sdapi/v1/upscalers", [UPSCALERS]),
        (
            extras_endpoint(service, batch=False), "POST /sdapi/v1/extra-single-image",
            {**ENLARGED, "image": (str, None)}, "A1111Extras", *DRAWING,
        ),
        (
            extras_endpoint(service, batch=True), "POST /sdapi/v1/extra-batch-images",
            {**ENLARGED, "images": [str]}, "A1111ExtrasBatch", *DRAWING,
        ),
        (control.models, "GET /controlnet/model_list", CONTROL_MODELS),
        (control.modules, "GET /controlnet/module_list", CONTROL_MODULES),
        (control.types, "GET /controlnet/control_types", {"control_types": dict}),
        (
            control.detect, "POST /controlnet/detect", {"images": [str], "info": "Success"},
            "A1111Detect",
        ),
        (answers.memory, "GET /sdapi/v1/memory", {"ram": dict, "cuda": dict}),
        (answers.png_info, "POST /sdapi/v1/png-info", INFO, "A1111Picture", errors.InvalidFile),
        *((always(value), path, value) for path, value in FIXED.items()),
    )
    own: tuple[tuple[Any, ...], ...] = (
        (answers.progress, "GET /sdapi/v1/progress", PROGRESS),
        (answers.interrupt, "POST /sdapi/v1/interrupt", {}),
        (answers.skip, "POST /sdapi/v1/skip", None),
        (answers.get_options, "GET /sdapi/v1/options", dict),
        (answers.set_options, "POST /sdapi/v1/options", None, "A1111Options", *NAMED),
        (answers.unload, "POST /sdapi/v1/unload-checkpoint", {}),
        (answers.pending, "GET /internal/pending-tasks", PENDING),
        (answers.task, "POST /internal/progress", STANDING, "A1111Task"),
    )
    # fmt: on
    yield from (open_to_files(route(*columns)) for columns in for_all)
    yield from (route(*columns) for columns in own)  # shows or changes what is the caller's
