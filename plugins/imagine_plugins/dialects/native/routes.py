"""The routes of the native API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from imagine_core import strict_json
from imagine_core.errors import FieldError, RequestError, UnknownName, UnusableModel
from imagine_core.fields import WIRE_NAMES
from imagine_core.kinds import SIDE_STEP, SMALLEST_SIDE
from imagine_core.models.folders import KINDS
from imagine_core.models.hashing import file_hash
from imagine_core.version import version
from imagine_core.web.app import AsciiJSONResponse
from imagine_core.web.dialect import speaking
from imagine_core.web.generation import generation
from imagine_core.web.security import open_to_files, without_key
from imagine_plugins.dialects.native.dialect import Native, explained
from imagine_plugins.dialects.native.enhance import enhance_endpoint, enhancers
from imagine_plugins.dialects.native.lines import final_line, standing_line
from imagine_plugins.dialects.native.preprocess import preprocess_endpoint, preprocessors
from imagine_plugins.dialects.native.upscale import upscale_endpoint, upscalers

if TYPE_CHECKING:
    from imagine_core.executor import Executor, JobStatus
    from imagine_core.interfaces import ModelInfo
    from imagine_core.service import Service
    from imagine_core.web.dialect import Record

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


def native_routes(service: Service) -> Iterator[Route]:
    """The routes over `service`."""
    engine = service.engine
    native = Native(keeps=service.jobs.keeps)
    generate = Route("/generate", generation(service, native), methods=["POST"])
    yield open_to_files(speaking(generate, native))
    yield _get("/jobs", lambda: jobs(service))  # ids open others' pictures
    yield open_to_files(Route("/jobs/{id}", _job(service), methods=["GET"]))
    yield open_to_files(_post("/jobs/{id}/cancel", _cancel(service)))
    yield open_to_files(_post("/enhance", enhance_endpoint(service)))
    yield open_to_files(_get("/enhancers", lambda: enhancers(service.enhancing)))
    yield open_to_files(_post("/upscale", upscale_endpoint(service)))
    yield open_to_files(_get("/upscalers", lambda: upscalers(service)))
    yield open_to_files(_post("/preprocess", preprocess_endpoint(service)))
    yield open_to_files(_get("/preprocessors", lambda: preprocessors(service)))
    yield open_to_files(Route("/models", _models(engine), methods=["GET"]))
    yield open_to_files(_get("/samplers", lambda: samplers(service)))
    yield without_key(open_to_files(_get("/health", lambda: health(engine))))
    yield open_to_files(_get("/version", lambda: about(engine)))
    yield _get("/ps", lambda: processes(engine))  # shows others' jobs
    yield Route("/models/{name}", _model_endpoint(engine), methods=["GET"])
    yield _post("/stop", _stop(engine))


def jobs(service: Service) -> dict[str, Any]:
    """`GET /jobs`: the state of all orders, ended ones last."""
    statuses = _statuses(service)
    listed = []
    for record in service.jobs:
        expires_in = service.jobs.expires_in(record)
        kept = {} if expires_in is None else {"expires_in": expires_in}
        standing = standing_line(record, statuses.get(record.id))
        listed.append({"id": record.id, **standing, **kept})
    return {"jobs": listed}


def job(service: Service, record: Record) -> dict[str, Any]:
    """`GET /jobs/ID`: the state of an order; at its end, the reply of `/generate`."""
    if record.finished is not None:
        return {"id": record.id, **final_line(record.finished, record)}
    standing = {"id": record.id, **standing_line(record, _statuses(service).get(record.id))}
    return standing if record.error is None else standing | explained(record.error)[1]


def models(engine: Executor, kind: str) -> dict[str, Any]:
    """`GET /models`: the names of a kind, the default one, and details of each."""
    found = engine.catalogue.models(kind)
    default = None
    if kind == "model":
        with suppress(UnknownName, UnusableModel):
            default = engine.catalogue.default().name
    return {
        "models": [info.name for info in found if info.problem is None],
        "default": default,
        "details": [_model(info) for info in found],
        "limits": limits(engine),
    }


def samplers(service: Service) -> dict[str, Any]:
    """`GET /samplers`: the names, and details of each."""
    details = service.plugins.sampler_details()
    return {"samplers": [each["name"] for each in details], "details": details}


def health(engine: Executor) -> dict[str, Any]:
    """`GET /health`: "starting", "ready", "stopping", or "failed" or "stalled" and why."""
    if engine.stopping:
        return {"status": "stopping", "ready": False}
    status = engine.status()
    if status.stalled is not None:
        since = status.stalled.since.isoformat(timespec="seconds")
        message = status.stalled.message
        return {"status": "stalled", "ready": False, "message": message, "since": since}
    word = "failed" if status.failure else "ready" if status.ready else "starting"
    known = {"device": status.device, "message": status.failure}
    more = {name: value for name, value in known.items() if value is not None}
    return {"status": word, "ready": status.ready, **more}


def about(engine: Executor) -> dict[str, Any]:
    """`GET /version`: the server, and its limits."""
    return {"version": version(), "limits": limits(engine)}


def limits(engine: Executor) -> dict[str, int]:
    """The bounds of one request; sides are multiples of `multiple`."""
    return {**asdict(engine.settings.limits), "smallest": SMALLEST_SIDE, "multiple": SIDE_STEP}


def processes(engine: Executor) -> dict[str, Any]:
    """`GET /ps`: loaded models, and running and waiting orders."""
    status = engine.status()
    running = [asdict(job) for job in status.jobs]
    return {
        "device": status.device,
        "dtype": status.dtype,
        "models": [asdict(model) for model in status.loaded],
        "queue": sum(job["phase"] == "queued" for job in running),
        "jobs": running,
    }


def model(engine: Executor, name: str, kind: str | None) -> dict[str, Any]:
    """`GET /models/NAME`: the details of one file, with its sha256."""
    info = engine.catalogue.find(name, kind)
    return {**_model(info), "hash": file_hash(info.path)}


def stop(engine: Executor, body: bytes) -> dict[str, Any]:
    """`POST /stop`: unload a model, now or after the pictures in progress."""
    given = strict_json.parse_object(body)
    if "model" not in given:
        raise RequestError([FieldError("model", "is required: say which one to let go of")])
    try:
        name = strict_json.name(given["model"])
    except strict_json.Refused as error:
        raise RequestError([FieldError("model", str(error))]) from error
    return {"model": name, "status": engine.unload(name)}


def _statuses(service: Service) -> dict[str, JobStatus]:
    """What the engine says of each order that it has, by id."""
    return {status.id: status for status in service.engine.status().jobs}


def _model(info: ModelInfo) -> dict[str, Any]:
    own = {WIRE_NAMES[name]: value for name, value in info.own.items()}
    return {
        "name": info.name,
        "family": info.family,
        "format": info.loader,
        "size": info.size,
        "problem": info.problem,
        "parameters": info.parameters,
        "dtype": info.dtype,
        "clip_layers": info.clip_layers,
        "recommended_size": list(info.recommended_size) if info.kind == "model" else None,
        "defaults": own if info.kind == "model" else {},
        "guidance": info.guidance,
        "metadata": dict(info.metadata),
        "kind": info.kind,
        "fits": list(info.fits),
        "takes": list(info.takes),
        "vae": info.vae,
        "details": dict(info.details),
    }


def _job(service: Service) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        record = service.jobs.get(request.path_params["id"])
        return AsciiJSONResponse(await asyncio.to_thread(job, service, record))

    return endpoint


def _cancel(service: Service) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        """`POST /jobs/ID/cancel`: cancel an order at its next step, unless it ended."""
        record = service.jobs.get(request.path_params["id"])
        record.cancel()
        return AsciiJSONResponse({"id": record.id, "status": record.outcome or "cancelled"})

    return endpoint


def _models(engine: Executor) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        kind = _kind(request) or "model"
        return AsciiJSONResponse(await asyncio.to_thread(models, engine, kind))

    return endpoint


def _model_endpoint(engine: Executor) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        name, kind = request.path_params["name"], _kind(request)
        return AsciiJSONResponse(await asyncio.to_thread(model, engine, name, kind))

    return endpoint


def _kind(request: Request) -> str | None:
    """The kind of files that a query asks for, if it names one."""
    kind = request.query_params.get("kind")
    if kind is not None and kind not in KINDS:
        raise RequestError([FieldError("kind", f"must be one of {', '.join(KINDS)}")])
    return kind


def _stop(engine: Executor) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return AsciiJSONResponse(await asyncio.to_thread(stop, engine, await request.body()))

    return endpoint


def _post(path: str, endpoint: Callable[[Request], Coroutine[Any, Any, Any]]) -> Route:
    return Route(path, endpoint, methods=["POST"])


def _get(path: str, answer: Callable[[], dict[str, Any]]) -> Route:
    """A route with a JSON object; `answer` may read files, so it runs on a thread."""

    async def endpoint(_: Request) -> AsciiJSONResponse:
        return AsciiJSONResponse(await asyncio.to_thread(answer))

    return Route(path, endpoint, methods=["GET"], name=path.strip("/"))
