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
from imagine_plugins.loaders.architectures import SD2
from imagine_plugins.loaders.control_slots import control_slots


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


# ------------------------------------------------------------------------------- other kinds

LORA_KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
LORA = {f"{LORA_KEY}.lora_down.weight": (4, 768), f"{LORA_KEY}.lora_up.weight": (320, 4)}


@pytest.fixture
def with_loras(tmp_path: Path, fake: FakePlugin) -> Iterator[Starlette]:
    """An application with one model, one LoRA, and a LoRA that is empty."""
    (tmp_path / "models" / "loras").mkdir(parents=True)
    said = {"ss_trigger_words": "in my style", "modelspec.title": "Style"}
    write_hollow(tmp_path / "models" / "loras" / "style.safetensors", LORA, metadata=said)
    (tmp_path / "models" / "loras" / "half.safetensors").touch()
    (tmp_path / "models" / "tiny.fake").touch()
    engine = build_test_engine(tmp_path / "models", fake)
    yield app_of(engine)
    engine.close(grace=0)


def test_loras_are_listed_by_their_kind_and_never_as_models(with_loras: Starlette) -> None:
    listed = ask(with_loras, "GET", "/models?kind=lora").json()
    assert (listed["models"], listed["default"]) == (["style"], None)
    half, style = listed["details"]
    assert (half["name"], half["kind"], half["fits"]) == ("half", "lora", [])
    assert "the file is empty" in half["problem"]
    assert (style["family"], style["kind"], style["fits"]) == ("sd1", "lora", ["sd1"])
    assert style["details"] == {
        "triggers": ["in my style"],
        "forms": ["LoRA"],
        "ranks": [4],
        "modules": 1,
        "components": ["unet"],
    }
    assert style["metadata"] == {"title": "Style"}
    plain = ask(with_loras, "GET", "/models").json()
    assert plain == ask(with_loras, "GET", "/models?kind=model").json()
    assert {each["kind"] for each in plain["details"]} == {"model"}
    for path in ("/models", "/v1/models", "/sdapi/v1/sd-models"):
        assert "tiny" in ask(with_loras, "GET", path).text
        assert "style" not in ask(with_loras, "GET", path).text
    assert ask(with_loras, "GET", "/v1/models/style").status_code == 404


def test_a_lora_is_shown_with_its_hash(with_loras: Starlette) -> None:
    shown = ask(with_loras, "GET", "/models/STYLE").json()
    assert shown == ask(with_loras, "GET", "/models/style?kind=lora").json()
    assert (shown["kind"], shown["recommended_size"]) == ("lora", None)
    assert len(shown["hash"]) == 10
    answer = ask(with_loras, "GET", "/models/style?kind=model")
    assert (answer.status_code, error_of(answer)["type"]) == (404, "unknown_name")
    assert ask(with_loras, "GET", "/models/tiny?kind=lora").status_code == 404


def test_controlnets_are_listed_by_their_kind_with_what_they_fit(
    with_loras: Starlette, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "controlnet"
    folder.mkdir()
    table = {slot.key: slot.shape for slot in control_slots(SD2.unet) or []}
    write_hollow(folder / "depth.safetensors", table)
    write_hollow(folder / "lite.safetensors", {"lllite_unet_x.down.0.weight": (2, 2)})
    listed = ask(with_loras, "GET", "/models?kind=controlnet").json()
    assert (listed["models"], listed["default"]) == (["depth", "doodle-canny"], None)
    depth, doodle, lite = listed["details"]
    assert (doodle["family"], doodle["fits"]) == ("sd", ["sd"])
    assert (depth["family"], depth["fits"], depth["problem"]) == ("sd2", ["sd2"], None)
    assert (lite["kind"], lite["fits"]) == ("controlnet", [])
    assert "ControlNet-LLLite" in lite["problem"]
    assert "depth" not in ask(with_loras, "GET", "/models").text


def test_an_unknown_kind_is_refused_by_its_field(with_loras: Starlette) -> None:
    for path in ("/models?kind=poem", "/models/style?kind="):
        assert fields_of(ask(with_loras, "GET", path)) == {
            "kind": "must be one of model, lora, embedding, vae, controlnet, upscaler"
        }


def test_embeddings_are_listed_by_their_kind_and_as_a1111_lists_them(
    with_loras: Starlette, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "embeddings"
    folder.mkdir()
    write_hollow(folder / "Bad.safetensors", {"clip_l": (4, 768), "clip_g": (4, 1280)})
    (folder / "old.pt").write_bytes(b"PK")
    listed = ask(with_loras, "GET", "/models?kind=embedding").json()
    assert listed["models"] == ["Bad"]
    bad, old = listed["details"]
    assert (bad["kind"], bad["family"], bad["fits"]) == ("embedding", "sdxl", ["sdxl"])
    assert bad["details"] == {
        "triggers": ["Bad"],
        "vectors": 4,
        "width": 2048,
        "components": ["text_encoder", "text_encoder_2"],
    }
    assert old["problem"].startswith("this is a pickle")
    assert ask(with_loras, "GET", "/models/bad").json()["kind"] == "embedding"
    none = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None}
    assert ask(with_loras, "GET", "/sdapi/v1/embeddings").json() == {
        "loaded": {"Bad": {**none, "shape": 2048, "vectors": 4}},
        "skipped": {},
    }
    refreshed = ask(with_loras, "POST", "/sdapi/v1/refresh-embeddings")
    assert (refreshed.status_code, refreshed.json()) == (200, None)


def test_a_lora_named_as_the_model_of_a_request_is_refused_as_what_it_is(
    with_loras: Starlette,
) -> None:
    for path, status in (("/generate", 422), ("/v1/images/generations", 400)):
        body = {"prompt": "a fox", "model": "style"}
        answer = ask(with_loras, "POST", path, json=body)
        said = error_of(answer)["message"]
        assert answer.status_code == status
        assert said.startswith("model 'style' cannot be used: this is a LoRA, which changes")
        assert said.endswith("it is for models of sd1")


def test_the_a1111_api_lists_loras_and_refuses_one_as_a_checkpoint(
    with_loras: Starlette,
) -> None:
    assert ask(with_loras, "GET", "/sdapi/v1/loras").json() == [
        {
            "name": "style",
            "alias": "style",
            "path": "style.safetensors",
            "metadata": {"title": "Style"},
        }
    ]
    options = {"sd_model_checkpoint": "style.safetensors [0123456789]"}
    answer = ask(with_loras, "POST", "/sdapi/v1/options", json=options)
    assert answer.status_code == 422
    assert "'style' cannot be used: this is a LoRA" in answer.json()["errors"]
    body = {"prompt": "a fox", "steps": 2, "width": 64, "height": 64, "override_settings": options}
    made = ask(with_loras, "POST", "/sdapi/v1/txt2img", json=body).json()
    assert any("this is a LoRA" in warning for warning in made["warnings"])
