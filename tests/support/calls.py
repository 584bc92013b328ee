"""Calls the HTTP application over an engine, in memory or over a socket."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from imagine_core.service import Service
from imagine_core.settings import ServerSettings
from imagine_core.web.app import build_app
from imagine_plugins.server.serving import GracefulServer, build_server, listen, shown_address

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from imagine_core.engine import Engine

SMALL: dict[str, Any] = {"prompt": "red", "width": 64, "height": 64, "steps": 4, "seed": 1}


def app_of(engine: Engine, settings: ServerSettings | None = None) -> Starlette:
    """The application over `engine`."""
    service = Service(
        engine=engine, plugins=engine.plugins, settings=settings or ServerSettings(host="127.0.0.1")
    )
    return build_app(service)


def ask(app: Starlette, method: str, path: str, **options: Any) -> httpx.Response:
    """The answer of `app` to one request, in memory."""

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **options)

    return asyncio.run(call())


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error in a response."""
    error = response.json()["error"]
    assert isinstance(error, dict)
    return error


def fields_of(response: httpx.Response) -> dict[str, str]:
    """The fields in a response's error, and the message of each."""
    assert response.status_code == 422, response.text
    return {each["field"]: each["message"] for each in error_of(response)["fields"]}


def lines_of(text: str) -> list[dict[str, Any]]:
    """The objects of a stream."""
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines() if line]  # blank ones keep it alive


class LoopClock:
    """The clock of a server's event loop, which a test puts forward; it goes on by itself too."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ahead = 0.0
        real = loop.time
        loop.time = lambda: real() + self._ahead  # type: ignore[method-assign]

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass after what the server is doing; what is due by then comes next."""

        def put_forward() -> None:
            self._ahead += seconds

        self.call(put_forward)

    def call(self, work: Callable[[], object]) -> None:
        """Have `work` done on the loop."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(work)
        self._loop.call_soon_threadsafe(done.set)
        assert done.wait(60)


@contextmanager
def live(app: Starlette, *, on_stop: Callable[[], None] = lambda: None) -> Iterator[str]:
    """The URL of a real server for `app`, for the duration of the block."""
    with live_server(app, on_stop=on_stop) as (url, _):
        yield url


@contextmanager
def live_with_clock(
    app: Starlette, *, on_stop: Callable[[], None] = lambda: None
) -> Iterator[tuple[str, LoopClock]]:
    """As `live`, with the clock that the server goes by."""
    clocks: list[LoopClock] = []

    def take_clock() -> None:
        clocks.append(LoopClock(asyncio.get_running_loop()))

    with live_server(app, on_stop=on_stop, on_started=take_clock) as (url, _):
        yield url, clocks[0]


@contextmanager
def live_server(
    app: Starlette,
    *,
    on_stop: Callable[[], None] = lambda: None,
    on_started: Callable[[], None] = lambda: None,
    grace: float = 5.0,
) -> Iterator[tuple[str, GracefulServer]]:
    """As `live`, with the server itself; `on_started` is called on its event loop."""
    started = threading.Event()

    def start() -> None:
        on_started()
        started.set()

    server = build_server(app, grace=grace, on_started=start, on_stop=on_stop)
    sock = listen("127.0.0.1", 0)
    url = shown_address(sock)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        assert started.wait(30)
        yield url, server
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
