"""Callers are told apart by address and key, behind a proxy of this machine too."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from imagine_core import hookimpl
from imagine_core.service import Service
from imagine_core.testing import FakePlugin, build_test_app
from imagine_core.web.callers import caller_of
from imagine_plugins.server.serving import build_server, listen
from slow_server import wait_until

Ask = Callable[..., tuple[str, str]]


class Tells:
    """A route that tells whom the server takes its caller for, and its own address."""

    @hookimpl
    def register_routes(self, register: Callable[[BaseRoute], None], service: Service) -> None:
        async def told(request: Request) -> JSONResponse:
            return JSONResponse([caller_of(request), str(request.base_url)])

        register(Route("/told", told))


@contextmanager
def asking(folder: Path, host: str) -> Iterator[Ask]:
    """Asks a server at `host` as a client of this machine; gives caller and address."""
    app = build_test_app(folder, FakePlugin(), extra=[("tells", Tells())])
    started = Event()
    server = build_server(app, grace=1, on_started=started.set, on_stop=lambda: None)
    sock = listen(host, 0)
    port = sock.getsockname()[1]
    thread = Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()

    def ask(*, at: str = "127.0.0.1", **headers: str) -> tuple[str, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        caller, url = httpx.get(f"http://{at}:{port}/told", headers=named).json()
        return caller, url.replace(f":{port}", "")

    try:
        wait_until(started.is_set)
        yield ask
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Ask]]:
    with ExitStack() as stack:
        yield lambda host="127.0.0.1": stack.enter_context(asking(tmp_path / "models", host))


def test_callers_differ_by_key_and_are_called_by_no_key(start: Callable[..., Ask]) -> None:
    ask = start()
    known = [
        ask()[0],
        ask(authorization="Bearer secret")[0],
        ask(authorization="Basic c2VjcmV0")[0],
        ask(api_key="other")[0],
    ]
    assert len(set(known)) == 4
    assert ask(authorization="Bearer secret")[0] == known[1]
    assert all("secret" not in each and len(each) == 64 for each in known)


def test_behind_a_proxy_of_this_machine_the_address_is_the_clients(
    start: Callable[..., Ask],
) -> None:
    ask = start()
    here, one, other = (
        ask(**({"x_forwarded_for": address} if address else {}))[0]
        for address in ("", "192.0.2.1", "192.0.2.2")
    )
    assert len({here, one, other}) == 3
    assert ask(x_forwarded_for="192.0.2.1")[0] == one
    forged = "203.0.113.9, 192.0.2.1"  # what the client wrote stands before what the proxy adds
    assert ask(x_forwarded_for=forged)[0] == one
    assert ask(x_forwarded_for="")[0] == here


def test_behind_a_proxy_that_speaks_tls_addresses_are_https(start: Callable[..., Ask]) -> None:
    ask = start()
    assert ask()[1] == "http://127.0.0.1/"
    assert ask(x_forwarded_proto="https")[1] == "https://127.0.0.1/"
    assert ask(x_forwarded_proto="https", host="draw.localhost")[1] == "https://draw.localhost/"
    assert ask(x_forwarded_proto="javascript")[1] == "http://127.0.0.1/"


def test_what_others_say_of_their_address_is_not_believed(
    start: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "192.0.2.99")  # this machine is another one then
    ask = start()
    forged = ask(x_forwarded_for="192.0.2.1", x_forwarded_proto="https")
    assert forged == ask()
    assert forged[1] == "http://127.0.0.1/"


def test_a_proxy_elsewhere_is_believed_where_the_operator_names_it(
    start: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.0/8")
    ask = start()
    assert ask(x_forwarded_for="192.0.2.1")[0] != ask()[0]


@pytest.mark.parametrize("at", ["127.0.0.1", "[::1]"])
def test_a_server_at_both_kinds_of_address_believes_its_machine_at_either(
    start: Callable[..., Ask], at: str
) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    ask = start("::")
    assert ask(at=at, x_forwarded_for="192.0.2.1")[0] != ask(at=at)[0]
