"""Clients that hold connections: slowly, for ever, by the thousand, or pipelined."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from calls import SMALL, LoopClock, app_of, live_with_clock
from faults.raw import HEALTH, exchange, read_all, read_reply, read_some
from imagine_core.engine import Engine
from imagine_core.testing import build_test_engine
from imagine_core.web.bodies import BODY_SECONDS
from imagine_plugins.server import connections, serving

Address = tuple[str, int]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = build_test_engine(tmp_path / "models")
    yield engine
    engine.close(grace=0)


def serve_with_clock(stack: ExitStack, engine: Engine) -> tuple[Address, LoopClock]:
    """The address and the clock of a server that lives as long as `stack`."""
    stop = partial(engine.close, grace=0)
    url, clock = stack.enter_context(live_with_clock(app_of(engine), on_stop=stop))
    host, port = url.removeprefix("http://").split(":")
    return (host, int(port)), clock


def serve(stack: ExitStack, engine: Engine) -> Address:
    """As `serve_with_clock`, without its clock."""
    return serve_with_clock(stack, engine)[0]


def get(address: Address, path: str = "/health") -> httpx.Response:
    return httpx.get(f"http://{address[0]}:{address[1]}{path}", timeout=60)


def posted(body: dict[str, Any], *, close: bool = False) -> bytes:
    data = json.dumps(body).encode()
    more = b"Connection: close\r\n" if close else b""
    head = b"POST /generate HTTP/1.1\r\nHost: localhost\r\n" + more
    return head + b"Content-Length: %d\r\n\r\n" % len(data) + data


# ------------------------------------------------------------------------------- a slow sender


def test_a_body_that_drips_in_holds_nobody_up_and_is_cut(engine: Engine) -> None:
    with ExitStack() as stack:
        address, clock = serve_with_clock(stack, engine)
        slow = stack.enter_context(socket.create_connection(address))
        slow.sendall(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n")
        url = f"http://{address[0]}:{address[1]}/generate"
        for _ in range(5):
            slow.sendall(b" ")
            assert httpx.post(url, json=SMALL, timeout=60).status_code == 200
            clock.advance(BODY_SECONDS / 6)
        assert not select.select([slow], [], [], 0)[0]  # it has not been answered yet
        clock.advance(BODY_SECONDS / 6)
        answer = read_reply(slow)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"did not arrive within 300 s" in answer
        slow.sendall(b" ")  # as if nothing had been said
        assert get(address).status_code == 200
        clock.advance(serving.HEADER_SECONDS + 1)
        assert read_all(slow) == b""


def test_a_head_without_end_is_refused_however_it_comes(engine: Engine) -> None:
    with ExitStack() as stack:
        address = serve(stack, engine)
        for endless in (b"X: " + b"x" * 200_000, b"X-%d: 1\r\n" * 20_000):
            connection = stack.enter_context(socket.create_connection(address))
            with suppress(ConnectionError):  # the server closed before the end
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + endless)
            assert read_all(connection)[:13] in (b"HTTP/1.1 400 ", b"")
        assert get(address).status_code == 200


# ----------------------------------------------------------------------------------- pipelines


def test_pipelined_pictures_come_in_order_and_each_is_its_own(engine: Engine) -> None:
    seeds = [3, 1, 4, 1, 5]
    bodies = [posted({**SMALL, "seed": seed}) for seed in seeds[:-1]]
    with ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection(serve(stack, engine)))
        connection.sendall(b"".join(bodies) + posted({**SMALL, "seed": seeds[-1]}, close=True))
        text = read_all(connection)
    replies = [part.partition(b"\r\n\r\n")[2] for part in text.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    found = [json.loads(reply) for reply in replies]
    assert [int(each["seed"]) for each in found] == seeds
    assert found[1]["img"] == found[3]["img"] != found[0]["img"]


def test_a_refusal_in_a_pipeline_does_not_shift_the_others(engine: Engine) -> None:
    bodies = [posted(SMALL), posted({**SMALL, "steps": -1}), posted(SMALL, close=True)]
    with ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection(serve(stack, engine)))
        connection.sendall(b"".join(bodies))
        text = read_all(connection)
    statuses = [part[:3] for part in text.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"422", b"200"]


# --------------------------------------------------------------------------------- many at once


@pytest.fixture
def _many_files() -> Iterator[None]:
    """As many files as a thousand connections take at both of their ends."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this process may have {hard} files open, and the test needs {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_many_files")
def test_a_thousand_idle_connections_keep_nobody_out_and_are_closed_in_time(
    engine: Engine,
) -> None:
    with ExitStack() as stack:
        address, clock = serve_with_clock(stack, engine)
        crowd = [stack.enter_context(socket.create_connection(address)) for _ in range(1000)]
        for each in crowd:
            each.sendall(HEALTH)
        for each in crowd:
            assert read_reply(each).startswith(b"HTTP/1.1 200 OK")
        clock.advance(serving.IDLE_SECONDS - 5)
        assert get(address).status_code == 200
        assert not select.select(crowd[:500], [], [], 0)[0]
        clock.advance(6)
        for each in crowd:
            assert read_all(each) == b""
        assert get(address).status_code == 200


def test_beyond_its_limit_the_longest_unused_connection_makes_room(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 3)
    with ExitStack() as stack:
        address = serve(stack, engine)
        first, second, third = (
            stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(3)
        )
        for each in (first, second, third, first):  # the second one is closed
            assert exchange(each, HEALTH).startswith(b"HTTP/1.1 200 OK")
        assert get(address).status_code == 200
        assert read_all(second) == b""
        for each in (first, third):
            assert exchange(each, HEALTH).startswith(b"HTTP/1.1 200 OK")


def test_connections_that_are_in_use_are_not_closed_for_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 2)
    whole = posted(SMALL).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n", 1)
    with ExitStack() as stack:
        address = serve(stack, engine)
        uploads = [
            stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(2)
        ]
        for each in uploads:
            each.sendall(whole[:-1])
            assert read_some(each).startswith(b"HTTP/1.1 100 ")  # now it is in use
        newcomer = stack.enter_context(socket.create_connection(address))
        refused = read_all(newcomer)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in refused.lower()
        for each in uploads:
            assert exchange(each, whole[-1:]).startswith(b"HTTP/1.1 200 OK")
