"""A server's routes need the key, and clients can open and fetch nothing by name."""

from __future__ import annotations

import hmac
import logging
import socket
from functools import partial
from typing import Any

import pytest
from starlette.routing import BaseRoute, Route

from calls import SMALL, app_of, ask, live
from faults.raw import exchange
from imagine_core.engine import Engine
from imagine_core.settings import ServerSettings
from imagine_plugins import page

KEYED = ServerSettings(host="127.0.0.1", api_key="secret")


def page_paths(engine: Engine) -> set[str]:
    """Where the page and its files are."""
    routes: list[BaseRoute] = []
    page.register_routes(routes.append)
    return {route.path for route in routes if isinstance(route, Route)}


def test_every_route_wants_the_key_but_health_and_the_page(engine: Engine) -> None:
    app = app_of(engine, KEYED)
    free: set[str] = set()
    closed: set[str] = set()
    for route in app.routes:
        assert isinstance(route, Route)
        for method in route.methods or ():
            status = ask(app, method, route.path.replace("{", "").replace("}", "")).status_code
            (closed if status == 401 else free).add(route.path)
    pictures = "/v1/images/{id}/{name}"  # their address is the secret
    assert free == {"/health", pictures} | page_paths(engine)
    assert {"/generate", "/jobs/{id}", "/metrics", "/openapi.json", "/stop"} <= closed
    assert not free & closed


def test_a_key_is_compared_in_constant_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[Any, Any]] = []
    compare = hmac.compare_digest

    def noted(given: Any, key: Any) -> bool:
        compared.append((given, key))
        return compare(given, key)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    app = app_of(engine, KEYED)
    for given in ("secret", "s", ""):
        ask(app, "GET", "/models", headers={"Authorization": f"Bearer {given}"})
    assert compared == [(given, b"secret") for given in (b"secret", b"s", b"")]


def test_who_asks_for_another_protocol_is_answered_in_this_one_without_a_word_in_the_log(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asking = (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with live(app_of(engine), on_stop=partial(engine.close, grace=0)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            assert exchange(connection, asking).startswith(b"HTTP/1.1 200")
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.parametrize(
    "chosen", ["/etc/passwd", "file:///etc/passwd", "http://localhost:1/a.png", "../tiny.fake"]
)
def test_nothing_that_a_client_names_is_opened_or_fetched(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    app = app_of(engine)
    assert ask(app, "POST", "/generate", json=SMALL).status_code == 200
    opened: list[object] = []
    audit = opened.append
    monkeypatch.setattr(socket, "getaddrinfo", lambda *names, **_: audit(names))
    monkeypatch.setattr("builtins.open", lambda path, *_, **__: audit(path))
    for name in ("img", "model", "sampler", "schedule", "enhance"):
        answer = ask(app, "POST", "/generate", json={**SMALL, name: chosen})
        assert answer.status_code in (404, 422), (name, answer.text)
    assert ask(app, "POST", "/stop", json={"model": chosen}).status_code == 404
    assert opened == []
