"""A server that stops: requests in progress end, and their clients are told."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from calls import SMALL, app_of, live_server
from faults.raw import read_all
from imagine_core.engine import Engine
from imagine_core.testing import FakePlugin
from imagine_plugins.server import serving
from slow_server import wait_until


@pytest.mark.parametrize(("begins", "said"), [("yes", b"HTTP/1.1 200 "), ("", b"HTTP/1.1 503 ")])
def test_who_takes_no_answer_is_left_without_a_trace_when_time_is_over(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    begins: str,
    said: bytes,
) -> None:
    caplog.set_level(logging.INFO, logger="imagine")
    monkeypatch.setattr(serving, "LAST_WORDS_SECONDS", 1)
    began = threading.Event()

    async def endless(request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            yield b"{}\n"
            await asyncio.Event().wait()

        began.set()
        if not begins:
            await asyncio.Event().wait()
        return StreamingResponse(lines())

    app = app_of(engine)
    app.router.routes.append(Route("/endless", endless))
    stop = partial(engine.close, grace=0)
    with (
        live_server(app, on_stop=stop, grace=0) as (url, server),
        socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as connection,
    ):
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert began.wait(30)
        server.should_exit = True
        answer = read_all(connection)
    assert answer.startswith(said)
    assert (b"shutting_down" in answer) is not bool(begins)
    assert "had not taken its answer" in caplog.text
    assert "Traceback" not in caplog.text


def test_what_goes_on_without_its_client_is_told_in_the_log_that_its_time_is_over(
    engine: Engine,
    fake: FakePlugin,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="imagine")
    monkeypatch.setattr(serving, "LAST_WORDS_SECONDS", 60)
    stepping = threading.Event()

    def step(_rows: int) -> None:
        """A step that outlasts the grace time."""
        stepping.set()
        wait_until(lambda: engine.stopping)
        time.sleep(0.5)

    fake.loader.before = step
    body = {**SMALL, "progress": True, "on_disconnect": "finish"}
    stop = partial(engine.close, grace=0)
    with (
        live_server(app_of(engine), on_stop=stop, grace=0) as (url, _),
        httpx.stream("POST", url + "/generate", json=body, timeout=60) as answer,
    ):
        next(answer.iter_lines())
        assert stepping.wait(60)
    assert "failed (shutting_down): tiny" in caplog.text
    assert "cancelled" not in caplog.text
