"""A1111's API over a real engine with a fake model."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.applications import Starlette

from calls import SMALL, app_of, ask, live
from gates import Gate
from imagine_core.engine import Engine
from imagine_core.errors import Busy
from imagine_core.models import hashing
from imagine_core.settings import Limits, ServerSettings, Settings
from imagine_core.testing import FakePlugin, build_test_engine
from imagine_core.web.callers import MOST, Newest
from imagine_plugins.dialects.a1111 import extras
from imagine_plugins.dialects.a1111.controlnet import UNIT
from imagine_plugins.dialects.a1111.fields import IGNORED, IGNORED_HIRES, ROWS
from slow_server import wait_until

V1 = "/sdapi/v1/"
BODY: dict[str, Any] = {"prompt": "red", "width": 64, "height": 64, "steps": 4, "seed": 1}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine for all tests that only ask it."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("tiny.fake", "other.fake"):
        (folder / name).write_bytes(b"fake")
    (folder / "vae").mkdir()
    (folder / "vae" / "soft.fake").write_bytes(b"fake")
    limits = Limits(steps=50, images=4, pixels=512 * 512)
    engine = build_test_engine(
        folder, settings=Settings(models=folder, default_model="tiny", limits=limits)
    )
    yield engine
    engine.close(grace=0)


@pytest.fixture
def app(engine: Engine) -> Starlette:
    """An application over it, whose clients have set nothing yet."""
    return app_of(engine)


def draw(app: Starlette, **body: Any) -> dict[str, Any]:
    """The answer, with `info` read; of img2img if there is a picture to start from."""
    path = "img2img" if body.get("init_images") else "txt2img"
    answer = ask(app, "POST", V1 + path, json={**BODY, **body})
    assert answer.status_code == 200, answer.text
    reply: dict[str, Any] = answer.json()
    assert isinstance(reply["info"], str)
    return {**reply, "info": json.loads(reply["info"])}


def refusal(app: Starlette, path: str, status: int, **body: Any) -> str:
    """What an error says."""
    answer = ask(app, "POST", V1 + path, json=body)
    assert answer.status_code == status, answer.text
    return said(answer)


def said(answer: httpx.Response) -> str:
    error = answer.json()
    assert set(error) == {"error", "detail", "body", "errors"}
    assert error["detail"] == error["errors"] != ""
    assert error["body"] == ""
    return str(error["detail"])


def pixels(encoded: str) -> bytes:
    return Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))).tobytes()


def png(colour: str = "red", size: tuple[int, int] = (64, 64)) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


# --------------------------------------------------------------------------------- the picture


def test_a_request_may_go_on_without_its_client(app: Starlette) -> None:
    body = {**BODY, "on_disconnect": "finish"}
    answer = ask(app, "POST", V1 + "txt2img", json=body)
    kept = ask(app, "GET", f"/jobs/{answer.headers['x-job-id']}").json()
    assert pixels(kept["img"]) == pixels(answer.json()["images"][0])
    assert "must be" in refusal(app, "txt2img", 422, **BODY, on_disconnect="stay")


def test_the_picture_of_a_seed_is_that_of_the_native_api(app: Starlette) -> None:
    body = {
        "sampler_name": "DPM++ 2M",
        "scheduler": "Karras",
        "cfg_scale": 5,
        "negative_prompt": "b",
    }
    mine = draw(app, **body, n_iter=2)
    wire = {"sampler": "dpm++ 2m", "schedule": "karras", "guidance": 5, "neg": "b", "n": 2}
    native = ask(app, "POST", "/generate", json={**SMALL, **wire}).json()
    assert [pixels(each) for each in mine["images"]] == [pixels(i["img"]) for i in native["images"]]
    again = ask(app, "POST", "/generate", json={**SMALL, "sampler": "euler"}).json()
    assert pixels(draw(app)["images"][0]) == pixels(again["img"])


def test_the_picture_of_img2img_is_that_of_the_native_api(app: Starlette) -> None:
    mine = draw(app, init_images=[f"data:image/png;base64,{png()}"])
    wire = {"sampler": "euler", "img": png(), "strength": 0.75}
    native = ask(app, "POST", "/generate", json={**SMALL, **wire}).json()
    assert pixels(mine["images"][0]) == pixels(native["img"])
    assert mine["info"]["denoising_strength"] == 0.75


def test_info_has_all_that_clients_read(app: Starlette) -> None:
    reply = draw(app, batch_size=2, n_iter=2, seed=7, sampler_name="Euler a")
    info = reply["info"]
    assert len(reply["images"]) == len(info["infotexts"]) == 4
    assert info["seed"] == 7
    assert info["all_seeds"] == [7, 8, 9, 10]
    assert info["all_prompts"] == ["red"] * 4
    assert len(info["all_negative_prompts"]) == len(info["all_subseeds"]) == 4
    assert info["infotexts"][3].startswith("red\nSteps: 4, Sampler: Euler a, ")
    assert "Seed: 10" in info["infotexts"][3]
    wanted = {"width": 64, "height": 64, "sampler_name": "Euler a", "cfg_scale": 7.0, "steps": 4}
    wanted |= {"sd_model_name": "tiny", "batch_size": 2, "clip_skip": 1, "index_of_first_image": 0}
    assert {key: info[key] for key in wanted} == wanted
    for key in ("sd_model_hash", "denoising_strength", "job_timestamp", "version", "styles"):
        assert key in info
    assert reply["parameters"]["n_iter"] == 2
    assert reply["parameters"]["init_images"] is reply["parameters"]["mask"] is None
    assert reply["warnings"] == info["warnings"] == []


def test_defaults_are_those_of_a1111(app: Starlette) -> None:
    answer = ask(app, "POST", V1 + "txt2img", json={"send_images": False})
    info = json.loads(answer.json()["info"])
    wanted = {"prompt": "", "steps": 50, "cfg_scale": 7.0, "width": 512, "height": 512}
    assert {key: info[key] for key in wanted} == wanted
    assert info["sampler_name"] == "Euler"
    assert 0 <= info["seed"] < 2**32
    assert answer.json()["images"] == []
    assert len(info["infotexts"]) == 1


def test_values_may_come_as_pydantic_takes_them(app: Starlette) -> None:
    plain = draw(app, cfg_scale=5)
    loose = draw(app, steps="4", width=64.0, cfg_scale="5", seed="1", batch_size="1", n_iter=True)
    assert pixels(loose["images"][0]) == pixels(plain["images"][0])
    nulls: dict[str, Any] = dict.fromkeys(row.key for row in ROWS if row.key not in BODY)
    assert draw(app, **nulls)["info"]["steps"] == 4
    for seed in (-1, "", None, "-1"):
        assert draw(app, seed=seed)["info"]["seed"] >= 0
    assert draw(app, send_images="false")["images"] == []


def test_wrong_values_are_refused_under_the_names_of_the_client(app: Starlette) -> None:
    wrong = {"steps": [], "cfg_scale": "much", "width": 65, "sampler_name": {}, "seed": "x"}
    words = refusal(app, "txt2img", 422, **wrong)
    for key in wrong:
        assert f"{key}: " in words
    assert "batch_size x n_iter: " in refusal(app, "txt2img", 422, **BODY, batch_size=3, n_iter=2)
    assert "cfg_scale: " in refusal(app, "txt2img", 422, cfg_scale=1001)
    assert "override_settings: must be" in refusal(app, "txt2img", 422, override_settings=[1])
    hires: dict[str, Any] = {**BODY, "enable_hr": True}
    assert "hr_scale: must be from 1 to 8" in refusal(app, "txt2img", 422, **hires, hr_scale=0.5)
    for field in ("hr_resize_x", "hr_resize_y"):
        words = refusal(app, "txt2img", 422, **hires, **{field: 8})
        assert f"{field}: must be from 64 to 512" in words
        assert "hr_scale" not in words
    empty = ask(app, "POST", V1 + "txt2img", content="nonsense")
    assert empty.status_code == 400
    assert "not JSON" in said(empty)


def test_img2img_needs_a_picture(app: Starlette) -> None:
    pictures: Any
    for pictures in (None, [], ""):
        words = refusal(app, "img2img", 404, init_images=pictures)
        assert words == "Init image not found"
    assert refusal(app, "img2img", 404) == "Init image not found"
    for pictures in ([None], ["?"], [[]], ["AAAA"], ["http://localhost/a.png"]):
        assert "init_images: " in refusal(app, "img2img", 422, **BODY, init_images=pictures)
    two = draw(app, init_images=[png(), png("blue")], include_init_images=True)
    assert two["warnings"] == ["of several init_images the first one is taken"]
    assert two["parameters"]["init_images"] == [png()]  # the one that was used
    plain = ask(app, "POST", V1 + "txt2img", json={**BODY, "init_images": ["?"]})
    assert plain.status_code == 200


@pytest.mark.parametrize("field", ["cfg_scale", "hr_scale", "denoising_strength", "steps"])
@pytest.mark.parametrize("digits", [309, 400, 4300, 5000])
def test_numbers_beyond_all_bounds_are_refused(app: Starlette, field: str, digits: int) -> None:
    for sign in ("", "-"):
        body = {**BODY, field: sign + "1" * digits}
        assert f"{field}: must be" in refusal(app, "txt2img", 422, **body)


def infotext_png(text: str) -> str:
    """A small picture with an infotext, compressed, in base64."""
    start = io.BytesIO()
    info = PngInfo()
    info.add_text("parameters", text, zip=True)
    Image.new("RGB", (8, 8)).save(start, "PNG", pnginfo=info)
    return base64.b64encode(start.getvalue()).decode()


def test_an_infotext_longer_than_any_is_refused(app: Starlette) -> None:
    fine = infotext_png("red\nSteps: 5, Size: 8x8, Seed: 1, a: " + "x" * 10_000)
    answer = ask(app, "POST", V1 + "png-info", json={"image": fine})
    assert answer.json()["parameters"]["Steps"] == "5"
    long = infotext_png("Steps: 5, Size: 8x8, Seed: 1, a: " + "x" * 2**20)
    assert "too large" in refusal(app, "png-info", 422, image=long)


# --------------------------------------------------------------------- names, warnings, options


def test_a_page_of_a_file_sets_no_options(app: Starlette) -> None:
    body = {
        **BODY,
        "override_settings": {"CLIP_stop_at_last_layers": 2},
        "override_settings_restore_afterwards": False,
    }
    answer = ask(app, "POST", V1 + "txt2img", json=body, headers={"Origin": "null"})
    assert answer.json()["warnings"] == [
        "pages opened from files set no options: override_settings hold once"
    ]
    assert ask(app, "GET", V1 + "options").json()["CLIP_stop_at_last_layers"] == 1


@pytest.mark.parametrize(
    "value",
    [json.loads("[" * 100 + "]" * 100), "x" * 2**15, [{}] * 16_000],
    ids=["deep", "long", "wide"],
)
def test_options_that_are_too_much_to_keep_are_refused(app: Starlette, value: object) -> None:
    assert "must be finite, nested" in refusal(app, "options", 422, x=value)
    assert "x" not in ask(app, "GET", V1 + "options").json()


@pytest.mark.parametrize(
    ("sampler", "scheduler", "label", "schedule"),
    [
        ("DPM++ 2M Karras", None, "DPM++ 2M", "Karras"),
        ("DPM++ 2M Karras", "Automatic", "DPM++ 2M", "Karras"),
        ("dpmpp_2m", "SGM Uniform", "DPM++ 2M", "SGM Uniform"),
        ("Euler", "KL Optimal", "Euler", "KL Optimal"),
        ("Euler", "kl_optimal", "Euler", "KL Optimal"),
        ("Euler a", "automatic", "Euler a", None),
    ],
)
def test_samplers_and_schedulers_go_by_name_and_label(
    app: Starlette, sampler: str, scheduler: str | None, label: str, schedule: str | None
) -> None:
    reply = draw(app, sampler_name=sampler, scheduler=scheduler)
    assert reply["warnings"] == []
    assert reply["info"]["sampler_name"] == label
    assert (f"Schedule type: {schedule}," in reply["info"]["infotexts"][0]) == (
        schedule is not None
    )


def test_every_listed_sampler_and_scheduler_can_be_asked_for(app: Starlette) -> None:
    for sampler in ask(app, "GET", V1 + "samplers").json():
        assert draw(app, sampler_name=sampler["name"])["warnings"] == []
    for scheduler in ask(app, "GET", V1 + "schedulers").json():
        for name in (scheduler["name"], scheduler["label"]):
            assert draw(app, sampler_name="Euler", scheduler=name)["warnings"] == []


def test_what_is_unknown_is_drawn_with_the_default_and_a_warning(app: Starlette) -> None:
    reply = draw(app, sampler_name="Eulerish")
    assert reply["info"]["sampler_name"] == "DPM++ 2M"
    assert len(reply["warnings"]) == 1
    assert "unknown sampler 'Eulerish'" in reply["warnings"][0]
    reply = draw(app, sampler_name="Euler", scheduler="Zigzag")
    assert reply["info"]["sampler_name"] == "Euler"
    assert "unknown schedule 'zigzag'" in reply["warnings"][0]
    reply = draw(app, override_settings={"sd_model_checkpoint": "nobody.ckpt"})
    assert reply["info"]["sd_model_name"] == "tiny"
    assert "unknown model 'nobody.ckpt'" in reply["warnings"][0]


def test_a_sampler_with_a_thousand_words_is_looked_up_quickly(app: Starlette) -> None:
    began = time.monotonic()
    assert draw(app, sampler_name="euler " * 3000)["warnings"] != []
    assert time.monotonic() - began < 60


def test_each_field_that_is_not_obeyed_is_named_if_it_asks_for_something(app: Starlette) -> None:
    for key in IGNORED:
        asked: object = {"x": {"args": [1]}} if key == "override_settings" else 7
        (warning,) = draw(app, **{key: asked})["warnings"]
        assert warning.startswith(key)
        assert warning.endswith("has no effect here")
    for key in IGNORED_HIRES:
        assert draw(app, **{key: 7})["warnings"] == []
        assert any(w.startswith(key) for w in draw(app, **{key: 7}, enable_hr=True)["warnings"])
    quiet: dict[str, Any] = {"styles": [], "tiling": False, "eta": 1.0, "s_noise": 1.0}
    quiet |= {"alwayson_scripts": {}, "subseed": 5, "override_settings": {"sd_vae": "Automatic"}}
    quiet |= {"save_images": True, "do_not_save_grid": False, "hr_upscaler": "Latent", "foo": [1]}
    assert draw(app, **quiet)["warnings"] == []
    units = draw(app, alwayson_scripts={"ADetailer": {"args": [False]}})
    assert units["warnings"] == ["alwayson_scripts ADetailer has no effect here"]
    assert refusal(app, "txt2img", 422, script_name="X/Y") == "script_name: Script 'X/Y' not found"


def test_clip_skip_comes_from_three_places(app: Starlette) -> None:
    key = "CLIP_stop_at_last_layers"
    assert draw(app, clip_skip=2)["info"]["clip_skip"] == 2
    assert draw(app, clip_skip=2, override_settings={key: 3})["info"]["clip_skip"] == 3
    ask(app, "POST", V1 + "options", json={key: 4})
    assert draw(app)["info"]["clip_skip"] == 4
    assert draw(app, clip_skip=2)["info"]["clip_skip"] == 2
    assert "clip_skip: must be" in refusal(app, "options", 422, **{key: 0})
    assert ask(app, "GET", V1 + "options").json()[key] == 4


def test_a_model_goes_by_title_name_stem_and_hash(
    app: Starlette, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "imagine_core.models.catalogue.known_hash",
        lambda path: "abcdef0123" if path.stem == "other" else None,
    )
    for name in ("other.fake", "OTHER", "other.ckpt", "other.fake [abcdef0123]", "other [0]",
                 "abcdef0123", "abcdef0123" + "0" * 54, "gone.fake [abcdef0123]"):  # fmt: skip
        reply = draw(app, override_settings={"sd_model_checkpoint": name})
        assert (reply["info"]["sd_model_name"], reply["warnings"]) == ("other", []), name
    assert draw(app)["info"]["sd_model_name"] == "tiny"  # that held for the request


def test_options_are_the_clients_own(app: Starlette) -> None:
    mine, others = {"Authorization": "Basic bWU6"}, {"Authorization": "Basic b3RoZXI6"}
    titles = [each["title"] for each in ask(app, "GET", V1 + "sd-models").json()]
    assert {"tiny.fake", "other.fake"} <= set(titles)
    read = ask(app, "GET", V1 + "options", headers=mine).json()
    assert read["sd_model_checkpoint"] == "tiny.fake"
    read |= {"sd_model_checkpoint": "other.fake", "colour": ["any"], "forge_preset": "sd"}
    answer = ask(app, "POST", V1 + "options", json=read, headers=mine)
    assert (answer.status_code, answer.json()) == (200, None)
    again = ask(app, "GET", V1 + "options", headers=mine).json()
    assert again["sd_model_checkpoint"] == "other.fake"
    assert again["colour"] == ["any"]
    assert "forge_preset" not in again
    assert (
        ask(app, "GET", V1 + "options", headers=others).json()["sd_model_checkpoint"] == titles[-1]
    )
    drawn = [ask(app, "POST", V1 + "txt2img", json=BODY, headers=h).json() for h in (mine, others)]
    assert [json.loads(each["info"])["sd_model_name"] for each in drawn] == ["other", "tiny"]


def test_vaes_are_listed_and_go_by_file_name_in_options_and_overrides(
    app: Starlette, engine: Engine
) -> None:
    listed = [{"model_name": "soft.fake", "filename": "soft.fake"}]
    assert ask(app, "GET", V1 + "sd-vae").json() == listed

    def drawn(**override: object) -> tuple[object, list[str]]:
        reply = draw(app, override_settings=override)
        return reply["info"]["sd_vae_name"], reply["warnings"]

    for name, vae in (
        ("soft.fake", "soft"), ("SOFT", "soft"), ("soft.pt", "soft"), ("soft", "soft"),
        ("Automatic", None), ("", None), ("None", None),
    ):  # fmt: skip
        assert drawn(sd_vae=name) == (vae, []), name
    unknown = "unknown VAE 'sfot'; did you mean 'soft'?; the model's own draws instead"
    assert drawn(sd_vae="sfot") == (None, [unknown])

    assert ask(app, "GET", V1 + "options").json()["sd_vae"] == "Automatic"
    assert ask(app, "POST", V1 + "options", json={"sd_vae": "soft.fake"}).status_code == 200
    assert ask(app, "GET", V1 + "options").json()["sd_vae"] == "soft.fake"
    assert drawn()[0] == "soft"
    assert drawn(sd_vae="None")[0] is None
    assert drawn(sd_vae="Automatic")[0] is None
    assert "did you mean 'soft'" in refusal(app, "options", 404, sd_vae="sofd")
    assert ask(app, "POST", V1 + "options", json={"sd_vae": "Automatic"}).status_code == 200
    assert drawn()[0] is None


def test_a_vae_of_other_models_is_refused_by_the_clients_name_of_it(
    app: Starlette, engine: Engine
) -> None:
    (engine.catalogue.folder / "vae" / "other.fake").write_bytes(b"fake")
    words = refusal(app, "txt2img", 422, **BODY, override_settings={"sd_vae": "other"})
    (engine.catalogue.folder / "vae" / "other.fake").unlink()
    assert words.startswith("sd_vae: 'other' is for")


def test_an_unknown_model_in_the_options_is_not_found(app: Starlette) -> None:
    words = refusal(app, "options", 404, sd_model_checkpoint="othr.fake")
    assert "did you mean 'other.fake'" in words
    assert refusal(app, "options", 422, big="x" * 70_000).startswith("options: must be finite")
    infinite = ask(app, "POST", V1 + "options", content='{"x": 1e999}')
    assert infinite.status_code == 422
    assert "x" not in ask(app, "GET", V1 + "options").json()


def test_overrides_stay_if_they_are_asked_to(app: Starlette) -> None:
    stays = {"override_settings_restore_afterwards": False}
    draw(app, override_settings={"sd_model_checkpoint": "other"}, **stays)
    assert draw(app)["info"]["sd_model_name"] == "other"
    assert ask(app, "GET", V1 + "options").json()["sd_model_checkpoint"] == "other.fake"


def test_only_the_newest_clients_are_remembered() -> None:
    newest: Newest[int, int] = Newest()
    for number in range(MOST + 5):
        newest.put(number, number)
    assert len(newest) == MOST
    assert 4 not in newest
    assert 5 in newest


def test_titles_stay_when_a_hash_becomes_known(
    app: Starlette, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ask(app, "GET", V1 + "sd-models").json()
    assert {each["hash"] for each in before} == {None}
    monkeypatch.setattr(hashing, "cache_file", lambda: tmp_path / "hashes.json")
    for info in engine.catalogue.usable():
        hashing.file_hash(info.path)
    after = ask(app, "GET", V1 + "sd-models").json()
    assert [each["title"] for each in after] == [each["title"] for each in before]
    assert any(each["hash"] for each in after)


# --------------------------------------------------------------------------- lists and the rest


@pytest.mark.parametrize(
    "name",
    ["hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles",
     "script-info", "latent-upscale-modes"],
)  # fmt: skip
def test_lists_that_are_not_there_are_empty(app: Starlette, name: str) -> None:
    answer = ask(app, "GET", V1 + name)
    assert (answer.status_code, answer.json()) == (200, [])


def test_small_answers_are_what_clients_expect(app: Starlette) -> None:
    def get(path: str) -> Any:
        return ask(app, "GET", path).json()

    assert get(V1 + "upscalers")[0]["name"] == "None"
    assert get(V1 + "schedulers")[0]["label"] == "Automatic"
    assert get(V1 + "embeddings") == {"loaded": {}, "skipped": {}}
    assert get(V1 + "scripts") == {"txt2img": ["controlnet"], "img2img": ["controlnet"]}
    ram = get(V1 + "memory")["ram"]
    assert ram["free"] + ram["used"] == ram["total"] > ram["used"] > 2**20
    assert get("/queue/status")  # what a plugin of Krita asks for first
    assert get(V1 + "cmd-flags") == get("/internal/ping") == {}
    assert get("/internal/pending-tasks") == {"size": 0, "tasks": []}
    wanted: dict[str, Any] = {
        "interrupt": {},
        "skip": None,
        "refresh-checkpoints": None,
        "reload-checkpoint": {},
    }
    for name, value in wanted.items():
        answer = ask(app, "POST", V1 + name)
        assert (answer.status_code, answer.json()) == (200, value)


def test_png_info_reads_what_made_a_picture(app: Starlette) -> None:
    reply = draw(app)
    answer = ask(app, "POST", V1 + "png-info", json={"image": reply["images"][0]}).json()
    assert answer["info"] == reply["info"]["infotexts"][0] == answer["items"]["parameters"]
    assert answer["parameters"]["Seed"] == "1"
    empty = {"info": "", "items": {}, "parameters": {}}
    for image in (png(), "", None, "data:image/png;base64," + png()):
        assert ask(app, "POST", V1 + "png-info", json={"image": image}).json() == empty
    assert "image: is not base64" in refusal(app, "png-info", 422, image="?")


def test_unload_checkpoint_unloads_the_clients_model(app: Starlette, engine: Engine) -> None:
    draw(app)
    assert "tiny" in [each.name for each in engine.status().loaded]
    assert ask(app, "POST", V1 + "unload-checkpoint").json() == {}
    assert "tiny" not in [each.name for each in engine.status().loaded]


def test_guards_and_missing_paths_answer_in_its_form(engine: Engine) -> None:
    app = app_of(engine, ServerSettings(host="127.0.0.1", api_key="secret"))
    for path in ("txt2img", "options", "nowhere"):
        answer = ask(app, "GET", V1 + path)
        assert answer.status_code == 401
        said(answer)
    basic = {"Authorization": "Basic " + base64.b64encode(b"me:secret").decode()}
    assert ask(app, "GET", V1 + "options", headers=basic).status_code == 200
    missing = ask(app, "GET", V1 + "nowhere", headers=basic)
    assert (missing.status_code, "nowhere" in said(missing)) == (404, True)
    assert ask(app, "GET", V1 + "txt2img", headers=basic).status_code == 405
    said(ask(app, "POST", V1 + "txt2img", headers={"Host": "evil.example"}, json=BODY))


def test_pages_opened_from_files_see_nothing_of_a_client(app: Starlette) -> None:
    page = {"Origin": "null"}
    for path in ("sd-models", "samplers", "scripts"):
        assert ask(app, "GET", V1 + path, headers=page).status_code == 200
    for path in ("progress", "options"):
        assert ask(app, "GET", V1 + path, headers=page).status_code == 403
    for path in ("interrupt", "skip", "unload-checkpoint"):
        assert ask(app, "POST", V1 + path, headers=page).status_code == 403


# ------------------------------------------------------------------------ progress, interrupting


class Slow:
    """A live server whose model waits at a gate, and requests in progress."""

    def __init__(self, folder: Path) -> None:
        self.gate, fake = Gate(), FakePlugin()
        fake.loader.before = self.gate
        together = Settings(models=folder, max_rows=8)  # nothing is measured
        self.engine = build_test_engine(folder, fake, settings=together)
        self.url = ""
        self.replies: dict[str, httpx.Response] = {}

    def start(self, user: str, path: str = V1 + "txt2img", **body: Any) -> threading.Thread:
        def call() -> None:
            whole = {**BODY, "steps": 40, "sampler_name": "Euler", **body}
            self.replies[user] = self.post(user, path, whole)

        thread = threading.Thread(target=call)
        thread.start()
        return thread

    def get(self, user: str, path: str = V1 + "progress") -> dict[str, Any]:
        reply: dict[str, Any] = httpx.get(self.url + path, headers={"api-key": user}).json()
        return reply

    def post(self, user: str, path: str, body: object = None) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers={"api-key": user}, timeout=60)

    def step_until(self, condition: Callable[[], object]) -> None:
        """Let single steps through until it is so."""

        def step() -> object:
            self.gate.hold_after(1)
            return condition()

        wait_until(step)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    slow = Slow(tmp_path / "models")
    app = app_of(slow.engine)
    with live(app, on_stop=partial(slow.engine.close, grace=0)) as slow.url:
        yield slow
        slow.gate.open()


def test_progress_is_of_the_clients_own_requests(slow: Slow) -> None:
    idle = slow.get("me")
    assert idle["progress"] == idle["eta_relative"] == 0.0
    assert idle["state"]["job_count"] == 0
    slow.gate.hold_after(20)
    thread = slow.start("me", force_task_id="task(1)", width=128)
    wait_until(lambda: slow.get("me")["state"]["sampling_step"] >= 19)
    wait_until(lambda: slow.get("me")["current_image"])
    running = slow.get("me")
    assert 0.4 < running["progress"] < 0.6
    assert running["eta_relative"] > 0
    assert running["state"]["job"] == "task(1)"
    assert running["state"]["job_count"] == 1
    assert running["state"]["sampling_steps"] == 40
    preview = Image.open(io.BytesIO(base64.b64decode(running["current_image"])))
    assert preview.size == (128, 64)
    assert slow.get("me", V1 + "progress?skip_current_image=true")["current_image"] is None
    assert slow.get("other") == idle
    asked = {"id_task": "task(1)", "id_live_preview": -1}
    task = slow.post("me", "/internal/progress", asked).json()
    assert (task["active"], task["queued"], task["completed"]) == (True, False, False)
    assert task["live_preview"].startswith("data:image/png;base64,")
    same = {**asked, "id_live_preview": task["id_live_preview"]}
    assert slow.post("me", "/internal/progress", same).json()["live_preview"] is None
    assert not slow.post("other", "/internal/progress", asked).json()["active"]
    slow.gate.open()
    thread.join(60)
    assert slow.replies["me"].status_code == 200
    wait_until(lambda: slow.get("me") == idle)
    ended = slow.post("me", "/internal/progress", asked).json()
    assert (ended["active"], ended["completed"], ended["progress"]) == (False, True, None)
    assert not slow.post("other", "/internal/progress", asked).json()["completed"]


@pytest.mark.parametrize("name", ["interrupt", "skip"])
def test_interrupt_ends_the_clients_requests_and_no_others(slow: Slow, name: str) -> None:
    slow.gate.hold_after(0)
    users = ("me", "other")
    threads = [slow.start(user) for user in users]
    wait_until(lambda: all(slow.get(user)["state"]["job_count"] for user in users))
    slow.step_until(lambda: all(slow.get(user)["current_image"] for user in users))
    slow.post("me", V1 + name)
    slow.gate.open()
    for thread in threads:
        thread.join(60)
    mine, other = slow.replies["me"], slow.replies["other"]
    assert mine.status_code == other.status_code == 200
    (image,) = mine.json()["images"]
    info = json.loads(mine.json()["info"])
    assert Image.open(io.BytesIO(base64.b64decode(image))).size == (64, 64)
    assert info["infotexts"][0].startswith("red\nSteps: 40")
    assert info["all_seeds"] == [1]
    whole = pixels(other.json()["images"][0])
    assert pixels(image) != whole


def test_interrupt_leaves_the_clients_requests_of_other_apis(slow: Slow) -> None:
    slow.gate.hold_after(1)
    native = {key: value for key, value in BODY.items() if key != "sampler_name"}
    thread = threading.Thread(
        target=lambda: slow.replies.update(me=slow.post("me", "/generate", native))
    )
    thread.start()
    wait_until(lambda: slow.engine.status().jobs)
    assert slow.get("me")["state"]["job_count"] == 0
    slow.post("me", V1 + "interrupt")
    slow.gate.open()
    thread.join(60)
    assert slow.replies["me"].json()["status"] == "final"


def test_an_interrupted_request_without_a_preview_has_no_picture(slow: Slow) -> None:
    slow.gate.hold_after(0)
    thread = slow.start("me", batch_size=2)
    wait_until(lambda: slow.get("me")["state"]["job_count"])
    assert slow.post("me", V1 + "interrupt").json() == {}
    slow.gate.open()
    thread.join(60)
    reply = slow.replies["me"].json()
    assert (slow.replies["me"].status_code, reply["images"]) == (200, [])
    assert json.loads(reply["info"])["infotexts"] == []
    assert json.loads(reply["info"])["seed"] == 1


def test_a_request_in_the_queue_says_how_many_are_ahead(slow: Slow) -> None:
    """Another size is not drawn together with the first."""
    slow.gate.hold_after(2)
    threads = [slow.start(f"user {n}", width=64 + 64 * n, force_task_id=f"t{n}") for n in range(3)]
    users = [f"user {n}" for n in range(3)]

    def queued() -> list[str]:
        return [u for u in users if (slow.get(u)["textinfo"] or "").startswith("In queue")]

    wait_until(lambda: sum(slow.get(u)["state"]["job_count"] for u in users) == 3)
    for user in queued():
        pending = slow.get(user, "/internal/pending-tasks")
        assert pending == {"size": 1, "tasks": [f"t{user[-1]}"]}
        asked = slow.post(user, "/internal/progress", {"id_task": f"t{user[-1]}"}).json()
        assert (asked["active"], asked["queued"]) == (False, True)
        assert slow.get(user)["progress"] > 0
    slow.gate.open()
    for thread in threads:
        thread.join(60)


def test_a_full_queue_is_busy_for_a_while(
    app: Starlette, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise Busy("the queue is full", retry_after=7)

    monkeypatch.setattr(engine._worker, "submit", full)
    answer = ask(app, "POST", V1 + "txt2img", json=BODY)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert said(answer) == "the queue is full"
    assert answer.json()["error"] == "Busy"


@pytest.mark.parametrize("name", ["librechat", "open-webui", "sillytavern"])
def test_the_requests_of_programs_are_answered(app: Starlette, name: str) -> None:
    """With doodle, as their users' first picture would be."""
    sent = json.loads((Path(__file__).parent / "requests" / f"{name}-a1111.json").read_text())
    doodle = {"sd_model_checkpoint": "doodle"}
    for each in sent:
        if name == "librechat":
            each["json"]["override_settings"] = doodle
        options = {key: each[key] for key in ("headers", "json") if key in each}
        answer = ask(app, each["method"], each["path"], **options)
        assert answer.status_code == 200, answer.text
        if each["path"].endswith("txt2img"):
            reply = answer.json()
            assert len(reply["images"]) == each["json"].get("batch_size", 1)
            assert json.loads(reply["info"])["infotexts"][0].startswith(each["json"]["prompt"])
        if each["path"].endswith("options") and each["method"] == "GET":
            titles = [one["title"] for one in ask(app, "GET", V1 + "sd-models").json()]
            assert answer.json()["sd_model_checkpoint"] in titles


# --------------------------------------------------------------------------------- any body

ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text(max_size=20)
    | st.sampled_from(["1", "64", "on", "Euler", "karras", "tiny", png(size=(8, 8)), 1e308, 2**70]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
KEYS = [row.key for row in (*ROWS, *extras.ROWS)] + list(IGNORED) + list(IGNORED_HIRES)
KEYS += ["image", "imageList", "controlnet_module", "controlnet_input_images", "id_task", "x"]
OPTION = st.sampled_from(["sd_model_checkpoint", "CLIP_stop_at_last_layers", "sd_vae"])
BODIES = st.dictionaries(st.sampled_from(KEYS), ANY, max_size=8) | st.fixed_dictionaries(
    {"override_settings": st.dictionaries(OPTION, ANY)}
)
UNITS = st.lists(st.dictionaries(st.sampled_from([row.key for row in UNIT]), ANY) | ANY, max_size=3)
SCRIPTS = UNITS.map(lambda units: {"alwayson_scripts": {"controlnet": {"args": units}}})
NAMES = ("txt2img", "img2img", "options", "png-info", "extra-single-image", "extra-batch-images")
POSTS = [V1 + name for name in NAMES] + ["/internal/progress", "/controlnet/detect"]


@pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=pytest.mark.slow)])
def test_every_body_is_answered_in_its_form(engine: Engine, count: int) -> None:
    app = app_of(engine)

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(POSTS), BODIES | SCRIPTS)
    def one(path: str, body: dict[str, Any]) -> None:
        small = {"width": 64, "height": 64, "steps": 1} if "img2img" in path else {}
        sent = json.dumps({**small, "steps": 1, "width": 64, "height": 64, **body})
        answer = ask(app, "POST", path, content=sent)
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, (sent, answer.text)
        if answer.status_code != 200:
            said(answer)

    one()
