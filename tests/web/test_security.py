"""Access: hosts, origins, the key, and bodies within bounds."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from calls import app_of, ask, error_of
from imagine_core.engine import Engine
from imagine_core.errors import SettingsError
from imagine_core.settings import ServerSettings
from imagine_core.web.access import Access, host_pattern, machine_names, origin_pattern
from imagine_core.web.security import OriginGuard, open_to_files

EVIL = "http://evil.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST"}


def access(**settings: Any) -> Access:
    names = ["localhost", "*.local", "*.internal", "workstation"]
    return Access(ServerSettings(**settings), machine=names)


# --------------------------------------------------------------------------------------- hosts


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:5000",
        "localhost.",
        "127.0.0.1:5000",
        "192.168.1.7",
        "[::1]:5000",
        "[fe80::1%25eth0]:5000",
        "workstation:5000",
        "printer.local",
        "host.docker.internal:5000",
        "gateway.containers.internal",
    ],
)
def test_this_machine_answers_to_its_own_names_and_to_addresses(host: str) -> None:
    assert access().host(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:5000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example#localhost",
        "localhost:5000@evil.example",
        "evil-local",
        "internal",
        "host.docker.internal.evil.example",
        "",
        "[::1",
        "a b",
        "127.0.0.1, evil.example",
    ],
)
def test_a_strangers_host_name_is_refused(host: str) -> None:
    assert not access().host(host)


def test_hosts_adds_names_and_wildcards() -> None:
    allowed = access(hosts=("example.com", "*.lan"))
    assert allowed.host("Example.com:443")
    assert allowed.host("box.lan")
    assert not allowed.host("www.example.com")
    assert access(hosts=("*",)).host("anything.example")


def test_the_machine_knows_its_own_name() -> None:
    names = list(machine_names())
    assert {"localhost", "*.local", "*.internal"} <= set(names)
    assert all(host_pattern(name) for name in names)


# ------------------------------------------------------------------------------------- origins


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "http://localhost:8000",
        "https://127.0.0.1:3000",
        "http://0.0.0.0:5000",
        "http://[::1]:8080",
        "HTTP://LocalHost:1",
    ],
)
def test_pages_of_this_machine_may_call_from_any_port(origin: str) -> None:
    assert access().origin(origin, "localhost:5000")


@pytest.mark.parametrize(
    "origin",
    [
        EVIL,
        "null",
        "file://",
        "",
        "http://localhost.evil.example",
        "http://evil.example#localhost",
        "http://localhost@evil.example",
        "ftp://localhost",
        "chrome-extension://localhost",
        "localhost",
        "http://",
        "http://localhost:80:80",
    ],
)
def test_other_pages_may_not_call(origin: str) -> None:
    assert not access().origin(origin, "localhost:5000")


def test_a_page_may_call_the_server_that_it_came_from() -> None:
    assert access().origin("http://192.168.1.7:5000", "192.168.1.7:5000")
    assert access().origin("http://workstation:5000", "Workstation:5000")
    assert not access().origin("http://192.168.1.7:5000", "192.168.1.8:5000")
    assert not access().origin("http://192.168.1.7:8000", "192.168.1.7:5000")


def test_origins_adds_pages_ports_and_wildcards() -> None:
    allowed = access(origins=("https://example.com", "http://*.lan:*", "app://imagine"))
    assert allowed.origin("https://example.com", "")
    assert allowed.origin("http://box.lan:81", "")
    assert allowed.origin("app://imagine", "")
    assert not allowed.origin("http://example.com", "")
    assert not allowed.origin("https://example.com:444", "")
    assert not allowed.origin("http://evil.example/.lan:81", "")
    assert access(origins=("*",)).origin("null", "")


@pytest.mark.parametrize("origin", ["example.com", "https://a b", "", "https://", "//x"])
def test_an_origin_that_cannot_be_one_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(SettingsError, match="must look like"):
        origin_pattern(origin)


@pytest.mark.parametrize("host", ["https://example.com", "example.com:80", "", "a/b"])
def test_a_host_that_cannot_be_one_is_refused_at_the_start(host: str) -> None:
    with pytest.raises(SettingsError, match="without port"):
        host_pattern(host)


# ----------------------------------------------------------------------------- the application


def test_a_strangers_page_gets_403_and_cannot_read_it(engine: Engine) -> None:
    for method, path in (("GET", "/health"), ("POST", "/generate"), ("GET", "/nowhere")):
        answer = ask(app_of(engine), method, path, headers={"Origin": EVIL})
        assert answer.status_code == 403
        assert error_of(answer)["type"] == "forbidden"
        assert "--origins" in error_of(answer)["message"]
        assert "access-control-allow-origin" not in answer.headers


def test_a_form_post_of_a_strangers_page_makes_nothing(engine: Engine) -> None:
    form = {"Origin": EVIL, "Content-Type": "text/plain"}
    answer = ask(app_of(engine), "POST", "/generate", headers=form, content='{"prompt": "x"}')
    assert answer.status_code == 403
    assert engine.status().jobs == []


def test_a_rebound_name_gets_403_although_host_and_origin_agree(engine: Engine) -> None:
    headers = {"Host": "evil.example", "Origin": EVIL}
    answer = ask(app_of(engine), "GET", "/models", headers=headers)
    assert answer.status_code == 403
    assert "--hosts" in error_of(answer)["message"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Host", ("localhost", "evil.example")),
        ("Host", ("localhost", "localhost")),
        ("Origin", ("http://localhost", EVIL)),
        ("Authorization", ("Bearer wrong", "Bearer secret")),
        ("Authorization", ("Bearer secret", "Bearer secret")),
        ("Api-Key", ("wrong", "secret")),
        ("Api-Key", ("secret", "secret")),
        ("Content-Type", ("application/json", "text/plain")),
        ("Access-Control-Request-Method", ("GET", "POST")),
    ],
)
def test_a_header_that_there_is_one_of_is_not_believed_twice(
    engine: Engine, name: str, values: tuple[str, str]
) -> None:
    app = app_of(engine, ServerSettings(host="127.0.0.1", api_key="secret"))
    headers = [(name, value) for value in values]
    for path in ("/models", "/health", "/nowhere"):
        answer = ask(app, "GET", path, headers=headers)
        assert answer.status_code == 400
        assert error_of(answer)["type"] == "malformed_request"
        assert f"more than one {name} header" in error_of(answer)["message"]
        assert "secret" not in answer.text


def test_a_header_that_is_a_list_may_be_there_twice(engine: Engine) -> None:
    headers = [("Accept", "text/html"), ("Accept", "application/json")]
    assert ask(app_of(engine), "GET", "/models", headers=headers).status_code == 200


def test_an_allowed_page_can_read_answers_and_errors(engine: Engine) -> None:
    origin = {"Origin": "http://localhost:8000"}
    for path, status in (("/models", 200), ("/nowhere", 404)):
        answer = ask(app_of(engine), "GET", path, headers=origin)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "http://localhost:8000"
        assert answer.headers["access-control-expose-headers"] == "Retry-After, X-Job-Id"
        assert answer.headers["vary"] == "Origin"


def test_answers_to_nobodys_page_differ_by_origin_too(engine: Engine) -> None:
    answer = ask(app_of(engine), "GET", "/models")
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in answer.headers


def test_a_page_opened_from_a_file_may_do_what_it_needs(engine: Engine) -> None:
    app = app_of(engine)
    for path in ("/health", "/version", "/models", "/samplers"):
        answer = ask(app, "GET", path, headers={"Origin": "null"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "null"
    answer = ask(app, "POST", "/generate", headers={"Origin": "null"}, content="{}")
    assert answer.status_code == 422


def test_a_page_opened_from_a_file_sees_nothing_of_others(engine: Engine) -> None:
    for origin in ("null", "file://"):
        answer = ask(app_of(engine), "GET", "/ps", headers={"Origin": origin})
        assert answer.status_code == 403


def test_preflights_are_answered_for_those_who_may_call(engine: Engine) -> None:
    app = app_of(engine)
    asked = {**PREFLIGHT, "Access-Control-Request-Headers": "authorization, content-type"}
    for origin in ("http://localhost:8000", "null"):
        answer = ask(app, "OPTIONS", "/generate", headers={**asked, "Origin": origin})
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == origin
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert answer.headers["access-control-allow-headers"] == "authorization, content-type"
    for path, origin in (("/generate", EVIL), ("/ps", "null")):
        answer = ask(app, "OPTIONS", path, headers={**PREFLIGHT, "Origin": origin})
        assert answer.status_code == 403


def test_preflights_may_reach_into_a_private_network(engine: Engine) -> None:
    asked = {
        **PREFLIGHT,
        "Origin": "http://localhost",
        "Access-Control-Request-Private-Network": "true",
    }
    answer = ask(app_of(engine), "OPTIONS", "/generate", headers=asked)
    assert answer.headers["access-control-allow-private-network"] == "true"


# ----------------------------------------------------------------------------------------- key


def test_every_route_but_health_wants_the_key(engine: Engine) -> None:
    app = app_of(engine, ServerSettings(api_key="se cret-ä"))
    for method, path in (("POST", "/generate"), ("GET", "/models"), ("GET", "/nowhere")):
        answer = ask(app, method, path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "se cret" not in answer.text
    assert ask(app, "GET", "/health").status_code == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer se cret-ä", 200),
        ("bearer  se cret-ä ", 200),
        ("Bearer se cret", 401),
        ("Bearer ", 401),
        ("Bearer", 401),
        ("Basic se cret-ä", 401),
        ("se cret-ä", 401),
        ("", 401),
    ],
)
def test_the_key_must_be_the_key(engine: Engine, header: str, status: int) -> None:
    app = app_of(engine, ServerSettings(api_key="se cret-ä"))
    headers = [(b"Authorization", header.encode())]
    assert ask(app, "GET", "/models", headers=headers).status_code == status


def basic(text: str) -> tuple[str, str]:
    return "Authorization", "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "header",
    [
        basic("user:se:cret-ä"),
        basic(":se:cret-ä"),
        basic("se:cret-ä"),  # programs that take "user:password" for the whole
        ("authorization", basic("anyone:se:cret-ä")[1].replace("Basic ", "basic  ") + " "),
        ("api-key", "se:cret-ä"),
        ("API-Key", " se:cret-ä "),
    ],
)
def test_the_key_may_be_the_password_of_http_basic_or_an_api_key(
    engine: Engine, header: tuple[str, str]
) -> None:
    app = app_of(engine, ServerSettings(api_key="se:cret-ä"))
    headers = [(name.encode(), value.encode()) for name, value in (header,)]
    assert ask(app, "GET", "/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        basic("se:cret-ä:user"),
        basic("user:cret-ä"),
        basic("user:"),
        basic(":"),
        basic(""),
        ("Authorization", "Basic"),
        ("Authorization", "Basic "),
        ("Authorization", "Basic ====="),
        ("Authorization", "Basic user:se:cret-ä"),
        ("Authorization", basic("user:se:cret-ä")[1][:-1]),
        ("Authorization", basic("user:se:cret-ä")[1].replace("Basic", "Bearer")),
        ("Authorization", "api-key se:cret-ä"),
        ("api-key", ""),
        ("api-key", "Bearer se:cret-ä"),
        ("x-api-key", "se:cret-ä"),
    ],
)
def test_what_is_not_the_key_opens_nothing(engine: Engine, header: tuple[str, str]) -> None:
    app = app_of(engine, ServerSettings(api_key="se:cret-ä"))
    headers = [(name.encode(), value.encode()) for name, value in (header,)]
    answer = ask(app, "GET", "/models", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"  # a browser would ask for a password


def test_the_wrong_one_of_two_places_does_not_matter(engine: Engine) -> None:
    app = app_of(engine, ServerSettings(api_key="secret"))
    headers = {"Authorization": "Bearer wrong", "api-key": "secret"}
    assert ask(app, "GET", "/models", headers=headers).status_code == 200


@pytest.mark.parametrize("header", [basic("a:b"), ("Authorization", "Basic ?"), ("api-key", "x")])
def test_without_a_key_any_will_do(engine: Engine, header: tuple[str, str]) -> None:
    assert ask(app_of(engine), "GET", "/models", headers=dict([header])).status_code == 200


def test_a_page_may_read_that_it_lacks_the_key_and_preflights_need_none(engine: Engine) -> None:
    app = app_of(engine, ServerSettings(api_key="secret"))
    answer = ask(app, "GET", "/models", headers={"Origin": "null"})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == "null"
    answer = ask(app, "OPTIONS", "/generate", headers={**PREFLIGHT, "Origin": "null"})
    assert answer.status_code == 204


def test_settings_do_not_show_the_key() -> None:
    assert "secret" not in repr(ServerSettings(api_key="secret"))


async def length(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


# ------------------------------------------------------------------------- what is not plain HTTP


def test_websockets_of_strangers_are_closed_before_they_open() -> None:
    reached: list[str] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["type"])

    async def call(origin: bytes) -> None:
        headers = [(b"host", b"localhost"), (b"origin", origin)]
        scope = {"type": "websocket", "path": "/", "headers": headers}

        async def receive() -> Any:
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(message["type"])

        guard = OriginGuard(
            app,
            access=access(),
            routes=[],
            refuse=lambda error, _fail: PlainTextResponse(str(error)),
        )
        await guard(scope, receive, send)

    asyncio.run(call(EVIL.encode()))
    assert (reached, sent) == ([], ["websocket.close"])
    asyncio.run(call(b"http://localhost"))
    assert reached == ["websocket"]


def test_a_mark_belongs_to_the_route_and_method_that_bear_it() -> None:
    marked = open_to_files(Route("/a", length, methods=["POST"]))
    plain = Route("/a", length, methods=["DELETE"])
    guard = OriginGuard(
        PlainTextResponse("in"),
        access=access(),
        routes=[plain, marked],
        refuse=lambda error, fail: PlainTextResponse("out"),
    )

    async def call(method: str) -> str:
        transport = httpx.ASGITransport(app=guard)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.request(method, "/a", headers={"Origin": "null"})).text

    assert asyncio.run(call("POST")) == "in"
    assert asyncio.run(call("DELETE")) == "out"
