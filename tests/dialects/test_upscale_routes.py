"""Larger pictures and hints over HTTP: `/upscale` and `/preprocess`, and what there is."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from calls import app_of, ask, error_of, fields_of, lines_of, live
from engines import until
from imagine_core import Preprocessor, hookimpl
from imagine_core.engine import Engine
from imagine_core.pictures.metadata import png_bytes
from imagine_core.settings import Limits, Settings
from imagine_core.testing import FakePlugin, build_test_engine
from imagine_core.testing.fake_parts import FakePart
from imagine_plugins.dialects.native.client import NativeClient
from upscalers import noise


class Missing:
    """Registers a preprocessor that needs what is not there."""

    @hookimpl
    def register_preprocessors(self, register: Callable[[Preprocessor], None]) -> None:
        register(
            Preprocessor(
                name="depth",
                label="Depth",
                prepare=lambda image: image,
                unavailable=lambda: "it needs a network",
            )
        )


@pytest.fixture
def engine(tmp_path: Path, fake: FakePlugin) -> Iterator[Engine]:
    folder = tmp_path / "models"
    for name in ("tiny.fake", "upscale_models/Twice.fake", "upscale_models/broken.fake"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"fake")
    settings = Settings(models=folder, limits=Limits(pixels=256 * 256))
    engine = build_test_engine(folder, fake, settings=settings, extra=[("missing", Missing())])
    yield engine
    engine.close(grace=0)


START = noise(12, 8)
META = {"prompt": "a fox", "seed": "1"}
IMG = base64.b64encode(png_bytes(START, META, infotext="a fox\nSteps: 2, Seed: 1")).decode()


def post(engine: Engine, path: str = "/upscale", **body: Any) -> httpx.Response:
    return ask(app_of(engine), "POST", path, json={"img": IMG, **body})


def shown(reply: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(reply["img"])))


# --------------------------------------------------------------------------------- POST /upscale


def test_a_picture_is_made_twice_as_large_by_lanczos(engine: Engine) -> None:
    reply = post(engine).json()
    assert (reply["status"], reply["upscaler"]) == ("final", "lanczos")
    assert (reply["width"], reply["height"]) == shown(reply).size == (24, 16)
    theirs = START.resize((24, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(np.array(shown(reply)), np.array(theirs))
    assert set(reply["timings"]) >= {"enlarging"}
    assert reply["warnings"] == []


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ({"scale": 3}, (36, 24)),
        ({"scale": 0.5}, (6, 4)),
        ({"width": 30, "height": 7}, (30, 7)),
        ({"scale": None, "width": 30, "height": 7, "upscaler": None, "progress": None}, (30, 7)),
    ],
)
def test_the_size_is_that_which_was_asked_for(
    engine: Engine, body: dict[str, Any], size: tuple[int, int]
) -> None:
    assert shown(post(engine, **body).json()).size == size


def test_a_file_enlarges_it_under_any_of_its_names(engine: Engine) -> None:
    for name in ("Twice", "twice.fake"):
        reply = post(engine, upscaler=name).json()
        assert reply["upscaler"] == "Twice"
        assert np.array_equal(np.array(shown(reply)), np.array(START).repeat(2, 0).repeat(2, 1))


def test_what_the_picture_was_drawn_from_stays_in_it(engine: Engine) -> None:
    texts = shown(post(engine, upscaler="nearest").json()).info
    assert json.loads(texts["meta"]) == META
    assert texts["parameters"] == "a fox\nSteps: 2, Seed: 1"
    assert texts["postprocessing"] == "Postprocess upscale by: 2, Postprocess upscaler: Nearest"


def test_a_stream_shows_phases_and_steps_and_ends_with_the_picture(engine: Engine) -> None:
    reply = post(engine, upscaler="Twice", progress=True)
    assert reply.headers["content-type"] == "application/x-ndjson"
    *told, last = lines_of(reply.text)
    words = [line["status"] for line in told]
    assert words[0] == "queued"
    assert "enlarging" in words
    steps = [(line["step"], line["steps"]) for line in told if line["status"] == "progress"]
    assert steps == [(50, 100), (100, 100)]
    assert last["status"] == "final"
    assert len({line["id"] for line in (*told, last)}) == 1


def test_unknown_keys_are_warned_of(engine: Engine) -> None:
    assert post(engine, upscaled=4).json()["warnings"] == ["unknown key 'upscaled' was ignored"]


BAD: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"img": None}, {"img": "is required"}),
    ({"img": "!"}, {"img": "not base64"}),
    ({"img": "AAAA"}, {"img": "not a picture"}),
    ({"scale": 0}, {"scale": "more than 0 and at most 64"}),
    ({"scale": 65}, {"scale": "more than 0 and at most 64"}),
    ({"scale": "2"}, {"scale": "finite number, not a string"}),
    ({"scale": 2, "width": 8, "height": 8}, {"scale": "not by both"}),
    ({"width": 8}, {"height": "is required beside width"}),
    ({"height": 8}, {"width": "is required beside height"}),
    ({"height": 8, "width": "8"}, {"width": "whole number"}),
    ({"width": 0, "height": 9}, {"width": "from 1 to 8192"}),
    ({"width": 9000, "height": 9000}, {"width": "from 1 to 8192", "height": "from 1 to 8192"}),
    ({"width": 9, "height": 0, "upscaler": ""}, {"upscaler": "empty", "height": "from 1 to 8192"}),
]


@pytest.mark.parametrize(("body", "said"), BAD)
def test_each_field_that_cannot_be_served_is_named(
    engine: Engine, body: dict[str, Any], said: dict[str, str]
) -> None:
    found = fields_of(post(engine, **body))
    assert list(found) == list(said)
    assert all(words in found[field] for field, words in said.items())


def test_unknown_and_broken_upscalers_have_their_errors(engine: Engine) -> None:
    unknown = post(engine, upscaler="lanzcos")
    assert unknown.status_code == 404
    assert error_of(unknown)["nearest"] == ["lanczos"]
    broken = post(engine, upscaler="broken")
    assert (broken.status_code, error_of(broken)["type"]) == (422, "unusable_model")


def test_an_upscaler_that_fails_says_so_at_the_end_of_the_stream(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: FakePart, image: Image.Image) -> Generator[float, None, Image.Image]:
        yield 0.5
        raise RuntimeError("a hole")

    monkeypatch.setattr(FakePart, "enlarge", fails)
    *_, last = lines_of(post(engine, upscaler="Twice", progress=True).text)
    assert last["error"]["type"] == "generation_failed"
    assert post(engine, upscaler="Twice").status_code == 500
    assert post(engine).status_code == 200


@pytest.mark.parametrize("framing", ["stream", "object"])
def test_a_client_that_leaves_ends_the_work(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, framing: str
) -> None:
    started, closed = threading.Event(), threading.Event()

    def endless(self: FakePart, image: Image.Image) -> Generator[float, None, Image.Image]:
        try:
            while True:
                started.set()
                time.sleep(0.01)
                yield 0.1
        finally:
            closed.set()

    monkeypatch.setattr(FakePart, "enlarge", endless)
    body = {"img": IMG, "upscaler": "Twice", "progress": framing == "stream"}

    def leave(url: str) -> None:
        """Read what there is for half a second."""
        with httpx.stream("POST", f"{url}/upscale", json=body, timeout=0.5) as reply:
            for _ in reply.iter_lines():
                if started.is_set():
                    return

    with live(app_of(engine)) as url:
        with suppress(httpx.ReadTimeout):
            leave(url)
        assert started.wait(30)
        assert closed.wait(30)
        asyncio.run(until(lambda: engine.status().jobs == []))


def test_the_client_speaks_it(engine: Engine) -> None:
    from imagine_core import UpscaleRequest, UpscaleResult
    from imagine_core.errors import RequestError

    async def talk(url: str, **changes: Any) -> list[Any]:
        request = UpscaleRequest(image=base64.b64decode(IMG), upscaler="Twice", **changes)
        return [event async for event in NativeClient(url).upscale(request)]

    with live(app_of(engine)) as url:
        *_, result = asyncio.run(talk(url))
        sized = asyncio.run(talk(url, scale=None, size=(20, 30)))[-1]
        listed = asyncio.run(NativeClient(url).upscalers())
        with pytest.raises(RequestError, match="at most 64"):
            asyncio.run(talk(url, scale=100.0))
    assert isinstance(result, UpscaleResult)
    assert np.array_equal(np.array(result.image), np.array(START).repeat(2, 0).repeat(2, 1))
    assert sized.image.size == (20, 30)
    assert "Twice" in listed["upscalers"]


# ------------------------------------------------------------------------------------- the lists


def test_upscalers_are_listed_with_what_each_is(engine: Engine) -> None:
    reply = ask(app_of(engine), "GET", "/upscalers").json()
    assert reply["upscalers"] == ["bicubic", "lanczos", "nearest", "Twice"]
    details = {each["name"]: each for each in reply["details"]}
    assert details["lanczos"] == {
        "name": "lanczos",
        "label": "Lanczos",
        "aliases": [],
        "factor": None,
        "architecture": None,
        "problem": None,
        "plugin": "imagine-upscalers",
    }
    assert details["broken"]["problem"]
    assert details["Twice"]["plugin"] is None


def test_preprocessors_are_listed_with_what_each_lacks(engine: Engine) -> None:
    reply = ask(app_of(engine), "GET", "/preprocessors").json()
    assert reply["preprocessors"] == ["canny", "invert", "luma", "tile"]
    details = {each["name"]: each for each in reply["details"]}
    assert details["depth"]["problem"] == "it needs a network"
    assert details["canny"]["label"] == "Canny edges"


# ------------------------------------------------------------------------------ POST /preprocess


def test_a_preprocessor_shows_its_hint(engine: Engine) -> None:
    reply = post(engine, "/preprocess", preprocessor="Invert").json()
    assert (reply["preprocessor"], reply["width"], reply["height"]) == ("invert", 12, 8)
    assert np.array_equal(np.array(shown(reply)), 255 - np.array(START))


def test_a_large_picture_is_scaled_to_what_a_request_may_ask_for(engine: Engine) -> None:
    large = base64.b64encode(png_bytes(noise(1024, 256), None)).decode()
    reply = post(engine, "/preprocess", img=large, preprocessor="tile").json()
    assert (reply["width"], reply["height"]) == shown(reply).size == (512, 128)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, {"preprocessor": "is required: a name"}),
        ({"img": None, "preprocessor": None}, {"img": "is required", "preprocessor": "required"}),
        ({"img": 1, "preprocessor": 2}, {"img": "in base64", "preprocessor": "a string"}),
        ({"img": "AAAA", "preprocessor": "canny"}, {"img": "not a picture"}),
        ({"preprocessor": "depth"}, {"preprocessor": "it needs a network"}),
    ],
)
def test_what_cannot_be_prepared_is_named(
    engine: Engine, body: dict[str, Any], said: dict[str, str]
) -> None:
    found = fields_of(post(engine, "/preprocess", **body))
    assert list(found) == list(said)
    assert all(words in found[field] for field, words in said.items())


def test_an_unknown_preprocessor_is_not_found(engine: Engine) -> None:
    reply = post(engine, "/preprocess", preprocessor="kanny")
    assert (reply.status_code, error_of(reply)["nearest"]) == (404, ["canny"])


def test_an_enlarging_is_listed_and_cancelled_by_its_id(engine: Engine) -> None:
    app = app_of(engine)
    begun, go_on = threading.Event(), threading.Event()

    def tiles(self: FakePart, image: Image.Image) -> Generator[float, None, Image.Image]:
        begun.set()
        while not go_on.wait(0.01):
            yield 0.5
        return image.resize((image.width * 2, image.height * 2))

    async def main() -> None:
        transport = httpx.ASGITransport(app=app)
        base = "http://localhost:5000"
        async with httpx.AsyncClient(transport=transport, base_url=base, timeout=60) as client:
            body = {"img": IMG, "upscaler": "Twice"}
            asked = asyncio.create_task(client.post("/upscale", json=body))
            await until(begun.is_set)
            (listed,) = (await client.get("/jobs")).json()["jobs"]
            await until(lambda: engine.status().jobs[0].step == 50)
            standing = (await client.get(f"/jobs/{listed['id']}")).json()
            assert standing["status"] == "enlarging"
            assert (standing["step"], standing["steps"]) == (50, 100)
            gone = (await client.post(f"/jobs/{listed['id']}/cancel")).json()
            assert gone == {"id": listed["id"], "status": "cancelled"}
            reply = await asked
            assert reply.json()["error"]["type"] == "cancelled"
            assert (await client.get("/jobs")).json() == {"jobs": []}
            await until(lambda: not engine.status().jobs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakePart, "enlarge", tiles)
        asyncio.run(main())
    reply = post(engine, upscaler="Twice")
    assert reply.headers["x-job-id"] == reply.json()["id"]
