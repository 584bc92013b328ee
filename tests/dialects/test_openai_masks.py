"""Masks of OpenAI's Images API over the fake model."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette

from calls import SMALL, app_of, ask
from imagine_core.testing import build_test_engine
from upscalers import noise

EDITS, GENERATIONS = "/v1/images/edits", "/v1/images/generations"
BOX = (16, 16, 40, 48)
START = noise(64, 64)
ASKED = {"prompt": "red", "size": "64x64", "steps": "4", "seed": "1", "mask_blur": "0"}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Starlette]:
    engine = build_test_engine(tmp_path / "models")
    yield app_of(engine)
    engine.close(grace=0)


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def holed(image: Image.Image, alpha: int = 0) -> bytes:
    """The picture with a transparent box, as paint programs and the API have masks."""
    whole = image.convert("RGBA")
    whole.paste((0, 0, 0, alpha), BOX)
    return encoded(whole)


HOLED = holed(Image.new("RGB", (64, 64)))
WHITE = Image.new("L", (64, 64), 0)
WHITE.paste(255, BOX)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def edit(app: Starlette, *, path: str = EDITS, **sent: Any) -> dict[str, Any]:
    answer = ask(app, "POST", path, **sent)
    assert answer.status_code == 200, answer.text
    reply: dict[str, Any] = answer.json()
    return reply


def pixels(reply: dict[str, Any]) -> np.ndarray[Any, Any]:
    data = base64.b64decode(reply["data"][0]["b64_json"])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def painted() -> np.ndarray[Any, Any]:
    return np.asarray(WHITE) > 0


def native(app: Starlette, **fields: Any) -> np.ndarray[Any, Any]:
    """What the native API draws with the same mask."""
    body = {**SMALL, "img": text(encoded(START)), "mask_blur": 0, "strength": 0.8, **fields}
    reply = ask(app, "POST", "/generate", json=body).json()
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(reply["img"]))))


@pytest.mark.parametrize("mask", [HOLED, encoded(WHITE)], ids=["transparent", "white"])
def test_a_mask_of_a_form_repaints_what_it_says_and_nothing_else(
    app: Starlette, mask: bytes
) -> None:
    reply = edit(app, files={"image": encoded(START), "mask": mask}, data=ASKED)
    assert reply["warnings"] == []
    kept = pixels(reply)
    assert np.array_equal(kept[~painted()], np.asarray(START)[~painted()])
    assert (kept[painted()] != np.asarray(START)[painted()]).any(axis=1).mean() > 0.9
    assert np.array_equal(kept, native(app, mask=text(mask)))


def test_a_mask_in_json_is_base64_and_our_fields_stand_beside_it(app: Starlette) -> None:
    body = {"prompt": "red", "size": "64x64", "steps": 4, "seed": 1, "image": text(encoded(START))}
    own: dict[str, Any] = {"mask_fill": "noise", "mask_invert": True, "mask_padding": 8}
    own |= {"mask_blur": 0}
    reply = edit(app, json={**body, **own, "mask": text(HOLED)})
    assert np.array_equal(pixels(reply), native(app, mask=text(HOLED), **own))
    wide = edit(app, json={**body, "extend": [0, 8, 16, 0], "mask_blur": 0})
    assert pixels(wide).shape == (72, 80, 3)
    assert np.array_equal(pixels(wide)[8:, :64], np.asarray(START))


def test_of_a_picture_without_a_mask_the_transparent_parts_are_repainted(app: Starlette) -> None:
    reply = edit(app, files={"image": holed(START)}, data=ASKED)
    assert reply["warnings"] == [
        "without a mask, the transparent parts of the picture are repainted"
    ]
    kept = pixels(reply)
    assert np.array_equal(kept[~painted()], np.asarray(START)[~painted()])
    assert np.array_equal(kept, native(app, mask=text(HOLED), mask_fill="average"))


@pytest.mark.parametrize(
    ("image", "more"),
    [
        (encoded(START), {}),
        (holed(START, alpha=128), {}),
        (holed(START), {"model": "gpt-image-1"}),
    ],
    ids=["opaque", "half transparent", "newer model"],
)
def test_any_other_picture_without_a_mask_is_drawn_over_as_a_whole(
    app: Starlette, image: bytes, more: dict[str, str]
) -> None:
    reply = edit(app, files={"image": image}, data={**ASKED, **more})
    assert not any("transparent" in warning for warning in reply["warnings"])
    changed = (pixels(reply) != np.asarray(START)).any(axis=2)
    assert changed[~painted()].mean() > 0.9


def test_of_any_size_the_outside_is_the_picture_at_that_size(app: Starlette) -> None:
    large = START.resize((128, 96))
    data = {key: value for key, value in ASKED.items() if key != "size"}
    mask = Image.new("L", large.size, 0)
    mask.paste(255, (0, 0, 40, 40))
    for size in ({}, {"size": "auto"}):
        sent = {"image": encoded(large), "mask": encoded(mask)}
        reply = edit(app, files=sent, data={**data, **size})
        drawn = pixels(reply)
        height, width = drawn.shape[:2]
        assert (width % 8, height % 8, round(width / height, 1)) == (0, 0, 1.3)
        whole = np.asarray(large.resize((width, height), Image.Resampling.LANCZOS))
        assert np.array_equal(drawn[height // 2 :], whole[height // 2 :])


def test_a_mask_without_a_picture_to_edit_is_told_of(app: Starlette) -> None:
    body = {"prompt": "red", "size": "64x64", "steps": 1, "mask": text(HOLED)}
    reply = edit(app, path=GENERATIONS, json=body)
    assert reply["warnings"] == ["'mask' was ignored: /v1/images/edits takes it"]
    empty = edit(app, files={"image": encoded(START), "mask": b""}, data=ASKED)
    assert empty["warnings"] == ["mask_blur changes nothing without mask or extend"]
    missing = ask(app, "POST", EDITS, json=body)
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "image")
