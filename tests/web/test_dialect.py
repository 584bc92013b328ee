"""A second dialect beside the native one: the shared parts, and each one's own."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from calls import SMALL, app_of, ask, lines_of
from imagine_core import (
    Enhancement,
    Enhancer,
    EnhanceTask,
    GenerationRequest,
    PhaseEvent,
    StepEvent,
    hookimpl,
)
from imagine_core.engine import Engine
from imagine_core.errors import Cancelled, FieldError
from imagine_core.pictures import images
from imagine_core.service import Service
from imagine_core.settings import ServerSettings
from imagine_core.testing import FakePlugin, build_test_engine
from imagine_core.web.app import explain
from imagine_core.web.dialect import EVENTS, Event, Failure, Finished, Order, Record, speaking
from imagine_core.web.generation import generation
from imagine_core.web.openapi import described
from slow_server import Server, wait_until

REQUEST: dict[str, Any] = {"prompt": "red", "width": 64, "height": 64, "steps": 4, "seed": 1}


class Plain:
    """Takes the core's own field names in JSON; says its errors as plain strings."""

    framing = EVENTS

    def read(self, body: bytes, request: Request) -> Order:
        """The order."""
        given = json.loads(body)
        enhance = given.pop("enhance", None)
        wrong = [FieldError("steps", "is odd")] if given.get("steps") == "odd" else []
        if wrong:
            del given["steps"]
        streams = request.query_params.get("stream") == "1"
        return Order(
            request=GenerationRequest(**given),
            errors=tuple(wrong),
            streams=streams,
            enhance=enhance,
        )

    def say(self, event: Event, record: Record) -> bytes | None:
        """Lines of SSE, or the seed alone."""
        match event:
            case Finished() if record.order.streams:
                return f"data: done {event.seeds[0]}\n\n".encode()
            case Finished():
                return json.dumps({"seed": event.seeds[0]}).encode()
            case StepEvent():
                return f"data: {event.step}\n\n".encode()
            case PhaseEvent():
                return f"data: {event.phase}\n\n".encode()
        return None

    def fail(self, error: Exception, *, begun: bool = False) -> Failure:
        """A string."""
        status, body = explain(error)
        words = body["error"]["message"]
        return status, f"data: {words}\n\n".encode() if begun else json.dumps(words).encode()


class Brings:
    """The plugin of the dialect, and an enhancer that notes what it is asked."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    @hookimpl
    def register_routes(self, register: Callable[[BaseRoute], None], service: Service) -> None:
        plain = Plain()
        route = Route("/plain/draw", generation(service, plain), methods=["POST"])
        register(speaking(route, plain, prefix="/plain/"))

    @hookimpl
    def register_enhancers(self, register: Callable[[Enhancer], None]) -> None:
        seeds = self.seeds

        class Noting(Enhancer):
            name, label, priority = "noting", "Noting", -5

            async def enhance(self, task: EnhanceTask) -> AsyncIterator[str | Enhancement]:
                seeds.append(task.seed)
                yield Enhancement(prompt=f"{task.prompt} house")

        register(Noting())


@pytest.fixture
def brings() -> Brings:
    return Brings()


@pytest.fixture
def engine(tmp_path: Path, brings: Brings) -> Iterator[Engine]:
    engine = build_test_engine(tmp_path / "models", FakePlugin(), extra=[("plain", brings)])
    yield engine
    engine.close()


def test_another_dialect_draws_the_same_picture(engine: Engine) -> None:
    app = app_of(engine)
    assert ask(app, "POST", "/plain/draw", json=REQUEST).json() == {"seed": 1}
    assert ask(app, "POST", "/generate", json=SMALL).json()["seed"] == "1"


def test_a_stream_is_framed_as_the_dialect_says(engine: Engine) -> None:
    response = ask(app_of(engine), "POST", "/plain/draw?stream=1", json=REQUEST)
    assert response.headers["content-type"] == "text/event-stream"
    said = [part for part in response.text.split("\n\n") if part.startswith("data: ")]
    assert said[0] == "data: queued"
    assert said[-5:-1] == ["data: 1", "data: 2", "data: 3", "data: decoding"] or "data: 4" in said
    assert said[-1] == "data: done 1"


def test_what_cannot_be_read_and_what_cannot_be_served_are_told_together(engine: Engine) -> None:
    body = {**REQUEST, "steps": "odd", "width": 7}
    response = ask(app_of(engine), "POST", "/plain/draw", json=body)
    assert response.status_code == 422
    assert response.json().startswith("width: must be a multiple of 8")
    assert response.json().endswith("steps: is odd")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/plain/draw", {}, 401),  # the guard of keys
        ("POST", "/plain/draw", {"Origin": "http://evil.example"}, 403),
        ("POST", "/plain/other", {"Authorization": "Bearer key"}, 404),
        ("GET", "/plain/draw", {"Authorization": "Bearer key"}, 405),
    ],
)
def test_guards_and_missing_paths_speak_the_dialect(
    engine: Engine, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    app = app_of(engine, ServerSettings(host="127.0.0.1", api_key="key"))
    response = ask(app, method, path, headers=headers)
    assert response.status_code == status
    assert isinstance(response.json(), str)
    native = ask(app, method, path.replace("/plain/draw", "/generate"), headers=headers)
    if path == "/plain/draw":
        assert native.json()["error"]["message"]


def test_the_document_does_not_give_a_dialect_the_errors_of_another(engine: Engine) -> None:
    paths = ask(app_of(engine), "GET", "/openapi.json").json()["paths"]
    assert "content" not in paths["/plain/draw"]["post"]["responses"]["400"]
    assert "content" in paths["/generate"]["post"]["responses"]["400"]


def test_paths_of_no_dialect_have_the_usual_errors(engine: Engine) -> None:
    assert ask(app_of(engine), "GET", "/nowhere").json()["error"]["type"] == "not_found"


def test_one_seed_decides_the_prompt_and_the_picture(engine: Engine, brings: Brings) -> None:
    app = app_of(engine)
    body = {**REQUEST, "seed": None, "enhance": "noting"}
    seed = ask(app, "POST", "/plain/draw", json=body).json()["seed"]
    assert brings.seeds == [seed]
    body = {**SMALL, "enhance": "noting"}
    del body["seed"]
    native = ask(app, "POST", "/generate", json=body).json()
    assert [str(each) for each in brings.seeds[1:]] == [native["seed"]]
    assert native["prompt"] == "red house"


def test_jobs_lists_the_orders_of_every_dialect(tmp_path: Path, brings: Brings) -> None:
    with Server(tmp_path / "models", extra=[("plain", brings)]).running() as server:
        body = {**REQUEST, "steps": 500}
        with httpx.stream("POST", server.url + "/plain/draw?stream=1", json=body) as stream:
            name = stream.headers["x-job-id"]
            wait_until(lambda: server.forwards)
            (listed,) = httpx.get(server.url + "/jobs").json()["jobs"]
            assert listed["id"] == name
            assert httpx.get(f"{server.url}/jobs/{name}").json()["id"] == name
            cancelled = httpx.post(f"{server.url}/jobs/{name}/cancel").json()
            assert cancelled == {"id": name, "status": "cancelled"}
            text = "".join(stream.iter_text())
        assert text.endswith("data: the generation was cancelled\n\n")


# -- what a dialect may say besides ----------------------------------------------------------------

ERROR = {"type": "string", "description": "Words."}


class Talks(Plain):
    """Answers a cancelled order, keeps previews, and adds headers to its errors."""

    def __init__(self) -> None:
        self.previews: list[tuple[int, bool]] = []

    def say(self, event: Event, record: Record) -> bytes | None:
        """As `Plain`, and the last preview of what was cancelled."""
        if isinstance(event, StepEvent) and event.preview is not None:
            self.previews.append((event.image, record.preview is event.preview))
        if isinstance(event, Cancelled):
            assert record.preview is not None
            said = f"stopped at {record.preview.size}"
            return f"data: {said}\n\n".encode() if record.order.streams else said.encode()
        return super().say(event, record)

    def fail(self, error: Exception, *, begun: bool = False) -> Failure:
        """A string, and a header."""
        status, body, *_ = super().fail(error, begun=begun)
        return status, body, {"X-Should-Retry": "false"}


class BringsTalks:
    def __init__(self) -> None:
        self.dialect = Talks()

    @hookimpl
    def register_routes(self, register: Callable[[BaseRoute], None], service: Service) -> None:
        route = Route("/talks/draw", generation(service, self.dialect), methods=["POST"])
        described(route, {"summary": "Draw", "responses": {"200": {"description": "Drawn."}}})
        register(speaking(route, self.dialect, prefix="/talks/", error=ERROR))


@pytest.mark.parametrize("streams", [False, True])
def test_a_cancelled_order_may_have_an_answer_with_its_last_preview(
    tmp_path: Path,
    streams: bool,  # noqa: FBT001
) -> None:
    body = {**REQUEST, "steps": 500, "preview_every": 1}
    path = "/talks/draw" + ("?stream=1" if streams else "")
    with (
        Server(tmp_path / "models", extra=[("talks", BringsTalks())]).running() as server,
        ThreadPoolExecutor(1) as client,
    ):
        answer = client.submit(httpx.post, server.url + path, json=body, timeout=60)
        wait_until(lambda: server.forwards > 2)
        (job,) = httpx.get(server.url + "/jobs").json()["jobs"]
        httpx.post(f"{server.url}/jobs/{job['id']}/cancel")
        assert answer.result().status_code == 200
        said = "data: stopped at (8, 8)\n\n" if streams else "stopped at (8, 8)"
        assert answer.result().text.endswith(said)
        assert server.forwards < 500


def test_a_record_has_the_latest_preview_of_its_first_picture(tmp_path: Path) -> None:
    brings = BringsTalks()
    engine = build_test_engine(tmp_path / "models", FakePlugin(), extra=[("talks", brings)])
    body = {**REQUEST, "images": 2, "preview_every": 1}
    ask(app_of(engine), "POST", "/talks/draw?stream=1", json=body)
    engine.close()
    assert sorted(set(brings.dialect.previews)) == [(0, True), (1, False)]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/talks/draw", {**REQUEST, "width": 7}, 422),
        ("POST", "/talks/draw", None, 401),
        ("GET", "/talks/draw", None, 401),
        ("GET", "/talks/other", None, 401),
    ],
)
def test_an_error_may_have_headers_wherever_it_comes_from(
    tmp_path: Path, method: str, path: str, body: object, status: int
) -> None:
    engine = build_test_engine(tmp_path / "models", FakePlugin(), extra=[("t", BringsTalks())])
    app = app_of(engine, ServerSettings(host="127.0.0.1", api_key="key"))
    headers = {} if body is None else {"Authorization": "Bearer key"}
    answer = ask(app, method, path, json=body, headers=headers)
    engine.close()
    assert answer.status_code == status
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)


def test_the_document_has_the_errors_of_a_dialect_that_says_how_they_look(tmp_path: Path) -> None:
    engine = build_test_engine(tmp_path / "models", FakePlugin(), extra=[("t", BringsTalks())])
    paths = ask(app_of(engine), "GET", "/openapi.json").json()["paths"]
    engine.close()
    responses = paths["/talks/draw"]["post"]["responses"]
    assert {"400", "403", "413", "500", "503"} <= set(responses)
    for status, response in responses.items():
        content = None if status == "200" else {"application/json": {"schema": ERROR}}
        assert response.get("content") == content
    assert "Retry-After" in responses["503"]["headers"]


# -- streams are never silent ----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/generate", "/plain/draw?stream=1"])
def test_a_stream_that_has_nothing_to_say_sends_what_readers_skip(
    tmp_path: Path, brings: Brings, path: str
) -> None:
    server, loads = held(tmp_path, brings, heartbeat=0.05)
    # With previews alone, the native stream says nothing while the model loads.
    body, sign = ({**SMALL, "stream": 3}, "\n") if path == "/generate" else (REQUEST, ":\n\n")
    with server.running():
        with httpx.stream("POST", server.url + path, json=body, timeout=60) as stream:
            said = ""
            for piece in stream.iter_text():
                said += piece
                if sign in said.replace("\n\ndata", "data"):
                    loads.set()
        if path == "/generate":
            assert said.startswith("\n")
            assert [line["status"] for line in lines_of(said)] == ["intermediate", "final"]
        else:
            assert said.endswith("data: done 1\n\n")


def test_a_stream_is_not_silent_while_pictures_of_others_are_decoded(
    tmp_path: Path, brings: Brings, monkeypatch: pytest.MonkeyPatch
) -> None:
    decodes, decode = threading.Event(), images._decode

    def slow(data: bytes) -> Image.Image:
        decodes.wait(30)
        return decode(data)

    monkeypatch.setattr(images, "_decode", slow)
    server, loads = held(tmp_path, brings, heartbeat=0.05)
    loads.set()
    picture = BytesIO()
    Image.new("RGB", (64, 64)).save(picture, "PNG")
    body = {**SMALL, "stream": 1, "img": base64.b64encode(picture.getvalue()).decode()}
    with server.running(), ThreadPoolExecutor(3) as clients:
        post = partial(httpx.post, server.url + "/generate", json=body, timeout=60)
        others = [clients.submit(post) for _ in range(3)]
        with httpx.stream("POST", server.url + "/generate", json=body, timeout=60) as stream:
            assert stream.status_code == 200  # a heartbeat came, with nothing decoded yet
            text_alone = httpx.post(server.url + "/generate", json=SMALL, timeout=60)
            assert text_alone.json()["status"] == "final"  # it has no picture to wait for
            decodes.set()
            assert lines_of("".join(stream.iter_text()))[-1]["status"] == "final"
        assert [other.result().status_code for other in others] == [200] * 3


def test_a_stream_that_is_refused_at_once_has_its_status(engine: Engine) -> None:
    body = {**SMALL, "stream": 1, "sampler": "eulr"}
    assert ask(app_of(engine), "POST", "/generate", json=body).status_code == 404


def test_heartbeats_can_be_left_out(tmp_path: Path, brings: Brings) -> None:
    server, loads = held(tmp_path, brings, heartbeat=0)
    loads.set()
    with server.running():
        body = {**SMALL, "stream": 3}
        text = httpx.post(server.url + "/generate", json=body, timeout=60).text
    assert "\n\n" not in text
    assert not text.startswith("\n")


def test_an_error_after_a_heartbeat_is_the_last_line(tmp_path: Path, brings: Brings) -> None:
    server, loads = held(tmp_path, brings, heartbeat=0.05)

    def fail(rows: int) -> None:
        raise RuntimeError("broken")

    server.fake.loader.before = fail
    body = {**SMALL, "stream": 1}
    with (
        server.running(),
        httpx.stream("POST", server.url + "/generate", json=body, timeout=60) as stream,
    ):
        assert stream.status_code == 200  # the head came with a heartbeat
        loads.set()
        text = "".join(stream.iter_text())
    assert lines_of(text)[-1]["error"]["type"] == "generation_failed"


def held(folder: Path, brings: Brings, *, heartbeat: float) -> tuple[Server, threading.Event]:
    """A server whose model loads when the event is set."""
    settings = ServerSettings(host="127.0.0.1", heartbeat=heartbeat)
    server = Server(folder / "models", extra=[("plain", brings)], server=settings)
    loads = threading.Event()
    server.fake.loader.before_load = lambda: loads.wait(30)
    return server, loads
