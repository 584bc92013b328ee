"""LoRAs and VAEs come through every door, and back in every picture."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette

from calls import app_of, ask, fields_of, live
from imagine_core import GenerationRequest, GenerationResult, ResolvedRequest
from imagine_core.engine import Engine
from imagine_core.pictures.infotext import read_infotext
from imagine_core.pictures.metadata import infotext_of, read_meta
from imagine_core.testing import FakePlugin, build_test_engine, draw_one
from imagine_core.types import LoraUse
from imagine_plugins.dialects.native.client import NativeClient

WANTED = GenerationRequest(
    prompt="red",
    loras=(LoraUse(name="ink", weight=0.5), LoraUse(name="wool", weight=-1.0, text_weight=0.25)),
    sampler="test euler",
    guidance_scale=2.0,
    steps=4,
    width=64,
    height=64,
    seed=1,
)
TAGS = "<lora:ink:0.5> <lora:wool:0.25:-1>"
SMALL = {"steps": 4, "seed": 1, "width": 64, "height": 64}
NATIVE = {**SMALL, "sampler": "test euler", "guidance": 2.0}
OURS = [{"name": "ink", "weight": 0.5}, {"name": "wool", "weight": -1.0, "text_weight": 0.25}]
BODIES: dict[str, tuple[str, dict[str, Any], Callable[[Any], str]]] = {
    "native, field": ("/generate", {**NATIVE, "prompt": "red", "loras": OURS}, lambda a: a["img"]),
    "native, tags": ("/generate", {**NATIVE, "prompt": f"red {TAGS}"}, lambda a: a["img"]),
    "OpenAI, field": (
        "/v1/images/generations",
        {**NATIVE, "prompt": "red", "loras": OURS},
        lambda a: a["data"][0]["b64_json"],
    ),
    "OpenAI, tags": (
        "/v1/images/generations",
        {**NATIVE, "prompt": f"red {TAGS}"},
        lambda a: a["data"][0]["b64_json"],
    ),
    "A1111, tags": (
        "/sdapi/v1/txt2img",
        {**SMALL, "prompt": f"red {TAGS}", "sampler_name": "Test Euler", "cfg_scale": 2.0},
        lambda a: a["images"][0],
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with two LoRAs and a VAE."""
    folder = tmp_path / "stocked"
    for name in ("tiny.fake", "loras/ink.fake", "loras/wool.fake", "vae/negative.fake"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture
def engine(folder: Path, fake: FakePlugin) -> Iterator[Engine]:
    engine = build_test_engine(folder, fake)
    yield engine
    engine.close(grace=0)


@pytest.fixture
def app(engine: Engine) -> Starlette:
    return app_of(engine)


def pixels(png: bytes) -> bytes:
    return Image.open(io.BytesIO(png)).convert("RGB").tobytes()


@pytest.mark.parametrize("door", BODIES)
def test_the_picture_of_a_request_with_loras_is_the_same_through_every_door(
    app: Starlette, engine: Engine, door: str
) -> None:
    path, body, picture = BODIES[door]
    answer = ask(app, "POST", path, json=body)
    assert answer.status_code == 200, answer.text
    png = base64.b64decode(picture(answer.json()))
    wanted = draw_one(engine, WANTED)
    assert pixels(png) == wanted.images[0].image.tobytes()
    text = infotext_of(png) or ""
    assert text.startswith(f"red {TAGS}")
    meta = read_infotext(text)
    assert meta is not None
    assert (meta["prompt"], meta["loras"]) == ("red", OURS)


def test_the_answer_names_what_changed_the_model(app: Starlette) -> None:
    body = {**NATIVE, "prompt": f"red {TAGS}", "vae": "Negative"}
    answer = ask(app, "POST", "/generate", json=body).json()
    assert answer["prompt"] == "red"
    assert answer["loras"] == OURS
    assert answer["vae"] == "negative"
    hashes = dict.fromkeys(("lora:ink", "lora:wool", "vae"), "abcdef012345")
    assert answer["hashes"] == hashes
    plain = ask(app, "POST", "/generate", json={**NATIVE, "prompt": "red"}).json()
    assert not {"prompt", "loras", "vae", "hashes"} & set(plain)


def test_a_picture_has_the_names_weights_and_hashes(app: Starlette, tmp_path: Path) -> None:
    body = {**NATIVE, "prompt": "red", "loras": OURS, "vae": "negative"}
    png = base64.b64decode(ask(app, "POST", "/generate", json=body).json()["img"])
    text = infotext_of(png) or ""
    assert 'Lora hashes: "ink: abcdef012345, wool: abcdef012345"' in text
    assert "VAE: negative" in text
    (tmp_path / "a.png").write_bytes(png)
    meta = read_meta(tmp_path / "a.png")
    assert (meta["prompt"], meta["loras"], meta["vae"]) == ("red", OURS, "negative")
    assert meta["hashes"]["lora:ink"] == "abcdef012345"


@pytest.mark.parametrize("path", ["/generate", "/v1/images/generations", "/sdapi/v1/txt2img"])
def test_a_lora_that_is_not_there_is_refused_by_name(app: Starlette, path: str) -> None:
    answer = ask(app, "POST", path, json={**SMALL, "prompt": "red <lora:inc:1>"})
    assert answer.status_code in (400, 404, 422)
    assert "'inc'" in answer.text
    assert "'ink'" in answer.text


def test_a_tag_that_cannot_be_read_is_an_error_of_the_prompt(app: Starlette) -> None:
    answer = ask(app, "POST", "/generate", json={**NATIVE, "prompt": "red <lora:ink:much>"})
    assert "'much' is no number" in fields_of(answer)["prompt"]


def test_a_remote_run_knows_what_changed_the_model(app: Starlette) -> None:
    asked = replace(WANTED, prompt=f"red {TAGS}", loras=(), negative_prompt="ugly <lora:ink:1>")

    async def last(url: str) -> Any:
        return [event async for event in NativeClient(url).generate(asked)][-1]

    with live(app) as url:
        result = asyncio.run(last(url))
    assert isinstance(result, GenerationResult)
    expected = replace(WANTED, prompt="red", negative_prompt="ugly ", model="tiny")
    assert result.request == ResolvedRequest.of(expected, {})
    assert result.hashes == {"lora:ink": "abcdef012345", "lora:wool": "abcdef012345"}
