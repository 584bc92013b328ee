"""The application: one status for each error, one shape for all, and its plugins' routes."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import BaseRoute, Route

from calls import SMALL, app_of, ask, error_of, live
from imagine_core import errors, hookimpl
from imagine_core.engine import Engine
from imagine_core.errors import (
    Busy,
    FieldError,
    GenerationFailed,
    ImagineError,
    RequestError,
    Unauthorized,
    UnknownName,
)
from imagine_core.service import Service
from imagine_core.settings import ServerSettings
from imagine_core.testing import build_test_engine
from imagine_core.web.app import STATUS, build_app, error_response, explain


def every_error() -> Iterator[type[ImagineError]]:
    pending = [ImagineError]
    while pending:
        error = pending.pop()
        yield error
        pending += error.__subclasses__()


class RaisingPlugin:
    """Routes that raise."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    @hookimpl
    def register_routes(self, register: Callable[[BaseRoute], None]) -> None:
        async def at_once(_: Request) -> PlainTextResponse:
            raise self.error

        async def halfway(_: Request) -> StreamingResponse:
            async def body() -> Any:
                yield b"the first half"
                raise self.error

            return StreamingResponse(body())

        register(Route("/at-once", at_once))
        register(Route("/halfway", halfway))


@pytest.fixture
def raising(tmp_path: Path) -> Iterator[Callable[[Exception], Engine]]:
    """An engine whose plugins have routes that raise."""
    engines = []

    def build(error: Exception) -> Engine:
        extra = [("raising", RaisingPlugin(error))]
        engines.append(build_test_engine(tmp_path / "models", extra=extra))
        return engines[-1]

    yield build
    for engine in engines:
        engine.close(grace=0)


# --------------------------------------------------------------------------------------- errors


def test_every_error_has_a_status_of_its_own() -> None:
    ours = {error for error in every_error() if error.__module__ == errors.__name__}
    assert set(STATUS) == ours


def test_every_error_has_its_own_name_on_the_wire() -> None:
    names = [error.type for error in STATUS]
    assert len(set(names)) == len(names)


def test_an_error_of_a_plugin_has_the_status_of_what_it_is_a_kind_of() -> None:
    class Crowded(Busy):
        """A stranger's error."""

    status, body = explain(Crowded("too many"))
    assert status == 503
    assert body["error"]["type"] == "busy"


def test_an_error_says_which_fields_it_means() -> None:
    status, body = explain(RequestError([FieldError("width", "is odd"), FieldError("n", "no")]))
    assert status == 422
    assert body["error"]["fields"] == [
        {"field": "width", "message": "is odd"},
        {"field": "n", "message": "no"},
    ]


def test_an_unknown_name_says_the_nearest_ones() -> None:
    status, body = explain(UnknownName("sampler", "eulr", known=["euler", "heun"]))
    assert status == 404
    assert body["error"]["nearest"] == ["euler"]


def test_busy_says_when_to_come_back() -> None:
    response = error_response(Busy("full", retry_after=7))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"
    assert json.loads(bytes(response.body))["error"]["retry_after"] == 7


def test_unauthorized_says_how_to_be() -> None:
    assert error_response(Unauthorized()).headers["www-authenticate"] == "Bearer"


def test_whatever_an_error_holds_can_be_sent() -> None:
    response = error_response(RequestError([FieldError("\ud800", "half a \udfff")]))
    assert json.loads(bytes(response.body))["error"]["fields"][0]["field"] == "\ud800"


def test_what_nobody_foresaw_is_500_with_an_id_that_is_in_the_log(
    raising: Callable[[Exception], Engine], caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of(raising(RuntimeError("secret /path")))
    answer = ask(app, "GET", "/at-once", headers={"Origin": "http://localhost"})
    assert answer.status_code == 500
    assert answer.headers["access-control-allow-origin"] == "http://localhost"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert error_of(answer)["id"] in caplog.text
    assert "secret /path" in caplog.text


def test_a_failed_generation_is_in_the_log_under_its_id(
    raising: Callable[[Exception], Engine], caplog: pytest.LogCaptureFixture
) -> None:
    answer = ask(app_of(raising(GenerationFailed("the sampler failed"))), "GET", "/at-once")
    assert answer.status_code == 500
    assert error_of(answer)["message"] == "the sampler failed"
    assert error_of(answer)["id"] in caplog.text


def test_a_refusal_is_no_fault_in_the_log(
    raising: Callable[[Exception], Engine], caplog: pytest.LogCaptureFixture
) -> None:
    assert ask(app_of(raising(Busy("full"))), "GET", "/at-once").status_code == 503
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_an_answer_that_breaks_off_is_not_taken_for_the_whole(
    raising: Callable[[Exception], Engine],
) -> None:
    import httpx

    with (
        live(app_of(raising(RuntimeError("broken")))) as url,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        httpx.get(url + "/halfway")


def test_a_plugins_own_http_exceptions_have_our_shape(
    raising: Callable[[Exception], Engine],
) -> None:
    answer = ask(app_of(raising(HTTPException(410, "used up"))), "GET", "/at-once")
    assert answer.status_code == 410
    assert error_of(answer) == {"type": "gone", "message": "used up", "fields": []}


# --------------------------------------------------------------------------------------- routes


def test_a_path_that_nobody_serves_is_404_in_our_shape(engine: Engine) -> None:
    answer = ask(app_of(engine), "GET", "/nowhere")
    assert answer.status_code == 404
    assert error_of(answer)["type"] == "not_found"
    assert "'/nowhere'" in error_of(answer)["message"]


def test_a_wrong_method_is_405_and_says_the_right_one(engine: Engine) -> None:
    answer = ask(app_of(engine), "GET", "/generate")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert error_of(answer)["type"] == "method_not_allowed"


def test_a_slash_too_many_is_no_redirect_that_loses_the_body(engine: Engine) -> None:
    assert ask(app_of(engine), "POST", "/generate/", json=SMALL).json()["status"] == "final"


def test_a_path_that_is_no_text_is_404(engine: Engine) -> None:
    assert ask(app_of(engine), "GET", "/%ff%00%0a").status_code == 404


def test_two_apps_do_not_meet(engine: Engine) -> None:
    open_app = app_of(engine)
    locked = app_of(engine, ServerSettings(api_key="key"))
    assert ask(open_app, "GET", "/models").status_code == 200
    assert ask(locked, "GET", "/models").status_code == 401


def test_the_engine_lives_as_long_as_the_app(tmp_path: Path) -> None:
    engine = build_test_engine(tmp_path / "models")
    service = Service(engine=engine, plugins=engine.plugins, settings=ServerSettings())
    app = build_app(service)

    async def life() -> None:
        assert not engine.status().ready
        async with app.router.lifespan_context(app):
            while not engine.status().ready:  # noqa: ASYNC110 - a thread sets it
                await asyncio.sleep(0.01)

    asyncio.run(life())
    with pytest.raises(errors.ShuttingDown):
        asyncio.run(_first_event(engine))


async def _first_event(engine: Engine) -> None:
    from imagine_core import GenerationRequest

    async for _ in engine.generate(GenerationRequest(prompt="x")):
        return


def test_no_status_is_decided_elsewhere() -> None:
    from imagine_plugins.dialects.native import dialect, lines, routes, wire

    for module in (dialect, lines, routes, wire):
        source = inspect.getsource(module)
        assert "status_code" not in source
        assert "HTTPException" not in source


def test_a_request_that_is_not_worth_a_word_is_quiet(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert ask(app_of(engine), "GET", "/health").status_code == 200
    assert [record for record in caplog.records if record.name == "imagine"] == []


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("/images/generations", "; did you mean '/v1/images/generations'?"),
        ("/v1/sdapi/v1/txt2img", "; did you mean '/sdapi/v1/txt2img'?"),
        ("/nowhere", ""),
    ],
)
def test_an_address_that_was_entered_wrongly_is_told_and_logged(
    engine: Engine, caplog: pytest.LogCaptureFixture, asked: str, meant: str
) -> None:
    caplog.set_level(logging.INFO, "imagine")
    answer = ask(app_of(engine), "POST", asked, json={})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == f"there is no {asked!r} here{meant}"
    assert caplog.messages == [f"refused POST {asked}: not_found"]
