"""The native routes over a real engine with a fake model."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.applications import Starlette

from calls import SMALL, app_of, ask, error_of, fields_of, lines_of
from imagine_core.engine import Engine, build_engine
from imagine_core.fields import CORE_NAMES
from imagine_core.pictures.infotext import read_infotext
from imagine_core.settings import Limits, Settings
from imagine_core.testing import FakePlugin, build_test_engine, build_test_plugins
from imagine_core.version import version


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine for all tests that only ask it."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("tiny.fake", "broken.fake"):
        (folder / name).write_bytes(b"fake")
    limits = Limits(steps=50, images=4)
    engine = build_test_engine(
        folder, settings=Settings(models=folder, default_model="tiny", limits=limits)
    )
    yield engine
    engine.close(grace=0)


@pytest.fixture(scope="module")
def app(engine: Engine) -> Starlette:
    """The application over it."""
    return app_of(engine)


def generate(app: Starlette, **body: Any) -> dict[str, Any]:
    """The one object of a reply."""
    answer = ask(app, "POST", "/generate", json={**SMALL, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)
    final = answer.json()
    assert isinstance(final, dict)
    return final


def stream(app: Starlette, **body: Any) -> list[dict[str, Any]]:
    """The lines of a reply."""
    answer = ask(app, "POST", "/generate", json={**SMALL, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return lines_of(answer.text)


def picture(encoded: str) -> Image.Image:
    image = Image.open(BytesIO(base64.b64decode(encoded, validate=True)))
    assert image.format == "PNG"
    return image


def base64_of(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


# ------------------------------------------------------------------------------------- generate


def test_a_request_gets_one_object_with_the_picture_and_what_made_it(app: Starlette) -> None:
    final = generate(app, sampler="Euler", width=72, seed="18446744073709551615")
    assert picture(final.pop("img")).size == (72, 64)
    assert final.pop("timings").keys() >= {"queued", "denoising"}
    assert len(final.pop("id")) == 24
    assert final == {
        "seed": "18446744073709551615",
        "status": "final",
        "model": "tiny",
        "sampler": "euler",
        "schedule": "default",
        "width": 72,
        "height": 64,
        "steps": 4,
        "steps_run": 4,
        "warnings": [],
        "model_hash": "0123456789",
        "version": version(),
    }


def test_a_body_as_curl_sends_it_is_read_as_json(app: Starlette) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = ask(app, "POST", "/generate", headers=headers, content=json.dumps(SMALL))
    assert answer.status_code == 200


def test_the_same_seed_gives_the_same_bytes(app: Starlette) -> None:
    for extra in ({}, {"sampler": "dpm++ 2s a"}, {"schedule": "karras"}):
        assert generate(app, **extra)["img"] == generate(app, **extra)["img"]
    assert generate(app)["img"] != generate(app, seed=2)["img"]


def test_a_seed_that_was_drawn_makes_the_same_picture_again(app: Starlette) -> None:
    first = generate(app, seed=None)
    again = generate(app, seed=first["seed"])
    assert isinstance(first["seed"], str)
    assert first["img"] == again["img"]
    assert generate(app, seed=-1)["seed"] != first["seed"]


def test_a_picture_says_what_made_it(app: Starlette) -> None:
    text = picture(generate(app, neg="ugly", sampler="dpm++ 2m karras")["img"]).info
    meta = json.loads(text["meta"])
    assert meta["prompt"] == "red"
    assert meta["seed"] == "1"
    assert (meta["sampler"], meta["schedule"]) == ("dpm++ 2m", "karras")
    infotext = read_infotext(text["parameters"])
    assert infotext is not None
    assert infotext["neg"] == "ugly"
    assert "Sampler: DPM++ 2M," in text["parameters"]


def test_the_picture_that_a_client_sent_is_not_sent_back(app: Starlette) -> None:
    final = generate(app, img=base64_of(Image.new("RGB", (64, 64), "blue")))
    assert json.loads(picture(final["img"]).info["meta"])["img"] is None


def test_a_picture_to_start_from_is_started_from(app: Starlette) -> None:
    blue = base64_of(Image.new("RGB", (100, 30), "blue"))
    kept = picture(generate(app, img=blue, strength=0.0)["img"])
    assert kept.size == (64, 64)
    assert kept.getpixel((32, 32)) == (0, 0, 255)
    prefixed = generate(app, img=f"data:image/png;base64,{blue}", strength=0.0)
    assert picture(prefixed["img"]).tobytes() == kept.tobytes()


def test_several_pictures_come_with_a_seed_each(app: Starlette) -> None:
    final = generate(app, n=3, seed=2**64 - 1)
    assert [each["seed"] for each in final["images"]] == [str(2**64 - 1), "0", "1"]
    assert final["images"][0]["img"] == final["img"]
    alone = picture(generate(app, seed=1)["img"])
    assert picture(final["images"][2]["img"]).size == alone.size
    assert json.loads(picture(final["images"][2]["img"]).info["meta"])["seed"] == "1"


def test_hires_is_one_request_of_the_size_that_was_asked_for(app: Starlette) -> None:
    assert picture(generate(app, hires=1.5)["img"]).size == (64, 64)


def test_what_the_user_should_know_is_in_the_warnings(app: Starlette) -> None:
    final = generate(app, prompt="word " * 80, cfg=7)
    assert final["warnings"] == ["unknown key 'cfg' was ignored", "prompt: 2 chunks"]


# --------------------------------------------------------------------------------------- stream


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm2", "dpm++ 2m", "dpm++ 2s a", "lms"])
@pytest.mark.parametrize(("steps", "every"), [(1, 1), (5, 1), (5, 2), (6, 3), (7, 3), (4, 9)])
def test_an_intermediate_comes_every_n_steps_and_one_final_last(
    app: Starlette, sampler: str, steps: int, every: int
) -> None:
    lines = stream(app, steps=steps, stream=every, sampler=sampler)
    *between, final = lines
    assert [line["status"] for line in between] == ["intermediate"] * ((steps - 1) // every)
    assert [line["step"] for line in between] == list(range(every, steps, every))
    assert {line["steps"] for line in between} <= {steps}
    assert {line["seed"] for line in lines} == {"1"}
    assert final["status"] == "final"


def test_img2img_counts_the_steps_that_run(app: Starlette) -> None:
    blue = base64_of(Image.new("RGB", (64, 64), "blue"))
    *between, _ = stream(app, steps=10, strength=0.5, img=blue, stream=2)
    assert [(line["step"], line["steps"]) for line in between] == [(2, 5), (4, 5)]


@pytest.mark.parametrize("preview", ["fast", "vae"])
def test_intermediates_have_the_size_that_was_asked_for(app: Starlette, preview: str) -> None:
    *between, final = stream(app, stream=1, width=128, height=72, preview=preview)
    assert {picture(line["img"]).size for line in between} == {(128, 72)}
    assert picture(final["img"]).size == (128, 72)


def test_the_last_intermediate_resembles_the_final(app: Starlette) -> None:
    *_, last, final = stream(app, stream=1, steps=12, preview="vae")
    colours = [picture(line["img"]).resize((1, 1)).getpixel((0, 0)) for line in (last, final)]
    assert all(abs(a - b) < 40 for a, b in zip(*colours, strict=True))


def test_streaming_does_not_change_the_picture_only_what_it_says_of_it(app: Starlette) -> None:
    streamed = picture(stream(app, stream=1)[-1]["img"])
    assert streamed.tobytes() == picture(generate(app)["img"]).tobytes()


def test_each_picture_of_several_has_intermediates_of_its_own(app: Starlette) -> None:
    *between, final = stream(app, n=2, stream=2, steps=4)
    assert sorted((line["image"], line["seed"], line["step"]) for line in between) == [
        (0, "1", 2),
        (1, "2", 2),
    ]
    assert len(final["images"]) == 2


def test_clients_that_did_not_ask_see_no_lines_without_a_picture(app: Starlette) -> None:
    assert all("img" in line for line in stream(app, stream=2))


def test_progress_tells_every_phase_and_step(app: Starlette) -> None:
    generate(app)  # so that nothing is loaded below
    lines = stream(app, progress=True, steps=3)
    assert [line["status"] for line in lines] == [
        *("queued", "encoding", "denoising", "progress", "progress", "progress"),
        *("decoding", "final"),
    ]
    assert lines[0]["position"] == 0
    assert [line["step"] for line in lines if line["status"] == "progress"] == [1, 2, 3]
    assert not any("img" in line for line in lines[:-1])


def test_progress_and_previews_come_one_line_a_step(app: Starlette) -> None:
    lines = stream(app, progress=True, stream=2, steps=4)
    steps = [(line["status"], line["step"]) for line in lines if "step" in line]
    assert steps == [("progress", 1), ("intermediate", 2), ("progress", 3), ("progress", 4)]


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("stream", [None, 1])
@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"model": "tiney"}, 404, "unknown_name"),
        ({"sampler": "eulr"}, 404, "unknown_name"),
        ({"schedule": "karas"}, 404, "unknown_name"),
        ({"model": "../tiny"}, 404, "unknown_name"),
        ({"model": "broken"}, 422, "unusable_model"),
        ({"steps": 51}, 422, "invalid_request"),
        ({"clip": 13}, 422, "invalid_request"),
        ({"sampler": "dpm++ 2m karras", "schedule": "beta"}, 422, "invalid_request"),
    ],
)
def test_what_cannot_be_served_is_a_status_before_anything_is_streamed(
    app: Starlette, body: dict[str, Any], status: int, kind: str, stream: int | None
) -> None:
    answer = ask(app, "POST", "/generate", json={**SMALL, **body, "stream": stream})
    assert answer.status_code == status, answer.text
    assert error_of(answer)["type"] == kind


def test_fields_have_their_wire_names_wherever_they_are_refused(app: Starlette) -> None:
    assert list(fields_of(ask(app, "POST", "/generate", json={**SMALL, "clip": 13}))) == ["clip"]
    both = {**SMALL, "sampler": "dpm++ 2m karras", "schedule": "beta"}
    assert list(fields_of(ask(app, "POST", "/generate", json=both))) == ["schedule"]


def test_an_unknown_name_comes_with_the_nearest(app: Starlette) -> None:
    answer = ask(app, "POST", "/generate", json={**SMALL, "model": "tiney"})
    assert error_of(answer)["nearest"] == ["tiny"]


def test_nan_and_infinity_are_refused_as_the_guidance_that_they_are_not(app: Starlette) -> None:
    for literal in ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000):
        body = f'{{"prompt": "x", "guidance": {literal}}}'
        assert list(fields_of(ask(app, "POST", "/generate", content=body))) == ["guidance"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"a":1,"a":2}', b"[" * 99_999])
def test_what_is_no_json_object_is_400(app: Starlette, content: bytes) -> None:
    answer = ask(app, "POST", "/generate", content=content)
    assert answer.status_code == 400
    assert error_of(answer)["type"] == "malformed_body"


def test_a_body_beyond_the_limit_is_413(tmp_path: Path) -> None:
    small = Settings(models=tmp_path, limits=Limits(body=1000))
    engine = build_engine(small, build_test_plugins())
    answer = ask(app_of(engine), "POST", "/generate", content=b"x" * 1001)
    assert answer.status_code == 413
    assert error_of(answer)["type"] == "body_too_large"


def test_names_that_are_no_unicode_come_back_in_the_error(app: Starlette) -> None:
    answer = ask(app, "POST", "/generate", content=b'{"prompt": "x", "model": "\\ud800"}')
    assert list(fields_of(answer)) == ["model"]
    body = b'{"prompt": "x", "width": 64, "height": 64, "steps": 1, "\\ud800": 1}'
    answer = ask(app, "POST", "/generate", content=body)
    assert answer.status_code == 200
    assert "\\ud800" in answer.json()["warnings"][0]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 72),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(["tiny", "euler", "karras", "vae", "fast", "QUFB", "7", "-1", "\ud800"]),
)


KEYS = [*CORE_NAMES, "progress", "other"]


@settings(max_examples=300, deadline=None)
@given(given=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_no_body_is_more_than_a_request_that_is_served_or_refused(
    app: Starlette, given: dict[str, Any]
) -> None:
    answer = ask(app, "POST", "/generate", content=json.dumps({**SMALL, "steps": 1, **given}))
    if answer.status_code == 200:
        assert json.loads(answer.text.splitlines()[-1])["status"] == "final"
    else:
        assert answer.status_code in (404, 422)
        assert error_of(answer)["message"]


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Callable[[Exception, int], Starlette]]:
    """An application whose model raises at a forward."""
    engines = []

    def build(error: Exception, forward: int) -> Starlette:
        fake = FakePlugin()

        def before(_: int) -> None:
            if len(fake.loader.models[-1].forwards) >= forward:
                raise error

        fake.loader.before = before
        engines.append(build_test_engine(tmp_path / "models", fake))
        return app_of(engines[-1])

    yield build
    for engine in engines:
        engine.close(grace=0)


FAILURES = [(MemoryError(), 507, "out_of_memory"), (RuntimeError("x"), 500, "generation_failed")]


@pytest.mark.parametrize(("error", "status", "kind"), FAILURES)
def test_a_failure_before_the_first_line_is_a_status(
    failing: Callable[[Exception, int], Starlette], error: Exception, status: int, kind: str
) -> None:
    app = failing(error, 0)
    for body in (SMALL, {**SMALL, "stream": 1}):
        answer = ask(app, "POST", "/generate", json=body)
        assert answer.status_code == status
        assert error_of(answer)["type"] == kind
        assert "Traceback" not in answer.text


@pytest.mark.parametrize(("error", "status", "kind"), FAILURES)
def test_a_failure_after_it_is_the_last_line(
    failing: Callable[[Exception, int], Starlette], error: Exception, status: int, kind: str
) -> None:
    del status
    *between, last = stream(failing(error, 2), stream=1)
    assert [line["status"] for line in between] == ["intermediate", "intermediate"]
    assert last["error"]["type"] == kind
    assert last["error"]["fields"] == []


# ---------------------------------------------------------------------------------- other routes


def test_models_lists_names_to_ask_for_and_says_what_is_wrong_with_the_others(
    app: Starlette,
) -> None:
    answer = ask(app, "GET", "/models").json()
    assert "tiny" in answer["models"]
    assert "broken" not in answer["models"]
    assert answer["models"] == sorted(answer["models"])
    assert answer["default"] == "tiny"
    details = {each["name"]: each for each in answer["details"]}
    assert details["broken"]["problem"] == "it is broken; get another one"
    assert details["tiny"] == {
        "name": "tiny",
        "family": "fake",
        "format": "fake",
        "size": 4,
        "problem": None,
        "parameters": None,
        "dtype": None,
        "clip_layers": 12,
        "recommended_size": [512, 512],
        "defaults": {
            "width": 512,
            "height": 512,
            "steps": 25,
            "guidance": 7.0,
            "sampler": "dpm++ 2m",
        },
        "guidance": "free",
        "metadata": {},
        "kind": "model",
        "fits": [],
        "takes": ["lora", "embedding", "vae", "controlnet"],
        "vae": None,
        "details": {},
    }


def test_nothing_shows_where_files_lie(app: Starlette, engine: Engine) -> None:
    for path in ("/models", "/samplers", "/health", "/version", "/ps"):
        assert str(engine.settings.models) not in ask(app, "GET", path).text


def test_samplers_lists_names_and_what_they_take(app: Starlette) -> None:
    answer = ask(app, "GET", "/samplers").json()
    for name in ("ddim", "euler", "euler a", "heun", "lms", "dpm++ 2m", "dpm++ 2s"):
        assert name in answer["samplers"]
    details = {each["name"]: each for each in answer["details"]}
    assert details["dpm++ 2m"]["label"] == "DPM++ 2M"
    assert "karras" in details["dpm++ 2m"]["schedules"]
    assert details["euler a"]["stochastic"]


def test_every_sampler_that_is_listed_can_be_asked_for(app: Starlette) -> None:
    for name in ask(app, "GET", "/samplers").json()["samplers"]:
        assert generate(app, sampler=name, steps=2)["sampler"] == name


def test_version_says_who_answers_and_what_may_be_asked(app: Starlette) -> None:
    answer = ask(app, "GET", "/version").json()
    assert answer["version"] == version()
    assert answer["limits"]["steps"] == 50
    assert answer["limits"]["smallest"] == 64
    assert answer["limits"] == ask(app, "GET", "/models").json()["limits"]


def test_health_and_ps_tell_what_is_loaded(app: Starlette) -> None:
    generate(app)
    ready = {"status": "ready", "ready": True, "device": "fake"}
    assert ask(app, "GET", "/health").json() == ready
    answer = ask(app, "GET", "/ps").json()
    assert (answer["device"], answer["queue"], answer["jobs"]) == ("fake", 0, [])
    assert [model["name"] for model in answer["models"]] == ["tiny"]


def test_health_answers_before_anything_is_started(tmp_path: Path) -> None:
    engine = build_engine(Settings(models=tmp_path), build_test_plugins())
    answer = ask(app_of(engine), "GET", "/health")
    assert answer.status_code == 200
    assert answer.json() == {"status": "starting", "ready": False}


def test_health_says_why_nothing_can_be_made(tmp_path: Path) -> None:
    engine = build_engine(Settings(models=tmp_path, device="cuda"), build_test_plugins())
    engine.start()
    app = app_of(engine)
    while (answer := ask(app, "GET", "/health").json())["status"] == "starting":
        pass
    if answer["status"] == "ready":
        pytest.skip("this machine has CUDA")
    assert answer["status"] == "failed"
    assert not answer["ready"]
    assert "'cuda' cannot be used" in answer["message"]
    engine.close(grace=0)
