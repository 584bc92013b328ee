"""The server under an application: silent, excessive and repeating connections."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from calls import LoopClock, live_with_clock
from faults.raw import exchange, read_all, read_reply
from imagine_plugins.server import serving

HEAD = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass
class Live:
    """A live server, its clock, and the gate before the answer of `/held`."""

    address: tuple[str, int]
    clock: LoopClock
    gate: asyncio.Event

    def open_gate(self) -> None:
        """Let what is held be answered."""
        self.clock.call(self.gate.set)


@pytest.fixture
def server() -> Iterator[Live]:
    gate = asyncio.Event()

    async def say(request: Request) -> PlainTextResponse:
        await asyncio.sleep(float(request.query_params.get("after", "0")))
        return PlainTextResponse(request.path_params["word"])

    async def hold(_: Request) -> PlainTextResponse:
        await gate.wait()
        return PlainTextResponse("held")

    async def read(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await request.body())

    async def begin(request: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"begun"
            await asyncio.sleep(30)

        return StreamingResponse(parts())

    routes = [
        Route("/read", read, methods=["POST"]),
        Route("/begin", begin, methods=["POST"]),
        Route("/held", hold),
        Route("/{word}", say),
    ]
    with live_with_clock(Starlette(routes=routes)) as (url, clock):
        host, port = url.removeprefix("http://").split(":")
        yield Live((host, int(port)), clock, gate)


@pytest.fixture
def address(server: Live) -> tuple[str, int]:
    return server.address


def is_open(connection: socket.socket) -> bool:
    """Whether the server, which has nothing to say, has left a connection as it is."""
    host, port = connection.getpeername()
    # Once this is answered, the server has done what was due.
    assert httpx.get(f"http://{host}:{port}/x", timeout=60).text == "x"
    connection.setblocking(False)  # noqa: FBT003 - socket's own signature
    try:
        return connection.recv(65536) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    finally:
        connection.setblocking(True)  # noqa: FBT003 - socket's own signature


def test_a_connection_that_says_nothing_is_closed(server: Live) -> None:
    with socket.create_connection(server.address) as connection:
        assert is_open(connection)
        server.clock.advance(serving.HEADER_SECONDS - 5)
        assert is_open(connection)
        server.clock.advance(6)
        assert read_all(connection) == b""


@pytest.mark.parametrize("first", [b"", HEAD % b"first"], ids=["fresh", "kept alive"])
def test_a_head_that_trickles_in_for_ever_is_given_up(server: Live, first: bytes) -> None:
    with socket.create_connection(server.address) as connection:
        if first:
            assert b"200 OK" in exchange(connection, first)
            server.clock.advance(serving.HEADER_SECONDS + 1)  # it says nothing, which is no head
        connection.sendall(b"G")
        assert is_open(connection)
        for _ in range(3):
            server.clock.advance(5)
            connection.sendall(b"G")
            assert is_open(connection)
        server.clock.advance(6)
        assert not is_open(connection)


def test_a_request_that_takes_long_is_not_given_up(server: Live) -> None:
    with socket.create_connection(server.address) as connection:
        connection.sendall(HEAD % b"held")
        assert is_open(connection)
        server.clock.advance(3600)
        assert is_open(connection)
        server.open_gate()
        assert read_reply(connection).endswith(b"held")


def test_an_idle_connection_is_kept_for_as_long_as_was_said(server: Live) -> None:
    with socket.create_connection(server.address) as connection:
        for word in (b"once", b"again"):
            assert exchange(connection, HEAD % word).endswith(word)
            server.clock.advance(serving.IDLE_SECONDS - 5)
            assert is_open(connection)
        server.clock.advance(6)
        assert read_all(connection) == b""


def test_a_head_without_end_is_refused(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 100_000)
        assert "too long" in refusal(read_all(connection))


@pytest.mark.parametrize(
    ("junk", "problem"),
    [
        (b"\x16\x03\x01\x02\x00\x01", "illegal request line"),  # TLS
        (b"hello", "illegal request line"),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost", "illegal request line"),
        (b"GET / HTTP/1.1", "Missing mandatory Host: header"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization : Bearer secret", "header line"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost", "Found multiple Host: headers"),
        (b"GET http://localhost/ HTTP/1.1", "Missing mandatory Host: header"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1", "Content-Length"),
        (
            b"POST /read HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz",
            "illegal chunk header",
        ),
    ],
)
def test_what_is_no_http_is_refused_as_every_other_error_is(
    address: tuple[str, int], junk: bytes, problem: str
) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(junk + b"\r\n\r\n")
        said = refusal(read_all(connection))
    assert problem in said
    assert "secret" not in said
    assert "bytearray" not in said


def test_a_body_that_breaks_under_an_answer_ends_the_connection(address: tuple[str, int]) -> None:
    head = b"POST /begin HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(address) as connection:
        connection.settimeout(30)
        connection.sendall(head)
        answer = b""
        while b"begun" not in answer:
            answer += connection.recv(65536)
        connection.sendall(b"zz\r\n")
        answer += read_all(connection)
    assert answer.count(b"HTTP/1.1") == 1


def refusal(answer: bytes) -> str:
    """What the one answer says that is an error in our shape."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"connection: close" in head
    error = json.loads(body)["error"]
    assert error["type"] == "malformed_request"
    return str(error["message"])


def test_requests_that_do_not_wait_for_answers_get_them_in_order(
    address: tuple[str, int],
) -> None:
    words = [b"one?after=0.1", b"two", b"three"]
    with socket.create_connection(address) as connection:
        connection.sendall(b"".join(HEAD % word for word in words))
        connection.settimeout(30)
        text = b""
        while b"three" not in text:
            text += connection.recv(65536)
    assert text.index(b"one") < text.index(b"two") < text.index(b"three")


def test_hundreds_of_idle_connections_keep_nobody_out(address: tuple[str, int]) -> None:
    host, port = address
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(address))
        assert httpx.get(f"http://{host}:{port}/in").text == "in"


def test_no_server_tells_what_it_runs_on(address: tuple[str, int]) -> None:
    host, port = address
    headers: Any = httpx.get(f"http://{host}:{port}/x").headers
    assert "server" not in headers
