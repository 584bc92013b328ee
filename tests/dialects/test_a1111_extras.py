"""A1111's routes that enlarge pictures."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from calls import app_of, ask, live
from engines import until
from imagine_core.engine import Engine
from imagine_core.pictures.metadata import png_bytes
from imagine_core.settings import Limits, Settings
from imagine_core.testing import FakePlugin, build_test_engine
from imagine_core.testing.fake_parts import FakePart
from upscalers import noise

ONE, BATCH = "/sdapi/v1/extra-single-image", "/sdapi/v1/extra-batch-images"
START = noise(24, 16)
INFOTEXT = "a fox\nSteps: 2, Seed: 1"
IMG = base64.b64encode(png_bytes(START, None, infotext=INFOTEXT)).decode()


@pytest.fixture
def engine(tmp_path: Path, fake: FakePlugin) -> Iterator[Engine]:
    folder = tmp_path / "models"
    for name in ("tiny.fake", "upscale_models/Twice.fake", "upscale_models/broken.fake"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"fake")
    settings = Settings(models=folder, limits=Limits(images=3))
    engine = build_test_engine(folder, fake, settings=settings)
    yield engine
    engine.close(grace=0)


def post(engine: Engine, path: str = ONE, **body: Any) -> httpx.Response:
    return ask(app_of(engine), "POST", path, json={"image": IMG, **body})


def enlarge(engine: Engine, path: str = ONE, **body: Any) -> dict[str, Any]:
    answer = post(engine, path, **body)
    assert answer.status_code == 200, answer.text
    reply: dict[str, Any] = answer.json()
    return reply


def shown(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)))


def pixels(encoded: str) -> np.ndarray[Any, Any]:
    return np.asarray(shown(encoded))


def resized(size: tuple[int, int], kernel: int = Image.Resampling.LANCZOS) -> Image.Image:
    return START.resize(size, kernel)


def test_a_picture_is_enlarged_by_the_named_upscaler(engine: Engine) -> None:
    reply = enlarge(engine, upscaler_1="Lanczos", upscaling_resize=3)
    assert np.array_equal(pixels(reply["image"]), np.asarray(resized((72, 48))))
    assert reply["warnings"] == []
    assert reply["html_info"] == "<p>Postprocess upscaler: Lanczos</p>"
    twice = enlarge(engine, upscaler_1="Twice")
    assert np.array_equal(pixels(twice["image"]), np.asarray(START).repeat(2, 0).repeat(2, 1))
    texts = shown(twice["image"]).info
    assert texts["parameters"] == INFOTEXT
    assert texts["postprocessing"] == "Postprocess upscale by: 2, Postprocess upscaler: Twice"


def test_without_an_upscaler_the_picture_comes_back_as_it_is(engine: Engine) -> None:
    for named in ({}, {"upscaler_1": "None", "upscaler_2": "Lanczos"}, {"upscaler_1": ""}):
        reply = enlarge(engine, **named)
        assert np.array_equal(pixels(reply["image"]), np.asarray(START))
        assert shown(reply["image"]).info == {"parameters": INFOTEXT}


def test_a_size_is_covered_and_cut_out_if_asked(engine: Engine) -> None:
    asked: dict[str, Any] = {"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 48}
    asked |= {"upscaling_resize_h": 48}
    whole = enlarge(engine, **asked, upscaling_crop=False)
    assert np.array_equal(pixels(whole["image"]), np.asarray(resized((72, 48))))
    cut = enlarge(engine, **asked)
    assert np.array_equal(pixels(cut["image"]), np.asarray(resized((72, 48)))[:, 12:60])
    told = shown(cut["image"]).info["postprocessing"]
    assert told == "Postprocess upscale to: 48x48, Postprocess upscaler: Lanczos"


def test_a_second_upscaler_is_blended_in(engine: Engine) -> None:
    two = {"upscaler_1": "Lanczos", "upscaler_2": "Nearest"}
    reply = enlarge(engine, **two, extras_upscaler_2_visibility=0.25)
    near = resized((48, 32), Image.Resampling.NEAREST)
    wanted = Image.blend(resized((48, 32)), near, 0.25)
    assert np.array_equal(pixels(reply["image"]), np.asarray(wanted))
    assert "Postprocess upscaler 2: Nearest" in shown(reply["image"]).info["postprocessing"]
    unseen = enlarge(engine, **two)
    assert np.array_equal(pixels(unseen["image"]), np.asarray(resized((48, 32))))


def test_faces_are_not_restored_and_that_is_said(engine: Engine) -> None:
    reply = enlarge(engine, upscaler_1="Lanczos", gfpgan_visibility=1, codeformer_visibility=0.5)
    said = [f"{name}_visibility has no effect here" for name in ("gfpgan", "codeformer")]
    assert reply["warnings"] == said
    assert f"<p>{said[0]}</p>" in reply["html_info"]
    hidden = enlarge(engine, upscaler_1="Lanczos", show_extras_results=False)
    assert hidden["image"] is None


def test_several_pictures_are_enlarged_in_their_order(engine: Engine) -> None:
    other = base64.b64encode(png_bytes(noise(8, 8, seed=1), None)).decode()
    files = [{"data": IMG, "name": "a"}, {"data": f"data:image/png;base64,{other}", "name": "b"}]
    reply = enlarge(engine, BATCH, imageList=files, upscaler_1="Twice")
    assert [shown(each).size for each in reply["images"]] == [(48, 32), (16, 16)]
    assert np.array_equal(pixels(reply["images"][0])[::2, ::2], np.asarray(START))


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (ONE, {"image": None}, "image: must"),
        (ONE, {"image": "AAAA", "upscaler_1": "Lanczos"}, "image: is not a picture"),
        (ONE, {"image": "AAAA", "resize_mode": 1, "upscaler_1": "Lanczos"}, "image: is not a pic"),
        (ONE, {"image": "AAAA"}, "image: is not a picture"),
        (ONE, {"image": "?"}, "image: is not base64"),
        (ONE, {"upscaling_resize": 0}, "upscaling_resize: must be more than 0"),
        (ONE, {"upscaling_resize": 65}, "upscaling_resize: must be"),
        (ONE, {"resize_mode": 2, "upscaling_crop": []}, "resize_mode: must be one of 0"),
        (ONE, {"upscaling_resize_w": "1" * 400}, "upscaling_resize_w: must be"),
        (
            ONE,
            {"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 900_000},
            "upscaling_resize_w: makes",
        ),
        (BATCH, {}, "imageList: must be a list of 1 to 3"),
        (BATCH, {"imageList": [{"data": IMG}] * 4}, "imageList: must be a list of 1 to 3"),
        (BATCH, {"imageList": [{"data": 5}]}, "imageList: must be a picture in base64"),
        (BATCH, {"imageList": [{"data": "AAAA"}], "upscaler_1": "Lanczos"}, "imageList: is not a"),
    ],
)
def test_each_field_that_cannot_be_served_is_named(
    engine: Engine, path: str, body: dict[str, Any], said: str
) -> None:
    answer = post(engine, path, **body)
    assert answer.status_code == 422, answer.text
    assert said in answer.json()["detail"]


def test_unknown_and_broken_upscalers_have_their_errors(engine: Engine) -> None:
    unknown = post(engine, upscaler_1="Lanzcos")
    assert unknown.status_code == 404
    assert "did you mean 'Lanczos'" in unknown.json()["detail"]
    assert post(engine, upscaler_1="broken").status_code == 422
    second = {"upscaler_1": "Lanczos", "upscaler_2": "gone"}
    assert post(engine, **second).status_code == 200
    assert post(engine, **second, extras_upscaler_2_visibility=1).status_code == 404


def test_a_client_that_leaves_ends_the_work(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
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
    with live(app_of(engine)) as url:
        with suppress(httpx.ReadTimeout):
            httpx.post(url + ONE, json={"image": IMG, "upscaler_1": "Twice"}, timeout=0.5)
        assert started.wait(30)
        assert closed.wait(30)
        asyncio.run(until(lambda: engine.status().jobs == []))


@pytest.mark.parametrize("upscaler", ["None", "Nearest"])
def test_transparency_is_kept(engine: Engine, upscaler: str) -> None:
    start = START.convert("RGBA")
    start.paste((0, 0, 0, 0), (0, 0, 12, 16))
    sent = base64.b64encode(png_bytes(start, None)).decode()
    made = shown(enlarge(engine, image=sent, upscaler_1=upscaler)["image"])
    factor = made.width // START.width
    alpha = np.asarray(start.getchannel("A")).repeat(factor, 0).repeat(factor, 1)
    assert (np.asarray(made.getchannel("A")) == alpha).all()
