"""The routes of the native API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from imagine_core.engine.validation import SMALLEST_SIDE
from imagine_core.errors import FieldError, RequestError, UnknownName, UnusableModel
from imagine_core.version import version
from imagine_core.web.app import AsciiJSONResponse
from imagine_core.web.security import open_to_files, without_key
from imagine_plugins.dialects import strict
from imagine_plugins.dialects.enhancing import Enhancing
from imagine_plugins.dialects.jobs import Jobs
from imagine_plugins.dialects.reply import Reply
from imagine_plugins.dialects.wire import read_order
from imagine_plugins.loaders.hashing import file_hash

if TYPE_CHECKING:
    from imagine_core.engine import Engine
    from imagine_core.interfaces import ModelInfo
    from imagine_core.service import Service

READERS = 2
"""Bodies that are read at once: each may hold a picture of a quarter of a gigabyte."""


def native_routes(service: Service) -> Iterator[Route]:
    """The routes over `service`."""
    engine = service.engine
    enhancing = Enhancing(service)
    jobs = Jobs(keep=service.settings.keep_results)
    yield open_to_files(_post("/generate", _generate(service, enhancing, jobs)))
    yield _get("/jobs", lambda: {"jobs": jobs.list()})  # ids that open others' pictures
    yield open_to_files(Route("/jobs/{id}", _job(jobs), methods=["GET"]))
    yield open_to_files(_post("/jobs/{id}/cancel", _cancel(jobs)))
    yield open_to_files(_post("/enhance", enhancing.answer))
    yield open_to_files(_get("/enhancers", enhancing.known))
    yield open_to_files(_get("/models", lambda: models(engine)))
    yield open_to_files(_get("/samplers", lambda: samplers(service)))
    yield without_key(open_to_files(_get("/health", lambda: health(engine))))
    yield open_to_files(_get("/version", lambda: about(engine)))
    yield _get("/ps", lambda: processes(engine))  # shows what others do
    yield Route("/models/{name}", _model_endpoint(engine), methods=["GET"])
    yield _post("/stop", _stop(engine))


def models(engine: Engine) -> dict[str, Any]:
    """`GET /models`: names to ask for, the one asked for by default, and all that is known."""
    found = engine.catalogue.models()
    try:
        default = engine.catalogue.default().name
    except (UnknownName, UnusableModel):
        default = None
    return {
        "models": [info.name for info in found if info.problem is None],
        "default": default,
        "details": [_model(info) for info in found],
        "limits": limits(engine),
    }


def samplers(service: Service) -> dict[str, Any]:
    """`GET /samplers`: names to ask for, and what is known of each."""
    details = service.plugins.sampler_details()
    return {"samplers": [each["name"] for each in details], "details": details}


def health(engine: Engine) -> dict[str, Any]:
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


def about(engine: Engine) -> dict[str, Any]:
    """`GET /version`: who answers, and what may be asked of it."""
    return {"version": version(), "limits": limits(engine)}


def limits(engine: Engine) -> dict[str, int]:
    """What one request may ask for; sides of pictures are multiples of `multiple`."""
    return {**asdict(engine.settings.limits), "smallest": SMALLEST_SIDE, "multiple": 8}


def processes(engine: Engine) -> dict[str, Any]:
    """`GET /ps`: what is loaded, what runs and what waits."""
    status = engine.status()
    jobs = [asdict(job) for job in status.jobs]
    return {
        "device": status.device,
        "dtype": status.dtype,
        "models": [asdict(model) for model in status.loaded],
        "queue": sum(job["phase"] == "queued" for job in jobs),
        "jobs": jobs,
    }


def model(engine: Engine, name: str) -> dict[str, Any]:
    """`GET /models/NAME`: all that is known of one model, its file's sha256 among it."""
    info = engine.catalogue.find(name)
    return {**_model(info), "hash": file_hash(info.path)}


def stop(engine: Engine, body: bytes) -> dict[str, Any]:
    """`POST /stop`: a model that leaves the memory, now or after the pictures in progress."""
    given = strict.parse_object(body)
    if "model" not in given:
        raise RequestError([FieldError("model", "is required: say which one to let go of")])
    try:
        name = strict.name(given["model"])
    except strict.Refused as error:
        raise RequestError([FieldError("model", str(error))]) from error
    return {"model": name, "status": engine.unload(name)}


def _model(info: ModelInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "family": info.family,
        "format": info.loader,
        "size": info.size,
        "problem": info.problem,
        "parameters": info.parameters,
        "dtype": info.dtype,
        "clip_layers": info.clip_layers,
        "recommended_size": list(info.recommended_size),
        "metadata": dict(info.metadata),
    }


def _generate(
    service: Service, enhancing: Enhancing, jobs: Jobs
) -> Callable[[Request], Coroutine[Any, Any, Reply]]:
    readers = asyncio.Semaphore(READERS)

    async def generate(request: Request) -> Reply:
        """`POST /generate`: a picture, or a stream of lines that ends with one."""
        body = await request.body()
        check = service.engine.check
        async with readers:
            order = await asyncio.to_thread(read_order, body, check)
        return Reply(service, order, enhancing, jobs)

    return generate


def _job(jobs: Jobs) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def endpoint(request: Request) -> Response:
        """`GET /jobs/ID`: how a request stands; at its end, what `/generate` would have said."""
        job = jobs.get(request.path_params["id"])
        if job.body is not None:
            return Response(job.body, media_type="application/json")
        return AsciiJSONResponse({"id": job.id, **job.status})

    return endpoint


def _cancel(jobs: Jobs) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def endpoint(request: Request) -> Response:
        """`POST /jobs/ID/cancel`: a request that leaves at its next step, if it has not ended."""
        job = jobs.get(request.path_params["id"])
        job.cancel()
        return AsciiJSONResponse(
            {"id": job.id, "status": job.status["status"] if job.ended else "cancelled"}
        )

    return endpoint


def _model_endpoint(engine: Engine) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> AsciiJSONResponse:
        found = await asyncio.to_thread(model, engine, request.path_params["name"])
        return AsciiJSONResponse(found)

    return endpoint


def _stop(engine: Engine) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> AsciiJSONResponse:
        return AsciiJSONResponse(await asyncio.to_thread(stop, engine, await request.body()))

    return endpoint


def _post(path: str, endpoint: Callable[[Request], Any]) -> Route:
    return Route(path, endpoint, methods=["POST"])


def _get(path: str, answer: Callable[[], dict[str, Any]]) -> Route:
    """A route that answers with an object; `answer` may read files, so it has a thread."""

    async def endpoint(_: Request) -> AsciiJSONResponse:
        return AsciiJSONResponse(await asyncio.to_thread(answer))

    return Route(path, endpoint, methods=["GET"], name=path.strip("/"))
