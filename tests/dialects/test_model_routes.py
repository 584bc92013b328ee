"""The native routes about one model: its details, its load and its unloading."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette

from calls import SMALL, app_of, ask, error_of, fields_of, lines_of
from checkpoints import SD1, SDXL, shapes, write_hollow
from imagine_core.testing import FakePlugin, build_test_engine


@pytest.fixture
def app(tmp_path: Path, fake: FakePlugin) -> Iterator[Starlette]:
    """An application whose one model tells how its load goes."""
    fake.loader.tells_progress = True
    engine = build_test_engine(tmp_path / "models", fake)
    yield app_of(engine)
    engine.close(grace=0)


def test_a_model_is_shown_with_its_hash(app: Starlette) -> None:
    answer = ask(app, "GET", "/models/TINY")
    assert answer.status_code == 200
    assert answer.json()["hash"] == hashlib.sha256(b"fake").hexdigest()[:10]
    listed = ask(app, "GET", "/models").json()["details"]
    tiny = next(each for each in listed if each["name"] == "tiny")
    assert answer.json() == {**tiny, "hash": answer.json()["hash"]}


def test_checkpoints_are_listed_and_of_other_files_is_said_what_they_are(
    tmp_path: Path, fake: FakePlugin
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    write_hollow(
        folder / "xl.safetensors", shapes(SDXL), metadata={"modelspec.license": "OpenRAIL"}
    )
    write_hollow(folder / "style.safetensors", {"a.lora_up.weight": (4, 4)})
    write_hollow(folder / "half.safetensors", shapes(SD1))
    os.truncate(folder / "half.safetensors", 10**9)
    (folder / "page.safetensors").write_text("<!doctype html>")
    (folder / "old.ckpt").write_bytes(b"PK")
    engine = build_test_engine(folder, fake)
    answer = ask(app_of(engine), "GET", "/models").json()
    engine.close(grace=0)
    assert [name for name in answer["models"] if name != "doodle"] == ["xl"]
    found = {each["name"]: each for each in answer["details"]}
    assert found["xl"]["recommended_size"] == [1024, 1024]
    assert found["xl"]["metadata"] == {"license": "OpenRAIL"}
    for name, words in (
        ("style", "this is a LoRA"),
        ("half", "the download is incomplete"),
        ("page", "the file is a web page"),
        ("old.ckpt", "this is a pickle"),
    ):
        assert words in found[name]["problem"]


def test_an_unknown_model_is_answered_with_the_nearest(app: Starlette) -> None:
    for method, path, options in (
        ("GET", "/models/tinny", {}),
        ("POST", "/stop", {"json": {"model": "tinny"}}),
    ):
        answer = ask(app, method, path, **options)
        assert answer.status_code == 404
        assert error_of(answer)["nearest"] == ["tiny"]


def test_a_load_shows_in_the_stream_of_who_asks_for_progress(app: Starlette) -> None:
    text = ask(app, "POST", "/generate", json={**SMALL, "progress": True}).text
    loading = [line for line in lines_of(text) if line["status"] == "loading"]
    fractions = [line["fraction"] for line in loading if "fraction" in line]
    assert loading[0] == {"id": loading[0]["id"], "status": "loading"}
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_stop_lets_go_of_a_model(app: Starlette) -> None:
    assert ask(app, "POST", "/generate", json=SMALL).status_code == 200
    loaded = ask(app, "GET", "/ps").json()["models"]
    assert [model["name"] for model in loaded] == ["tiny"]
    assert 0 < loaded[0]["expires_in"] <= 300
    for status in ("unloaded", "not loaded"):
        answer = ask(app, "POST", "/stop", json={"model": "tiny"})
        assert answer.json() == {"model": "tiny", "status": status}
    assert ask(app, "GET", "/ps").json()["models"] == []


@pytest.mark.parametrize("body", [{}, {"model": 5}, {"model": None}, {"model": ""}])
def test_stop_wants_the_name_of_a_model(app: Starlette, body: dict[str, object]) -> None:
    assert "model" in fields_of(ask(app, "POST", "/stop", json=body))


def test_a_model_that_can_never_fit_is_a_507(
    app: Starlette, tmp_path: Path, fake: FakePlugin
) -> None:
    fake.device.free = lambda: 1000
    with (tmp_path / "models" / "huge.fake").open("wb") as file:
        file.truncate(10**9)
    answer = ask(app, "POST", "/generate", json={**SMALL, "model": "huge"})
    assert answer.status_code == 507
    assert "take a smaller model" in error_of(answer)["message"]
