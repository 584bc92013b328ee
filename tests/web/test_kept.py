"""Pictures at addresses that need no key, for as long as they are kept."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from imagine_core import GenerationRequest, hookimpl
from imagine_core.engine import Engine
from imagine_core.pictures.formats import MEDIA_TYPES
from imagine_core.pictures.metadata import infotext_of
from imagine_core.service import Service
from imagine_core.settings import ServerSettings
from imagine_core.testing import FakeClock, FakePlugin, build_test_engine
from imagine_core.web.app import build_app, explain
from imagine_core.web.dialect import LINES, Event, Finished, Order, Record, speaking
from imagine_core.web.generation import generation
from imagine_core.web.jobs import Jobs
from imagine_core.web.kept import kept_pictures

KEY = {"Authorization": "Bearer secret"}
BODY: dict[str, Any] = {
    "request": {"prompt": "red", "width": 64, "height": 64, "steps": 2, "images": 2, "seed": 1},
    "keeps": True,
}


class Keeping:
    """A dialect whose clients say how their orders are made."""

    framing = LINES

    def read(self, body: bytes, request: Request) -> Order:
        """The order."""
        given = json.loads(body)
        return Order(**{**given, "request": GenerationRequest(**given["request"])})

    def say(self, event: Event, record: Record) -> bytes | None:
        """The id."""
        return json.dumps({"id": record.id}).encode() if isinstance(event, Finished) else None

    def fail(self, error: Exception, *, begun: bool = False) -> tuple[int, bytes]:
        """The message."""
        status, body = explain(error)
        return status, json.dumps(body["error"]["message"]).encode()


class Brings:
    @hookimpl
    def register_routes(self, register: Callable[[BaseRoute], None], service: Service) -> None:
        dialect = Keeping()
        route = Route("/kept/draw", generation(service, dialect), methods=["POST"])
        register(speaking(route, dialect))
        register(speaking(kept_pictures(service, "/kept"), dialect, prefix="/kept"))


Ask = Callable[..., httpx.Response]


@contextmanager
def asking(app: Starlette) -> Iterator[Ask]:
    """Asks the application, all within one event loop, as a server has it."""
    with asyncio.Runner() as runner:
        transport = httpx.ASGITransport(app=app)
        client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

        def ask(method: str, path: str, **options: Any) -> httpx.Response:
            return runner.run(client.request(method, path, **options))

        yield ask
        runner.run(client.aclose())


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = build_test_engine(tmp_path / "models", FakePlugin(), extra=[("kept", Brings())])
    yield engine
    engine.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ask(engine: Engine, clock: FakeClock) -> Iterator[Ask]:
    settings = ServerSettings(host="127.0.0.1", api_key="secret")
    service = Service(engine=engine, plugins=engine.plugins, settings=settings)
    service.jobs = Jobs(keep=600, clock=clock)
    with asking(build_app(service)) as ask:
        yield ask


def drawn(ask: Ask, **changes: Any) -> str:
    """The id of an order that was drawn."""
    answer = ask("POST", "/kept/draw", headers=KEY, json={**BODY, **changes}, timeout=60)
    assert answer.status_code == 200
    return str(answer.json()["id"])


@pytest.mark.parametrize("to", MEDIA_TYPES)
def test_a_picture_is_there_in_every_format_without_the_key(ask: Ask, to: str) -> None:
    name = drawn(ask)
    seen = []
    for index in (0, 1):
        answer = ask("GET", f"/kept/{name}/{index}.{to}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == MEDIA_TYPES[to]
        image = Image.open(io.BytesIO(answer.content))
        assert (image.size, Image.MIME[image.format or ""]) == ((64, 64), MEDIA_TYPES[to])
        seen.append(infotext_of(answer.content) or "")
    assert ["Seed: 1," in seen[0], "Seed: 2," in seen[1]] == [True, True]


def test_the_quality_is_that_of_the_order(ask: Ask) -> None:
    sizes = [
        len(ask("GET", f"/kept/{drawn(ask, details=details)}/0.jpeg").content)
        for details in ({}, {"output_compression": None}, {"output_compression": 10})
    ]
    assert sizes[0] == sizes[1] > sizes[2]


NO_PICTURES = (
    *("2.png", "-1.png", "00.png", "0", "0.", "0.gif", "0.PNG", "0.png.png", "x.png", "²" + ".png"),
    *("%30.png%00", "0.png/1", "..%2f0.png"),
)


@pytest.mark.parametrize("path", NO_PICTURES)
def test_what_is_no_picture_of_the_order_is_unknown(ask: Ask, path: str) -> None:
    answer = ask("GET", f"/kept/{drawn(ask)}/{path}")
    assert answer.status_code in ({401} if "/" in path or "%2f" in path else {404})
    assert isinstance(answer.json(), str)  # as the dialect says it


@pytest.mark.parametrize("changes", [{"keeps": False, "finishes": True}, {"keeps": False}])
def test_an_order_that_did_not_ask_for_an_address_has_none(
    ask: Ask, changes: dict[str, Any]
) -> None:
    name = drawn(ask, **changes)
    assert ask("GET", f"/kept/{name}/0.png").status_code == 404
    assert ask("GET", f"/kept/{name}/0.png", headers=KEY).status_code == 404


def test_a_guessed_order_is_unknown(ask: Ask) -> None:
    name = drawn(ask)
    for wrong in (name[:-1], name.upper() + "0", "0" * 24, "x"):
        assert ask("GET", f"/kept/{wrong}/0.png").status_code == 404


def test_a_picture_is_gone_after_its_time(ask: Ask, clock: FakeClock) -> None:
    name = drawn(ask)
    clock.advance(599)
    assert ask("GET", f"/kept/{name}/0.png").status_code == 200
    clock.advance(1)
    assert ask("GET", f"/kept/{name}/0.png").status_code == 404


def test_an_address_gives_nothing_but_the_picture(ask: Ask) -> None:
    name = drawn(ask)
    assert ask("GET", f"/jobs/{name}").status_code == 401
    assert ask("POST", f"/kept/{name}/0.png").status_code in (401, 405)
    assert ask("HEAD", f"/kept/{name}/0.png").content == b""


def test_the_document_says_that_it_needs_no_key(ask: Ask) -> None:
    paths = ask("GET", "/openapi.json", headers=KEY).json()["paths"]
    operation = paths["/kept/{id}/{name}"]["get"]
    assert "security" not in operation
    assert set(operation["responses"]["200"]["content"]) == set(MEDIA_TYPES.values())
