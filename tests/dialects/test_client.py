"""The client: a remote engine, with an engine's events and errors."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from calls import app_of, live
from gates import Gate
from imagine_core import GenerationRequest, GenerationResult, PhaseEvent, StepEvent
from imagine_core.engine import Engine
from imagine_core.errors import (
    Busy,
    GenerationFailed,
    ImagineError,
    OutOfMemory,
    RequestError,
    ServerFailed,
    SettingsError,
    ShuttingDown,
    Unauthorized,
)
from imagine_core.settings import ServerSettings
from imagine_core.testing import FakePlugin, collect
from imagine_plugins.dialects.native.client import NativeClient
from imagine_plugins.server.addresses import server_url

SMALL = GenerationRequest(prompt="red", width=64, height=64, steps=4, seed=2**64 - 1)


@contextmanager
def serving(engine: Engine, settings: ServerSettings | None = None) -> Iterator[str]:
    """The address of a live server over `engine`."""
    stop = partial(engine.close, grace=0)
    with live(app_of(engine, settings), on_stop=stop) as url:
        yield url


async def events_of(client: NativeClient, request: GenerationRequest = SMALL) -> list[Any]:
    return [event async for event in client.generate(request)]


def answering(response: Callable[[], Response]) -> Starlette:
    """A server that gives one answer to everything."""

    async def endpoint(_: Request) -> Response:
        return response()

    return Starlette(routes=[Route("/{path:path}", endpoint, methods=["GET", "POST"])])


def failure(app: Starlette) -> ImagineError:
    """How the client fails on `app`."""
    with live(app) as url, pytest.raises(ImagineError) as caught:
        asyncio.run(events_of(NativeClient(url)))
    return caught.value


# -------------------------------------------------------------------------------- against our own


def phases_of(events: list[Any]) -> list[str]:
    """Each phase once: how often the queue tells its place and its wait is a matter of speed."""
    return list(dict.fromkeys(event.phase for event in events if isinstance(event, PhaseEvent)))


def steps_of(events: list[Any]) -> list[tuple[int, int, int, int, bool]]:
    """The steps by picture: which of several pictures goes first is a matter of speed."""
    return sorted(
        (event.image, event.step, event.steps, event.seed, event.preview is not None)
        for event in events
        if isinstance(event, StepEvent)
    )


def test_the_events_are_those_of_an_engine(engine: Engine) -> None:
    request = replace(SMALL, preview_every=2, images=2)
    with serving(engine) as url:
        asyncio.run(events_of(NativeClient(url)))  # so that nothing is loaded below
        here = asyncio.run(collect(engine, request))
        there = asyncio.run(events_of(NativeClient(url), request))
    assert phases_of(there) == phases_of(here)
    assert steps_of(there) == steps_of(here)
    ours, theirs = here[-1], there[-1]
    assert isinstance(ours, GenerationResult)
    assert isinstance(theirs, GenerationResult)
    assert theirs.request == ours.request
    assert theirs.model_hash == ours.model_hash
    assert [made.seed for made in theirs.images] == [2**64 - 1, 0]
    for mine, other in zip(ours.images, theirs.images, strict=True):
        assert other.image.tobytes() == mine.image.tobytes()


def test_what_the_server_refuses_is_refused_under_the_names_of_the_core(engine: Engine) -> None:
    wrong = replace(SMALL, clip_skip=0, guidance_scale=-1.0)
    with serving(engine) as url, pytest.raises(RequestError) as caught:
        asyncio.run(events_of(NativeClient(url), wrong))
    assert [error.field for error in caught.value.fields] == ["guidance_scale", "clip_skip"]


def test_an_unknown_name_is_said_in_the_servers_words(engine: Engine) -> None:
    with serving(engine) as url, pytest.raises(ServerFailed) as caught:
        asyncio.run(events_of(NativeClient(url), replace(SMALL, model="tiney")))
    assert caught.value.message == "unknown model 'tiney'; did you mean 'tiny'?"
    assert not caught.value.lost


def test_the_other_routes_give_their_objects(engine: Engine) -> None:
    async def all_of_them(client: NativeClient) -> None:
        assert "tiny" in (await client.models())["models"]
        assert "euler" in (await client.samplers())["samplers"]
        assert (await client.health())["status"] in ("starting", "ready")
        assert "limits" in await client.version()
        assert (await client.ps())["jobs"] == []

    with serving(engine) as url:
        asyncio.run(all_of_them(NativeClient(url)))


def test_the_key_is_sent(engine: Engine) -> None:
    with serving(engine, ServerSettings(host="127.0.0.1", api_key="schlüssel")) as url:
        asyncio.run(NativeClient(url, api_key="schlüssel").models())
        for wrong in (None, "", "key"):
            with pytest.raises(Unauthorized):
                asyncio.run(NativeClient(url, api_key=wrong).models())


def test_closing_the_iterator_frees_the_server(engine: Engine, fake: FakePlugin) -> None:
    fake.loader.before = gate = Gate()
    gate.hold_after(1)

    async def look_and_leave(client: NativeClient) -> None:
        async with aclosing(client.generate(replace(SMALL, steps=500))) as events:
            async for event in events:
                if isinstance(event, StepEvent):
                    return

    with serving(engine) as url:
        asyncio.run(look_and_leave(NativeClient(url)))
        asyncio.run(gate.step_until(lambda: not engine.status().jobs))
    assert gate.begun < 500


def test_a_failure_in_the_middle_of_a_stream_is_raised(engine: Engine, fake: FakePlugin) -> None:
    def before(_: int) -> None:
        if len(fake.loader.models[-1].forwards) == 2:
            raise MemoryError

    fake.loader.before = before
    seen: list[Any] = []

    async def watch(client: NativeClient) -> None:
        async for event in client.generate(SMALL):
            seen.append(event)  # noqa: PERF401 - what came before the failure counts

    with serving(engine) as url, pytest.raises(OutOfMemory, match="ran out of memory"):
        asyncio.run(watch(NativeClient(url)))
    assert isinstance(seen[-1], StepEvent)


# -------------------------------------------------------------------------------- against others


def test_a_server_that_knows_no_progress_is_understood() -> None:
    import base64
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    with live(answering(lambda: JSONResponse({"img": encoded, "seed": "7"}))) as url:
        (result,) = asyncio.run(events_of(NativeClient(url)))
    assert isinstance(result, GenerationResult)
    assert result.request.seed == 7
    assert result.images[0].image.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("status", "stated", "kind", "says"),
    [
        (503, {"type": "busy", "message": "full", "retry_after": 9}, Busy, "full"),
        (503, {"type": "shutting_down", "message": "x"}, ShuttingDown, "shutting down"),
        (401, {"type": "unauthorized", "message": "x"}, Unauthorized, "API key"),
        (507, {"type": "out_of_memory", "message": "too big"}, OutOfMemory, "too big"),
        (500, {"type": "generation_failed", "message": "NaN"}, GenerationFailed, "NaN"),
        (403, {"type": "forbidden", "message": "no"}, ServerFailed, "no"),
        (422, {"type": "invalid_request", "message": "odd", "fields": []}, ServerFailed, "odd"),
        (418, {"type": "teapot", "message": "short"}, ServerFailed, "short"),
        (500, {}, ServerFailed, "no reason"),
    ],
)
def test_an_error_is_what_the_server_says_it_is(
    status: int, stated: dict[str, Any], kind: type[ImagineError], says: str
) -> None:
    error = failure(answering(lambda: JSONResponse({"error": stated}, status)))
    assert type(error) is kind
    assert says in error.message
    if isinstance(error, Busy) and kind is Busy:
        assert error.retry_after == 9


@pytest.mark.parametrize(
    "response",
    [
        lambda: PlainTextResponse("<html>bad gateway", 502),
        lambda: PlainTextResponse("nothing", 404),
        lambda: JSONResponse([1], 500),
        lambda: JSONResponse({"error": "text"}, 500),
    ],
)
def test_what_is_no_imagine_server_is_asked_whether_it_is_one(
    response: Callable[[], Response],
) -> None:
    error = failure(answering(response))
    assert isinstance(error, ServerFailed)
    assert "is it an Imagine server?" in error.message
    assert not error.lost


@pytest.mark.parametrize(
    "text",
    [
        "<html>welcome",
        "[]",
        '{"status": "final"}',
        '{"status": "final", "img": "AAAA", "seed": "1"}',
        '{"status": "final", "img": 5, "seed": "1"}',
        '{"status": "intermediate", "img": "AAAA", "seed": "x"}',
        '{"status": "progress"}',
        '{"status": "queued", "position": []}',
        "[" * 100_000,
    ],
)
def test_nonsense_is_no_crash(text: str) -> None:
    error = failure(answering(lambda: PlainTextResponse(text)))
    assert isinstance(error, ServerFailed)
    assert "does not speak" in error.message


def test_an_answer_that_ends_too_early_was_lost() -> None:
    error = failure(answering(lambda: PlainTextResponse('{"status": "denoising"}\n')))
    assert isinstance(error, ServerFailed)
    assert error.lost


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_that_goes_away_in_the_middle_was_lost() -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b'{"status": "queued", "position": 0}\n{"status": "de'
        raise ConnectionError

    error = failure(answering(lambda: StreamingResponse(half())))
    assert isinstance(error, ServerFailed)
    assert error.lost
    assert "went away before it was done" in error.message


def test_where_no_server_is_one_line_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ServerFailed) as caught:
        asyncio.run(events_of(NativeClient(f"127.0.0.1:{port}")))
    assert caught.value.lost
    assert f"no server answers at http://127.0.0.1:{port}" in caught.value.message
    assert "\n" not in caught.value.message


def test_lines_may_be_cut_anywhere() -> None:
    lines = b'{"status": "queued", "position": 3}\n\n{"status": "encoding"}\n'

    async def crumbs() -> AsyncIterator[bytes]:
        for place in range(len(lines)):
            yield lines[place : place + 1]

    seen: list[Any] = []

    async def watch(url: str) -> None:
        async for event in NativeClient(url).generate(SMALL):
            seen.append(event)  # noqa: PERF401

    with (
        live(answering(lambda: StreamingResponse(crumbs()))) as url,
        pytest.raises(ServerFailed),
    ):
        asyncio.run(watch(url))
    assert seen == [PhaseEvent(phase="queued", position=3), PhaseEvent(phase="encoding")]


def test_a_proxy_for_the_world_is_none_for_this_machine(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving(engine) as url:
        assert asyncio.run(NativeClient(url).health())


def test_a_server_that_does_not_answer_a_question_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServerFailed):
            asyncio.run(NativeClient(address, answer_seconds=0.2).health())


# -------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("localhost", "http://localhost:5000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("0.0.0.0:5000", "http://127.0.0.1:5000"),
        ("0.0.0.0", "http://127.0.0.1:5000"),  # noqa: S104
        ("[::]:5000", "http://[::1]:5000"),
        ("::1", "http://[::1]:5000"),
        ("[::1]:81", "http://[::1]:81"),
        ("http://0.0.0.0:5000/", "http://127.0.0.1:5000"),
        ("https://example.com", "https://example.com"),
        ("http://example.com:81/imagine/", "http://example.com:81/imagine"),
        ("HTTP://Example.com", "http://example.com"),
        (" box.lan:5000 ", "http://box.lan:5000"),
    ],
)
def test_an_address_may_be_a_host_a_host_with_a_port_or_a_url(address: str, url: str) -> None:
    assert server_url(address) == url


@pytest.mark.parametrize(
    "address",
    ["", ":5000", "host:port", "host:99999", "ftp://host", "http://", "a b:5000", "http://[::1"],
)
def test_what_is_no_address_is_refused_in_words(address: str) -> None:
    with pytest.raises(SettingsError, match="must look like"):
        NativeClient(address)


def test_the_client_is_light_to_import(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, imagine_plugins.dialects.native.client as c; c.NativeClient('localhost');"
        "print(json.dumps([m for m in ('torch', 'httpx', 'starlette', 'PIL.Image') "
        "if m in sys.modules]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", "import json;" + code], capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout) == []


def test_two_generations_at_once_do_not_meet(engine: Engine) -> None:
    async def both(client: NativeClient) -> list[list[Any]]:
        requests = [replace(SMALL, seed=seed) for seed in (3, 4)]
        return await asyncio.gather(*(events_of(client, request) for request in requests))

    with serving(engine) as url:
        first, second = asyncio.run(both(NativeClient(url)))
    assert (first[-1].request.seed, second[-1].request.seed) == (3, 4)
    assert threading.active_count() < 50
