"""OpenAI's Images API over the fake model, as its clients read it."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.applications import Starlette

from calls import SMALL, app_of, ask, live
from engines import png
from imagine_core.engine import Engine
from imagine_core.pictures.metadata import infotext_of
from imagine_core.settings import Limits, ServerSettings, Settings
from imagine_core.testing import FakePlugin, build_test_engine
from slow_server import Server, wait_until

GENERATIONS, EDITS, VARIATIONS = (
    f"/v1/images/{name}" for name in ("generations", "edits", "variations")
)
TINY: dict[str, Any] = {"prompt": "red", "size": "64x64", "steps": 4, "seed": 1}
LOCAL = ServerSettings(host="127.0.0.1")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = build_test_engine(tmp_path / "models")
    yield engine
    engine.close()


@pytest.fixture
def app(engine: Engine) -> Starlette:
    return app_of(engine)


def draw(app: Starlette, **fields: Any) -> dict[str, Any]:
    """The reply to a generation."""
    response = ask(app, "POST", GENERATIONS, json=TINY | fields)
    assert response.status_code == 200, response.text
    reply = response.json()
    assert isinstance(reply, dict)
    return reply


def refused(app: Starlette, path: str = GENERATIONS, **options: Any) -> dict[str, Any]:
    """The error of a refused request, with its status."""
    response = ask(app, "POST", path, **options)
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return {"status": response.status_code, **error}


def picture(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def pixels(encoded: str) -> np.ndarray:
    return np.asarray(picture(encoded).convert("RGB"))


def native(app: Starlette, **fields: Any) -> np.ndarray:
    """The pixels of the native API."""
    response = ask(app, "POST", "/generate", json=SMALL | fields)
    assert response.status_code == 200, response.text
    return pixels(response.json()["img"])


def events(text: str) -> list[dict[str, Any]]:
    """The data of a stream's events; each `event` line names its type."""
    found = []
    for part in text.split("\n\n")[:-1]:
        name, data = part.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def form(image: bytes, **fields: str) -> dict[str, Any]:
    """What httpx sends as a form."""
    return {"files": {"image": ("upload", image, "application/octet-stream")}, "data": fields}


# ------------------------------------------------------------------------------------ generations


def test_a_seed_makes_the_picture_of_the_native_api(app: Starlette) -> None:
    reply = draw(app)
    assert (pixels(reply["data"][0]["b64_json"]) == native(app)).all()
    assert reply["data"][0]["seed"] == "1"


def test_the_reply_has_what_clients_read(app: Starlette) -> None:
    reply = draw(app, n=2)
    assert isinstance(reply["created"], int)
    assert [item["seed"] for item in reply["data"]] == ["1", "2"]
    told = {key: reply[key] for key in ("background", "output_format", "quality", "size")}
    assert told == {
        "background": "opaque",
        "output_format": "png",
        "quality": "auto",
        "size": "64x64",
    }
    assert reply["usage"]["total_tokens"] == 0
    assert reply["model"] == "tiny"
    assert reply["warnings"] == []


def test_the_fields_of_the_native_api_stand_beside_those_of_the_contract(app: Starlette) -> None:
    own = {"negative_prompt": "blue", "guidance_scale": 3.0, "sampler": "ddim", "clip_skip": 2}
    theirs = {"neg": "blue", "guidance": 3.0, "sampler": "ddim", "clip": 2}
    wanted = native(app, **theirs)
    assert (pixels(draw(app, **own)["data"][0]["b64_json"]) == wanted).all()
    assert (pixels(draw(app, **theirs)["data"][0]["b64_json"]) == wanted).all()
    assert (wanted != native(app)).any()


def test_auto_is_the_models_own_and_null_is_absent(app: Starlette) -> None:
    words = dict.fromkeys(("size", "quality", "background"), "auto")
    assert draw(app, **words)["size"] == "512x512"
    empty = dict.fromkeys((*words, "user", "n", "style", "stream", "seed", "model"))
    assert draw(app, **empty)["size"] == "512x512"


@pytest.mark.parametrize(("quality", "steps"), [("low", 15), ("auto", 25), ("hd", 35)])
def test_a_quality_is_a_number_of_steps(app: Starlette, quality: str, steps: int) -> None:
    reply = draw(app, quality=quality, steps=None)
    assert f"Steps: {steps}," in infotext(reply)
    assert "Steps: 3," in infotext(draw(app, quality=quality, steps=3))


def infotext(reply: dict[str, Any]) -> str:
    return infotext_of(base64.b64decode(reply["data"][0]["b64_json"])) or ""


@pytest.mark.parametrize(("to", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_a_picture_has_the_format_and_keeps_its_settings(
    app: Starlette, to: str, kind: str
) -> None:
    reply = draw(app, output_format=to)
    assert picture(reply["data"][0]["b64_json"]).format == kind
    assert "Seed: 1," in infotext(reply)


def test_compression_makes_a_picture_smaller(app: Starlette) -> None:
    sizes = [
        len(draw(app, output_format="jpeg", output_compression=each)["data"][0]["b64_json"])
        for each in (100, 10)
    ]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("name", ["gpt-image-1", "gpt-image-2.5-flare", "dall-e-3", "DALL-E-2"])
def test_a_name_of_the_cloud_draws_with_the_default_model_and_says_so(
    engine: Engine, name: str
) -> None:
    reply = draw(app_of(engine), model=name)
    assert reply["model"] == "tiny"
    assert reply["warnings"] == [f"there is no model {name!r} here: 'tiny' draws instead"]
    strict = app_of(engine, ServerSettings(host="127.0.0.1", strict_models=True))
    error = refused(strict, json=TINY | {"model": name})
    assert (error["status"], error["code"]) == (404, "model_not_found")


def test_a_model_of_ours_may_have_a_name_of_the_cloud(tmp_path: Path) -> None:
    for name in ("a", "dall-e-3"):
        (tmp_path / f"{name}.fake").write_bytes(b"fake")
    engine = build_test_engine(tmp_path)
    try:
        reply = draw(app_of(engine), model="dall-e-3")
        assert (reply["model"], reply["warnings"]) == ("dall-e-3", [])
    finally:
        engine.close()


def test_any_other_unknown_name_is_an_error_that_names_the_nearest(app: Starlette) -> None:
    error = refused(app, json=TINY | {"model": "tinny"})
    assert (error["status"], error["code"]) == (404, "model_not_found")
    assert "did you mean 'tiny'?" in error["message"]


def test_an_empty_model_is_the_default_one(app: Starlette) -> None:
    assert draw(app, model="")["model"] == "tiny"


def test_what_cannot_be_obeyed_is_said(app: Starlette) -> None:
    warnings = draw(app, background="transparent", style="vivid", user="u")["warnings"]
    assert warnings == [
        "background 'transparent' was ignored: pictures are opaque",
        "unknown key 'style' was ignored",
    ]


# ------------------------------------------------------------------------------------------ URLs


def test_a_url_gives_the_picture_without_a_key_for_some_minutes(engine: Engine) -> None:
    app = app_of(engine, ServerSettings(host="127.0.0.1", api_key="key"))
    headers = {"Authorization": "Bearer key"}
    body = TINY | {"response_format": "url", "output_format": "webp"}
    item = ask(app, "POST", GENERATIONS, json=body, headers=headers).json()["data"][0]
    assert "b64_json" not in item
    assert item["url"].startswith("http://localhost/v1/images/")
    assert item["url"].endswith("/0.webp")
    answer = ask(app, "GET", item["url"])
    assert answer.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(answer.content)).size == (64, 64)
    for wrong in ("1.webp", "0.gif", "x", "-1.png"):
        other = ask(app, "GET", item["url"].replace("0.webp", wrong))
        assert (other.status_code, other.json()["error"]["param"]) == (404, None)


def test_pictures_of_others_have_no_url(app: Starlette) -> None:
    body = SMALL | {"on_disconnect": "finish"}
    name = ask(app, "POST", "/generate", json=body).json()["id"]
    assert ask(app, "GET", f"/jobs/{name}").json()["status"] == "final"
    assert ask(app, "GET", f"/v1/images/{name}/0.png").status_code == 404


def test_without_a_format_an_answer_has_both_but_for_models_of_the_cloud(app: Starlette) -> None:
    assert draw(app)["data"][0].keys() == {"b64_json", "url", "seed"}
    assert draw(app, response_format="b64_json")["data"][0].keys() == {"b64_json", "seed"}
    assert draw(app, model="gpt-image-1")["data"][0].keys() == {"b64_json", "seed"}


def test_a_server_that_keeps_no_results_has_no_urls_and_says_so(engine: Engine) -> None:
    app = app_of(engine, ServerSettings(host="127.0.0.1", keep_results=0))
    reply = draw(app, response_format="url")
    assert reply["data"][0].keys() == {"b64_json", "seed"}
    assert reply["warnings"] == ["response_format 'url' was ignored: this server keeps no results"]


# --------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize(("partials", "steps"), [(1, 8), (2, 9), (3, 8), (3, 3), (2, 1)])
def test_a_stream_has_partial_pictures_and_then_each_picture(
    app: Starlette, partials: int, steps: int
) -> None:
    body = TINY | {"stream": True, "partial_images": partials, "n": 2, "steps": steps}
    response = ask(app, "POST", GENERATIONS, json=body)
    assert response.headers["content-type"] == "text/event-stream"
    said = events(response.text)
    finals = [each for each in said if each["type"] == "image_generation.completed"]
    first = [each for each in said if each["seed"] == "1"][:-1]
    assert [each["seed"] for each in finals] == ["1", "2"]
    assert said[-2:] == finals
    assert [each["partial_image_index"] for each in first] == list(range(min(partials, steps - 1)))
    assert all(each["type"] == "image_generation.partial_image" for each in first)
    assert all(picture(each["b64_json"]).size == (64, 64) for each in said)
    assert finals[0]["usage"]["total_tokens"] == 0
    apart = [distance(each["b64_json"], finals[0]["b64_json"]) for each in first]
    assert apart == sorted(apart, reverse=True)


def distance(one: str, other: str) -> float:
    return float(np.abs(pixels(one).astype(float) - pixels(other)).mean())


def test_without_partial_images_a_stream_has_only_the_picture(app: Starlette) -> None:
    response = ask(app, "POST", GENERATIONS, json=TINY | {"stream": True})
    (only,) = events(response.text)
    assert (pixels(only["b64_json"]) == native(app)).all()


def test_the_stream_of_an_edit_is_named_after_it(app: Starlette) -> None:
    asked = form(png((0, 0, 255)), prompt="red", size="64x64", stream="true", partial_images="1")
    types = [each["type"] for each in events(ask(app, "POST", EDITS, **asked).text)]
    assert types == ["image_edit.partial_image", "image_edit.completed"]


def test_partial_pictures_have_the_format_too(app: Starlette) -> None:
    body = TINY | {"stream": True, "partial_images": 1, "output_format": "jpeg"}
    said = events(ask(app, "POST", GENERATIONS, json=body).text)
    assert [picture(each["b64_json"]).format for each in said] == ["JPEG", "JPEG"]


def test_an_error_inside_a_stream_is_an_event_that_raises(tmp_path: Path) -> None:
    server = Server(tmp_path, server=ServerSettings(host="127.0.0.1", heartbeat=0.05))
    loads = threading.Event()
    server.fake.loader.before_load = lambda: loads.wait(30)

    def fail(rows: int) -> None:
        raise RuntimeError("broken")

    server.fake.loader.before = fail
    body = TINY | {"stream": True}
    with (
        server.running(),
        httpx.stream("POST", server.url + GENERATIONS, json=body, timeout=60) as stream,
    ):
        assert stream.status_code == 200  # a heartbeat came
        loads.set()
        text = "".join(stream.iter_text())
    assert text.startswith(":\n\n")
    error = json.loads(text.rpartition("data: ")[2])["error"]
    assert (error["code"], error["type"]) == ("generation_failed", "server_error")
    assert text.endswith("\n\n")


# ------------------------------------------------------------------------- edits and variations


@pytest.mark.parametrize("name", ["image", "image[]", "image[0]"])
def test_an_edit_is_the_native_img2img(app: Starlette, name: str) -> None:
    start = png((0, 0, 255))
    asked: dict[str, Any] = {
        "files": {name: ("upload", start, "application/octet-stream")},
        "data": {"prompt": "red", "size": "64x64", "steps": "4", "seed": "1"},
    }
    reply = ask(app, "POST", EDITS, **asked).json()
    wanted = native(app, img=base64.b64encode(start).decode(), strength=0.8)
    assert (pixels(reply["data"][0]["b64_json"]) == wanted).all()


@pytest.mark.parametrize(("fields", "strength"), [({"input_fidelity": "high"}, 0.5), ({}, 0.8)])
def test_fidelity_is_a_strength_and_an_explicit_one_wins(
    app: Starlette, fields: dict[str, str], strength: float
) -> None:
    asked = {"prompt": "red", "size": "64x64", **fields}
    reply = ask(app, "POST", EDITS, **form(png((0, 0, 255)), **asked)).json()
    assert f"Denoising strength: {strength}," in infotext(reply)
    reply = ask(app, "POST", EDITS, **form(png((0, 0, 255)), **asked, strength="0.3")).json()
    assert "Denoising strength: 0.3," in infotext(reply)


@pytest.mark.parametrize(
    ("sides", "size"),
    [((64, 64), "512x512"), ((300, 200), "624x416"), ((10, 90), "360x728"), ((900, 10), "728x360")],
)
def test_without_a_size_an_edit_has_the_proportions_of_its_picture(
    app: Starlette, sides: tuple[int, int], size: str
) -> None:
    asked = {"prompt": "red", "steps": "1", "size": "auto"}
    reply = ask(app, "POST", EDITS, **form(png((0, 0, 255), sides), **asked)).json()
    assert reply["size"] == size


def test_an_edit_may_come_as_json(app: Starlette) -> None:
    url = "data:image/png;base64," + base64.b64encode(png((0, 0, 255))).decode()
    one = ask(app, "POST", EDITS, json=TINY | {"image": url}).json()
    several = ask(app, "POST", EDITS, json=TINY | {"image": [url, url]}).json()
    assert (pixels(one["data"][0]["b64_json"]) == pixels(several["data"][0]["b64_json"])).all()
    assert several["warnings"] == ["only the first picture is used"]


def test_a_variation_draws_the_prompt_that_its_picture_has(app: Starlette) -> None:
    first = draw(app, prompt="green", negative_prompt="sad")
    start = base64.b64decode(first["data"][0]["b64_json"])
    reply = ask(app, "POST", VARIATIONS, **form(start, size="64x64")).json()
    assert infotext(reply).startswith("green\nNegative prompt: sad\n")
    assert "Denoising strength: 0.6," in infotext(reply)


def test_a_variation_of_any_picture_draws_a_blank_prompt(app: Starlette) -> None:
    reply = ask(app, "POST", VARIATIONS, **form(png((0, 0, 255)), size="64x64")).json()
    assert infotext(reply).startswith("\nSteps: 25,")


# -------------------------------------------------------------------------------- what is refused

PICTURE = png((0, 0, 255))


@pytest.mark.parametrize(
    ("path", "options", "wanted", "words"),
    [
        (GENERATIONS, {"json": {}}, (400, "prompt"), "is required"),
        (GENERATIONS, {"json": TINY | {"prompt": " "}}, (400, "prompt"), "must not be empty"),
        (GENERATIONS, {"json": TINY | {"size": "big"}}, (400, "size"), 'must be "auto"'),
        (GENERATIONS, {"json": TINY | {"size": "63x64"}}, (400, "size"), "a multiple of 8"),
        (GENERATIONS, {"json": TINY | {"n": 17}}, (400, "n"), "from 1 to 16"),
        (GENERATIONS, {"json": TINY | {"n": "2"}}, (400, "n"), "must be a whole number"),
        (GENERATIONS, {"json": TINY | {"quality": "best"}}, (400, "quality"), "one of auto"),
        (GENERATIONS, {"json": TINY | {"output_format": "gif"}}, (400, "output_format"), "png"),
        (GENERATIONS, {"json": TINY | {"partial_images": 4}}, (400, "partial_images"), "0 to 3"),
        (GENERATIONS, {"json": TINY | {"steps": 10**40}}, (400, "steps"), "from 1 to 1000"),
        (GENERATIONS, {"json": TINY | {"sampler": "eulr"}}, (404, None), "unknown sampler"),
        (GENERATIONS, {"content": b"{"}, (400, None), "the body is not JSON"),
        (EDITS, {"json": TINY}, (400, "image"), "is required"),
        (EDITS, {"data": {"prompt": "x"}}, (400, None), "the body is not JSON"),
        (EDITS, form(b"no picture", prompt="x"), (400, "image"), "is not a picture"),
        (EDITS, form(PICTURE), (400, "prompt"), "is required"),
        (EDITS, form(PICTURE, prompt="x", n="two"), (400, "n"), "must be a whole number"),
        (
            EDITS,
            {"files": {"image": PICTURE, "mask": b"none"}, "data": {"prompt": "x"}},
            (400, "mask"),
            "is not a picture",
        ),
        (VARIATIONS, {"json": {"size": "64x64"}}, (400, "image"), "is required"),
    ],
)
def test_a_bad_request_gets_the_error_that_the_sdks_read(
    app: Starlette, path: str, options: dict[str, Any], wanted: tuple[int, str], words: str
) -> None:
    error = refused(app, path, **options)
    assert (error["status"], error["param"]) == wanted
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]


def test_guards_and_missing_paths_answer_in_the_same_form(engine: Engine) -> None:
    app = app_of(engine, ServerSettings(host="127.0.0.1", api_key="key"))
    error = refused(app, json=TINY)
    assert (error["status"], error["code"]) == (401, "invalid_api_key")
    missing = refused(app, "/v1/chat/completions", headers={"api-key": "key"})
    assert missing["status"] == 404
    stranger = {"api-key": "key", "Origin": "http://evil.example"}
    assert refused(app, json=TINY, headers=stranger)["status"] == 403


def test_a_failure_that_would_come_again_is_not_to_be_retried(tmp_path: Path) -> None:
    fake = FakePlugin()

    def fail(rows: int) -> None:
        raise RuntimeError("broken")

    fake.loader.before = fail
    engine = build_test_engine(tmp_path / "models", fake)
    try:
        response = ask(app_of(engine), "POST", GENERATIONS, json=TINY)
    finally:
        engine.close()
    assert response.status_code == 500
    assert response.headers["x-should-retry"] == "false"
    assert response.json()["error"]["type"] == "server_error"


# ---------------------------------------------------------------------------------------- models


def test_the_models_are_listed_and_found(app: Starlette) -> None:
    listed = ask(app, "GET", "/v1/models").json()
    assert listed["object"] == "list"
    names = [each["id"] for each in listed["data"]]
    assert names[-1] == "tiny"
    assert listed["data"][-1] == ask(app, "GET", "/v1/models/tiny").json()
    assert listed["data"][-1]["created"] > 1_600_000_000
    missing = ask(app, "GET", "/v1/models/tinny")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


# --------------------------------------------------------------------------------------- retries


def test_a_form_that_is_sent_again_joins_the_drawing_in_progress(tmp_path: Path) -> None:
    with Server(tmp_path).running() as server:
        url = server.url + EDITS
        asked = form(PICTURE, prompt="red", size="64x64", steps="60", strength="1")
        retries = {"x-stainless-retry-count": "0"}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, **asked, headers=retries, timeout=0.5)
        wait_until(lambda: server.forwards)
        again = httpx.post(url, **asked, headers={"x-stainless-retry-count": "1"}, timeout=60)
        assert again.status_code == 200
        assert server.forwards == 60  # the form had another boundary
        new = httpx.post(url, **asked, headers=retries, timeout=60)
        assert new.json()["data"][0]["seed"] != again.json()["data"][0]["seed"]


# ------------------------------------------------------------------------------ generated bodies

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(), SCALARS, max_size=2)
SENSIBLE: dict[str, st.SearchStrategy[Any]] = {
    "prompt": st.text(max_size=30),
    "size": st.sampled_from(["auto", "64x64", "64X64", "0x0", "99999999x8", "64x64x64"]),
    "model": st.sampled_from(["tiny", "dall-e-3", "gpt-image-1", "", "t", "GPT-4"]),
    "n": st.integers(-1, 20),
    "steps": st.integers(-1, 4),
    "stream": st.booleans(),
    "partial_images": st.integers(-1, 4),
    "output_format": st.sampled_from(["png", "jpeg", "webp", "gif"]),
    "response_format": st.sampled_from(["url", "b64_json", "xml"]),
    "quality": st.sampled_from(["low", "auto", "max", "?"]),
    "output_compression": st.integers(-1, 101),
    "seed": st.integers(-2, 2**65),
    "strength": st.floats(-0.5, 1.5),
    "image": st.just(base64.b64encode(PICTURE).decode()),
    "mask": st.none() | st.text(max_size=3),
    "hires_scale": st.floats(0, 3),
    "on_disconnect": st.sampled_from(["finish", "cancel", "?"]),
}
CHANGES = st.dictionaries(st.sampled_from(list(SENSIBLE)) | st.text(max_size=5), st.none()).flatmap(
    lambda keys: st.fixed_dictionaries({key: SENSIBLE.get(key, VALUES) | VALUES for key in keys})
)
PATHS = st.sampled_from([GENERATIONS, EDITS, VARIATIONS])
FORMATS = st.sampled_from(["json", "form"])


def check_bodies(app: Starlette, count: int) -> None:
    """No body is answered with a failure of the server, and each error has its form."""
    with live(app) as url, httpx.Client(base_url=url, timeout=60) as client:

        @settings(
            max_examples=count,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(CHANGES, PATHS, FORMATS)
        def one(changes: dict[str, Any], path: str, written: str) -> None:
            body = {"prompt": "red", "size": "64x64", "steps": 1} | changes
            if written == "form":
                files = {"image": PICTURE}
                texts = {name: str(value) for name, value in body.items()}
                response = client.post(path, files=files, data=texts)
            else:
                response = client.post(path, content=json.dumps(body))
            assert response.status_code < 500, (body, response.text)
            if response.status_code >= 400:
                error = response.json()["error"]
                assert error["message"]
                assert error.keys() == {"message", "type", "param", "code"}
            elif response.headers["content-type"] == "text/event-stream":
                assert events(response.text)[-1]["b64_json"]
            else:
                assert response.json()["data"]

        one()


@pytest.fixture
def bounded(tmp_path: Path) -> Iterator[Starlette]:
    """The application of a server on which no picture takes long."""
    limits = Limits(steps=8, images=2, pixels=128 * 128, prompt=200)
    engine = build_test_engine(tmp_path, settings=Settings(models=tmp_path, limits=limits))
    yield app_of(engine)
    engine.close()


def test_no_body_makes_the_server_fail(bounded: Starlette) -> None:
    check_bodies(bounded, 300)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_thousand_bodies_do_not_make_the_server_fail(bounded: Starlette) -> None:
    check_bodies(bounded, 20_000)
