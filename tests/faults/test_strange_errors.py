"""An error of any plugin ends its request with a message, without a hang or a path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from calls import SMALL, app_of, ask, error_of
from imagine_core import Enhancement, Enhancer, EnhanceTask, SamplerSpec, Sampling, SamplingTask
from imagine_core.engine import Engine
from imagine_core.hookspecs import hookimpl
from imagine_core.testing import FakeDevice, FakeModel, FakePlugin, build_test_engine, euler
from imagine_core.testing.fakes import FakeLoader
from slow_server import Server, wait_until

PLACE = "/home/anna/secret folder/weights.bin"
TELLING = FileNotFoundError(2, "No such file or directory", PLACE)
SLY = asyncio.CancelledError("no Exception at all")
"""What is raised where a plugin uses asyncio in its own way; `except Exception` lets it through."""


class Stranger(Enhancer):
    """A plugin with a sampler and an enhancer that raise what they are given."""

    name, label, language_model = "strange", "Strange", True

    def __init__(self) -> None:
        self.error: BaseException = TELLING

    @hookimpl
    def register_samplers(self, register: Callable[[SamplerSpec], None]) -> None:
        for sample in (self.at_its_start, self.at_a_step, self.at_its_end):
            register(SamplerSpec(name=sample.__name__, label=sample.__name__, sample=sample))

    @hookimpl
    def register_enhancers(self, register: Callable[[Enhancer], None]) -> None:
        register(self)

    def fail(self) -> None:
        raise self.error

    def at_its_start(self, task: SamplingTask) -> Sampling:
        self.fail()
        return euler(task)

    def at_a_step(self, task: SamplingTask) -> Sampling:
        inner = euler(task)
        yield inner.send((yield next(inner)))
        self.fail()
        return task.noise

    def at_its_end(self, task: SamplingTask) -> Sampling:
        try:
            return (yield from euler(task))
        finally:
            self.fail()

    async def enhance(self, task: EnhanceTask) -> AsyncIterator[str | Enhancement]:
        self.fail()
        yield task.prompt


@pytest.fixture
def stranger() -> Stranger:
    return Stranger()


@pytest.fixture
def server(tmp_path: Path, stranger: Stranger) -> Iterator[Server]:
    with Server(tmp_path / "models", extra=[("stranger", stranger)]).running() as server:
        yield server


def post(server: Server, **body: Any) -> httpx.Response:
    return httpx.post(server.url + "/generate", json={**SMALL, **body}, timeout=60)


def check(server: Server, answer: httpx.Response, status: int) -> None:
    """It failed without telling tales, and the next picture is made."""
    assert answer.status_code == status, answer.text
    assert error_of(answer)["type"]
    assert "anna" not in answer.text
    assert "weights" not in answer.text
    assert "Traceback" not in answer.text
    assert httpx.get(server.url + "/health").json()["ready"] is True
    wait_until(lambda: not server.phases())
    assert post(server).status_code == 200


ERRORS = pytest.mark.parametrize("error", [TELLING, SLY], ids=["telling", "sly"])


@ERRORS
@pytest.mark.parametrize("sampler", ["at_its_start", "at_a_step", "at_its_end"])
def test_a_sampler(server: Server, stranger: Stranger, error: BaseException, sampler: str) -> None:
    stranger.error = error
    answer = post(server, sampler=sampler)
    assert type(error).__name__ in error_of(answer)["message"]
    check(server, answer, 500)


@ERRORS
@pytest.mark.parametrize("method", ["encode_prompt", "predict", "decode"])
def test_a_model(
    server: Server, monkeypatch: pytest.MonkeyPatch, error: BaseException, method: str
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(FakeModel, method, fails)
        answer = post(server)
    check(server, answer, 500)


@ERRORS
def test_a_loader(server: Server, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(FakeLoader, "load", fails)
        answer = post(server)
    check(server, answer, 500)


def test_an_enhancer(server: Server) -> None:
    check(server, post(server, enhance="strange"), 502)


@ERRORS
def test_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fails(_: FakeDevice) -> str | None:
        raise error

    monkeypatch.setattr(FakeDevice, "unavailable", fails)
    engine = build_test_engine(tmp_path / "models", FakePlugin())
    app = app_of(engine)
    engine.start()
    try:
        wait_until(lambda: ask(app, "GET", "/health").json()["status"] == "failed")
        for answer in (ask(app, "GET", "/health"), ask(app, "POST", "/generate", json=SMALL)):
            assert type(error).__name__ in answer.text
            assert "anna" not in answer.text
    finally:
        engine.close(grace=0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_where_the_engines_thread_has_ended_nobody_waits_for_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise ImportError("libtorch.so: cannot open shared object file")

    monkeypatch.setattr(engine._worker, "_prepare", fails)
    app = app_of(engine)
    engine.start()
    wait_until(lambda: ask(app, "GET", "/health").json()["status"] == "failed")
    assert "thread has ended" in ask(app, "GET", "/health").json()["message"]
    answer = ask(app, "POST", "/generate", json=SMALL)
    assert answer.status_code == 500
    assert "must be started again" in error_of(answer)["message"]
