"""Better prompts over HTTP: `/enhance`, `/enhancers` and `enhance` in `/generate`."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from calls import SMALL, app_of, ask, error_of, fields_of, lines_of, live
from fake_ollama import FakeOllama, running
from imagine_core import Enhancement, Enhancer, EnhanceTask, hookimpl
from imagine_core.engine import Engine
from imagine_core.settings import Limits, ServerSettings, Settings
from imagine_core.testing import build_test_engine

BETTER = "a fox, better"


class Slow(Enhancer):
    """Writes a word and then nothing more, until it is closed."""

    name, label, language_model = "slow", "Slow", True

    def __init__(self) -> None:
        self.started = threading.Event()
        self.closed = threading.Event()

    async def enhance(self, task: EnhanceTask) -> AsyncIterator[str | Enhancement]:
        import asyncio

        try:
            self.started.set()
            if task.stream:
                yield "a"
            await asyncio.sleep(60)
            yield Enhancement(prompt=task.prompt)
        finally:
            self.closed.set()


class Brings:
    """A plugin that brings `enhancer`."""

    def __init__(self, enhancer: Enhancer) -> None:
        self.enhancer = enhancer

    @hookimpl
    def register_enhancers(self, register: Callable[[Enhancer], None]) -> None:
        register(self.enhancer)


@pytest.fixture
def ollama(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOllama]:
    with running() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        yield server


@pytest.fixture
def no_ollama(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address at which there is none."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    monkeypatch.setenv("OLLAMA_HOST", address)
    return address


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def small(tmp_path: Path, slow: Slow) -> Iterator[Engine]:
    """An engine with room for one enhancement, and the slow enhancer."""
    settings = Settings(models=tmp_path / "models", limits=Limits(queue=1, prompt=100))
    extra = [("slow", Brings(slow))]
    engine = build_test_engine(tmp_path / "models", settings=settings, extra=extra)
    yield engine
    engine.close(grace=0)


def post(engine: Engine, path: str = "/enhance", **body: Any) -> httpx.Response:
    return ask(app_of(engine), "POST", path, json=body)


def png_meta(encoded: str) -> dict[str, Any]:
    image = Image.open(BytesIO(base64.b64decode(encoded)))
    return dict(json.loads(image.info["meta"]))


# ---------------------------------------------------------------------------------- POST /enhance


def test_a_prompt_is_made_better(engine: Engine, ollama: FakeOllama) -> None:
    reply = post(engine, prompt="a fox", seed=5)
    assert reply.status_code == 200
    assert reply.json() == {
        "prompt": BETTER,
        "original_prompt": "a fox",
        "status": "final",
        "enhancer": "ollama",
        "model": "gemma3:4b",
        "seed": "5",
        "warnings": [],
    }


def test_a_negative_prompt_comes_with_it_if_asked_for(engine: Engine, ollama: FakeOllama) -> None:
    assert post(engine, prompt="a fox", neg=True).json()["neg"] == "blurry"


def test_a_named_model_is_asked(engine: Engine, ollama: FakeOllama) -> None:
    ollama.models.append({"name": "gemma:2b"})
    reply = post(engine, prompt="a fox", model="gemma:2b").json()
    assert reply["model"] == ollama.requests[0]["model"] == "gemma:2b"


def test_a_stream_shows_the_prompt_as_it_grows(engine: Engine, ollama: FakeOllama) -> None:
    reply = post(engine, prompt="a fox", stream=True, neg=True)
    assert reply.headers["content-type"] == "application/x-ndjson"
    *growing, last = lines_of(reply.text)
    assert len(growing) > 2
    assert {line["status"] for line in growing} == {"intermediate"}
    for line, following in zip(growing, [*growing[1:], last], strict=True):
        assert following["prompt"].startswith(line["prompt"])
    assert (last["status"], last["prompt"], last["neg"]) == ("final", BETTER, "blurry")


def test_without_ollama_the_table_does_it(engine: Engine, no_ollama: str) -> None:
    first = post(engine, prompt="a fox", seed="7", stream=True)
    (line,) = lines_of(first.text)
    assert line["enhancer"] == "table"
    assert line["model"] is None
    assert post(engine, prompt="a fox", seed="7").json()["prompt"] == line["prompt"]


def test_seeds_that_are_not_given_are_drawn(engine: Engine, no_ollama: str) -> None:
    seeds = {post(engine, prompt="a fox", seed=none).json()["seed"] for none in (None, -1, "-1")}
    assert len(seeds) == 3


def test_an_enhancer_can_be_named(engine: Engine, ollama: FakeOllama) -> None:
    assert post(engine, prompt="a fox", enhancer="Table").json()["enhancer"] == "table"
    assert ollama.requests == []


def test_an_unknown_enhancer_is_not_found(engine: Engine, no_ollama: str) -> None:
    reply = post(engine, prompt="a fox", enhancer="tables")
    assert reply.status_code == 404
    assert error_of(reply)["nearest"] == ["table"]


def test_an_enhancer_that_fails_is_a_bad_gateway_with_its_words(
    engine: Engine, no_ollama: str
) -> None:
    for body in ({"enhancer": "ollama"}, {"model": "gemma:2b"}):
        reply = post(engine, prompt="a fox", **body)
        assert reply.status_code == 502
        assert error_of(reply)["type"] == "enhancer_failed"
        assert "ollama serve" in error_of(reply)["message"]


def test_a_stream_that_breaks_off_ends_with_the_error(engine: Engine, ollama: FakeOllama) -> None:
    ollama.cut_after = 6
    *growing, last = lines_of(post(engine, prompt="a fox", stream=True).text)
    assert growing
    assert "broke off" in last["error"]["message"]


def test_all_that_is_wrong_is_said_at_once(engine: Engine, no_ollama: str) -> None:
    reply = post(engine, prompt=" ", neg="yes", stream=5, enhancer=1, model=[], seed="x")
    assert set(fields_of(reply)) == {"prompt", "neg", "stream", "enhancer", "model", "seed"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "x" * 20_001}, "prompt"),
        ({"prompt": "half \ud83e"}, "prompt"),
        ({"prompt": "x", "seed": 2**64}, "seed"),
        ({"prompt": "x", "seed": -2}, "seed"),
        ({"prompt": "x", "enhancer": ""}, "enhancer"),
        ({"prompt": "x", "model": ""}, "model"),
        ({"prompt": "x", "enhancer": "table", "model": "gemma:2b"}, "model"),
    ],
)
def test_nonsense_is_refused_under_the_name_of_its_field(
    engine: Engine, no_ollama: str, body: dict[str, Any], field: str
) -> None:
    content = json.dumps(body)
    assert set(fields_of(ask(app_of(engine), "POST", "/enhance", content=content))) == {field}


def test_a_body_that_is_no_json_is_malformed(engine: Engine) -> None:
    assert ask(app_of(engine), "POST", "/enhance", content=b"{").status_code == 400


def test_a_client_cannot_send_the_server_to_an_address(
    engine: Engine, no_ollama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running() as elsewhere:
        reply = post(engine, prompt="a fox", address=elsewhere.url)
        assert "unknown key 'address' was ignored" in reply.json()["warnings"]
        assert reply.json()["enhancer"] == "table"
        assert elsewhere.requests == []


def test_a_client_that_leaves_ends_the_work(small: Engine, slow: Slow) -> None:
    body = {"prompt": "a fox", "enhancer": "slow", "stream": True}
    with live(app_of(small)) as url:
        with httpx.stream("POST", f"{url}/enhance", json=body) as reply:
            lines = reply.iter_lines()  # it closes the connection when collected
            assert json.loads(next(lines))["prompt"] == "a"
            assert not slow.closed.is_set()
        assert slow.closed.wait(30)


def test_one_more_than_there_is_room_for_is_told_to_come_back(small: Engine, slow: Slow) -> None:
    body = {"prompt": "a fox", "enhancer": "slow", "stream": True}
    with live(app_of(small)) as url:
        with httpx.stream("POST", f"{url}/enhance", json=body):
            assert slow.started.wait(30)
            for path, more in (("/enhance", {}), ("/generate", SMALL | {"enhance": True})):
                refused = httpx.post(url + path, json={"prompt": "a fox", **more})
                assert (refused.status_code, error_of(refused)["type"]) == (503, "busy")
        assert slow.closed.wait(30)
        assert httpx.post(
            f"{url}/enhance", json={"prompt": "a fox", "enhancer": "table"}
        ).is_success


def test_the_event_loop_stays_free_while_an_enhancer_works(small: Engine, slow: Slow) -> None:
    body = {"prompt": "a fox", "enhancer": "slow", "stream": True}
    with live(app_of(small)) as url, httpx.stream("POST", f"{url}/enhance", json=body):
        assert slow.started.wait(30)
        assert httpx.get(f"{url}/health", timeout=60).is_success


# --------------------------------------------------------------------------------- GET /enhancers


def test_the_enhancers_that_can_be_used_are_listed_best_first(
    engine: Engine, ollama: FakeOllama
) -> None:
    reply = ask(app_of(engine), "GET", "/enhancers").json()
    assert reply["enhancers"] == ["ollama", "table"]
    assert reply["default"] == "ollama"
    assert reply["details"][0] == {
        "name": "ollama",
        "label": "Ollama",
        "language_model": True,
        "problem": None,
    }


def test_an_enhancer_that_cannot_be_used_is_known_with_its_problem(
    engine: Engine, no_ollama: str
) -> None:
    reply = ask(app_of(engine), "GET", "/enhancers").json()
    assert reply["enhancers"] == ["table"]
    assert reply["default"] == "table"
    assert "ollama serve" in reply["details"][0]["problem"]


def test_a_page_opened_from_a_file_may_ask_and_another_site_may_not(
    engine: Engine, no_ollama: str
) -> None:
    for origin, status in (("null", 200), ("https://elsewhere.example", 403)):
        headers = {"Origin": origin}
        app = app_of(engine)
        assert ask(app, "GET", "/enhancers", headers=headers).status_code == status
        reply = ask(app, "POST", "/enhance", headers=headers, json={"prompt": "a fox"})
        assert reply.status_code == status


def test_the_key_is_wanted(engine: Engine) -> None:
    app = app_of(engine, ServerSettings(host="127.0.0.1", api_key="secret"))
    assert ask(app, "GET", "/enhancers").status_code == 401
    assert ask(app, "POST", "/enhance", json={"prompt": "a fox"}).status_code == 401


# --------------------------------------------------------------------------------- POST /generate


def test_generate_draws_the_better_prompt_and_notes_both(
    engine: Engine, ollama: FakeOllama
) -> None:
    reply = post(engine, "/generate", **SMALL | {"prompt": "a fox", "enhance": True}).json()
    assert (reply["prompt"], reply["original_prompt"]) == (BETTER, "a fox")
    assert reply["enhancer"] == "ollama"
    meta = png_meta(reply["img"])
    assert (meta["prompt"], meta["original_prompt"]) == (BETTER, "a fox")
    drawn = post(engine, "/generate", **SMALL | {"prompt": BETTER}).json()
    assert pixels(drawn["img"]) == pixels(reply["img"])


def pixels(encoded: str) -> bytes:
    return Image.open(BytesIO(base64.b64decode(encoded))).tobytes()


def test_the_seed_of_the_picture_seeds_the_enhancement(engine: Engine, no_ollama: str) -> None:
    body = SMALL | {"prompt": "a fox", "enhance": "table"}
    first, again = (post(engine, "/generate", **body).json() for _ in range(2))
    assert first["img"] == again["img"]
    assert first["prompt"] == post(engine, prompt="a fox", seed=SMALL["seed"]).json()["prompt"]


@pytest.mark.parametrize("off", [False, None])
def test_without_enhance_nothing_is_said_of_prompts(engine: Engine, off: object) -> None:
    reply = post(engine, "/generate", **SMALL, enhance=off).json()
    assert not {"prompt", "original_prompt", "enhancer"} & set(reply)
    assert "original_prompt" not in png_meta(reply["img"])
    assert reply["warnings"] == []


def test_a_client_that_enhanced_by_itself_may_note_the_original(engine: Engine) -> None:
    reply = post(engine, "/generate", **SMALL, original_prompt="r").json()
    assert (reply["prompt"], reply["original_prompt"]) == (SMALL["prompt"], "r")
    assert png_meta(reply["img"])["original_prompt"] == "r"


def test_an_enhancement_that_fails_draws_nothing(engine: Engine, no_ollama: str) -> None:
    reply = post(engine, "/generate", **SMALL | {"enhance": "ollama"})
    assert reply.status_code == 502
    assert engine.status().jobs == []
    assert engine.status().loaded == []


@pytest.mark.parametrize("field", ["model", "sampler", "schedule"])
def test_a_name_that_nobody_knows_costs_no_enhancement(
    small: Engine, slow: Slow, field: str
) -> None:
    for progress in (False, True):
        body = SMALL | {"enhance": "slow", "progress": progress, field: "nobody"}
        reply = post(small, "/generate", **body)
        assert reply.status_code == 404
        assert "nobody" in error_of(reply)["message"]
    assert not slow.started.is_set()


def test_an_enhancer_that_nobody_knows_is_a_status_and_no_line_of_a_stream(engine: Engine) -> None:
    reply = post(engine, "/generate", **SMALL | {"enhance": "nobody", "progress": True})
    assert reply.status_code == 404
    assert "enhancer 'nobody'" in error_of(reply)["message"]


def test_progress_says_that_the_prompt_is_being_made_better(engine: Engine, no_ollama: str) -> None:
    reply = post(engine, "/generate", **SMALL | {"enhance": True, "progress": True})
    lines = lines_of(reply.text)
    assert lines[0] == {"id": lines[0]["id"], "status": "enhancing"}
    assert lines[-1]["enhancer"] == "table"


def test_a_client_that_leaves_generate_ends_the_enhancement(small: Engine, slow: Slow) -> None:
    body = SMALL | {"enhance": "slow", "progress": True}
    with live(app_of(small)) as url:
        with httpx.stream("POST", f"{url}/generate", json=body) as reply:
            lines = reply.iter_lines()  # it closes the connection when collected
            assert json.loads(next(lines))["status"] == "enhancing"
            assert slow.started.wait(30)
        assert slow.closed.wait(30)
