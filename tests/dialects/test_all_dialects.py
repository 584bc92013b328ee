"""What holds whichever API a request comes through: bounds, the queue, origins, log, metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from calls import app_of, ask
from imagine_core.engine import Engine
from imagine_core.settings import Limits, ServerSettings, Settings
from imagine_core.testing import build_test_engine

TINY: dict[str, Any] = {"prompt": "red", "steps": 2, "seed": 1}
DIALECTS = {
    "/generate": TINY | {"width": 64, "height": 64},
    "/v1/images/generations": TINY | {"size": "64x64"},
    "/sdapi/v1/txt2img": TINY | {"width": 64, "height": 64},
}
every_dialect = pytest.mark.parametrize("path", DIALECTS)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    limits = Limits(images=2, steps=50, body=10_000)
    engine = build_test_engine(tmp_path, settings=Settings(models=tmp_path, limits=limits))
    yield engine
    engine.close()


@pytest.fixture
def app(engine: Engine) -> Starlette:
    return app_of(engine)


def test_the_log_and_the_metrics_count_the_requests_of_each(
    app: Starlette, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "imagine")
    with_client = [ask(app, "POST", path, json=body) for path, body in DIALECTS.items()]
    assert [each.status_code for each in with_client] == [200] * 3
    ids = [each.headers["x-job-id"] for each in with_client]
    lines = [line for line in caplog.messages if " done: tiny" in line]
    assert [line.split()[0] for line in lines] == ids
    counted = ask(app, "GET", "/metrics").text.splitlines()
    assert "imagine_pictures_total 3.0" in counted


@every_dialect
def test_a_request_may_go_on_without_its_client_and_its_result_be_fetched(
    app: Starlette, path: str
) -> None:
    body = DIALECTS[path] | {"on_disconnect": "finish"}
    name = ask(app, "POST", path, json=body).headers["x-job-id"]
    assert ask(app, "GET", f"/jobs/{name}").json()["status"] == "final"


@every_dialect
def test_the_bounds_of_the_server_are_those_of_each(app: Starlette, path: str) -> None:
    for wrong in ({"steps": 51}, {"n": 3, "batch_size": 3}, {"prompt": "x" * 9_999}):
        response = ask(app, "POST", path, json=DIALECTS[path] | wrong)
        assert response.status_code in (400, 413, 422), wrong


@every_dialect
def test_pages_of_other_sites_are_refused_whatever_they_send(app: Starlette, path: str) -> None:
    headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    assert ask(app, "POST", path, json=DIALECTS[path], headers=headers).status_code == 403


@every_dialect
def test_a_full_queue_says_when_to_come_back(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imagine_core.errors import Busy

    engine = build_test_engine(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise Busy("the queue is full", retry_after=7)

    monkeypatch.setattr(engine, "_submit", full)
    response = ask(app_of(engine), "POST", path, json=DIALECTS[path])
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    engine.close()


@every_dialect
@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer key"},
        {"Authorization": "Basic dXNlcjprZXk="},  # user:key
        {"api-key": "key"},
    ],
    ids=["bearer", "basic", "header"],
)
def test_each_way_to_send_the_key_opens_each(
    engine: Engine, path: str, headers: dict[str, str]
) -> None:
    app = app_of(engine, ServerSettings(host="127.0.0.1", api_key="key"))
    assert ask(app, "POST", path, json=DIALECTS[path]).status_code == 401
    assert ask(app, "POST", path, json=DIALECTS[path], headers=headers).status_code == 200
