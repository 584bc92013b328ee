"""Units of A1111's ControlNet extension, and its routes, over a fake model."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette

from calls import SMALL, app_of, ask, live
from imagine_core import ModelInfo, Preprocessor, hookimpl
from imagine_core.models.catalogue import Catalogue
from imagine_core.pictures.fitting import fitted
from imagine_core.settings import Limits, Settings
from imagine_core.testing import FakePlugin, build_test_engine
from upscalers import noise

V1 = "/sdapi/v1/"
BODY: dict[str, Any] = {"prompt": "red", "width": 64, "height": 64, "steps": 4, "seed": 1}
HINT = Image.new("RGB", (64, 64), (255, 0, 128))
START = noise(64, 64)
BUNDLED = "doodle-canny [6f5d0096]"


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
def app(tmp_path: Path, fake: FakePlugin) -> Iterator[Starlette]:
    folder = tmp_path / "models"
    for name in ("tiny.fake", "controlnet/edges.fake", "controlnet/lines.fake"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"fake")
    limits = Limits(pixels=256 * 256, images=2)
    settings = Settings(models=folder, default_model="tiny", limits=limits)
    engine = build_test_engine(folder, fake, settings=settings, extra=[("missing", Missing())])
    yield app_of(engine)
    engine.close(grace=0)


def text(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def post(app: Starlette, *units: Any, key: str = "controlnet", **body: Any) -> httpx.Response:
    path = "img2img" if "init_images" in body else "txt2img"
    scripts = {key: {"args": list(units)}}
    return ask(app, "POST", V1 + path, json={**BODY, "alwayson_scripts": scripts, **body})


def draw(app: Starlette, *units: Any, **body: Any) -> dict[str, Any]:
    """The answer, with `info` read."""
    answer = post(app, *units, **body)
    assert answer.status_code == 200, answer.text
    return {**answer.json(), "info": json.loads(answer.json()["info"])}


def refused(app: Starlette, *units: Any, status: int = 422, **body: Any) -> str:
    answer = post(app, *units, **body)
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])


def pixels(encoded: str) -> np.ndarray[Any, Any]:
    data = base64.b64decode(encoded, validate=True)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def first(reply: dict[str, Any]) -> np.ndarray[Any, Any]:
    return pixels(reply["images"][0])


def native(app: Starlette, *controls: Any, **fields: Any) -> np.ndarray[Any, Any]:
    body = {**SMALL, "sampler": "euler", "controls": list(controls), **fields}
    reply = ask(app, "POST", "/generate", json=body)
    assert reply.status_code == 200, reply.text
    return pixels(reply.json()["img"])


UNIT = {"model": "edges", "image": text(HINT)}
OURS = {"name": "edges", "img": text(HINT)}


def test_a_unit_is_a_control_of_the_native_api(app: Starlette) -> None:
    reply = draw(app, UNIT)
    assert reply["warnings"] == []
    assert np.array_equal(first(reply), native(app, OURS))
    assert not np.array_equal(first(reply), first(draw(app)))
    assert len(reply["images"]) == 1
    assert reply["parameters"]["alwayson_scripts"] == {}
    said = "Module: none, Model: edges, Weight: 1, Guidance Start: 0, Guidance End: 1"
    assert said in reply["info"]["infotexts"][0]


def test_each_field_of_a_unit_is_obeyed(app: Starlette) -> None:
    unit = {**UNIT, "enabled": True, "module": "invert", "weight": "0.5", "guidance_start": 0.25}
    unit |= {"guidance_end": 0.75, "control_mode": 2, "pixel_perfect": True, "low_vram": True}
    ours = {**OURS, "preprocessor": "invert", "weight": 0.5, "start": 0.25, "end": 0.75}
    reply = draw(app, unit, {**UNIT, "model": "lines", "weight": 0.25})
    both = [{**ours, "mode": "control"}, {**OURS, "name": "lines", "weight": 0.25}]
    assert np.array_equal(first(reply), native(app, *both))
    assert reply["warnings"] == []


@pytest.mark.parametrize("key", ["controlnet", "ControlNet", "CONTROLNET"])
def test_the_script_is_known_in_any_case(app: Starlette, key: str) -> None:
    assert np.array_equal(first(draw(app, UNIT, key=key)), native(app, OURS))


@pytest.mark.parametrize(
    "named",
    [
        {"image": f"data:image/png;base64,{text(HINT)}"},
        {"image": {"image": text(HINT), "mask": None}},
        {"image": [text(HINT), text(HINT)]},
        {"image": [{"image": text(HINT), "mask": ""}]},
        {"input_image": text(HINT)},
    ],
    ids=["data URL", "object", "pair", "list of objects", "older name"],
)
def test_the_picture_comes_in_all_of_the_extensions_forms(
    app: Starlette, named: dict[str, Any]
) -> None:
    assert np.array_equal(first(draw(app, {"model": "edges", **named})), native(app, OURS))


@pytest.mark.parametrize("model", ["edges", "EDGES", "edges.fake", "edges [d14c016b]"])
def test_a_model_goes_by_name_file_and_hash(app: Starlette, model: str) -> None:
    assert np.array_equal(first(draw(app, {**UNIT, "model": model})), native(app, OURS))


@pytest.mark.parametrize(
    ("mode", "ours"),
    [
        (0, "balanced"),
        ("My prompt is more important", "prompt"),
        ("ControlNet is more important", "control"),
        ("1", "prompt"),
    ],
)
def test_control_modes_go_by_number_and_name(app: Starlette, mode: object, ours: str) -> None:
    reply = draw(app, {**UNIT, "control_mode": mode})
    assert np.array_equal(first(reply), native(app, {**OURS, "mode": ours}))


def test_units_that_are_switched_off_do_nothing(app: Starlette) -> None:
    plain = native(app)
    assert np.array_equal(first(draw(app, {**UNIT, "enabled": False})), plain)
    assert np.array_equal(first(draw(app, {"enabled": False, "model": "gone"})), plain)
    scripts: dict[str, Any]
    for scripts in ({"controlnet": {}}, {"controlnet": {"args": None}}, {"ControlNet": []}):
        assert np.array_equal(first(draw(app, alwayson_scripts=scripts)), plain)


def test_units_that_are_switched_off_are_not_counted_and_may_be_wrong(app: Starlette) -> None:
    off = [{"enabled": False, "weight": 99, "image": "?"}, {"enabled": "false"}] * 9
    assert np.array_equal(first(draw(app, *off, UNIT)), native(app, OURS))
    assert "unit 18 has no image" in refused(app, *off, {"model": "edges"})
    assert "at most 8" in refused(app, *[UNIT] * 9)


def test_without_a_picture_the_init_image_is_the_hint(app: Starlette) -> None:
    reply = draw(app, {"model": "edges", "module": "canny"}, init_images=[text(START)])
    ours = {"name": "edges", "img": text(START), "preprocessor": "canny"}
    assert np.array_equal(first(reply), native(app, ours, img=text(START), strength=0.75))
    assert refused(app, {"model": "edges"}) == "alwayson_scripts: unit 0 has no image"


@pytest.mark.parametrize(
    ("mode", "how"), [(None, "cut"), (1, "cut"), ("Resize and Fill", "fill"), (2, "fill"), (0, "")]
)
def test_a_hint_of_other_proportions_is_cut_filled_up_or_resized(
    app: Starlette, mode: object, how: str
) -> None:
    wide = noise(96, 40)
    hint = fitted(wide, (64, 64), crop=how == "cut") if how else wide
    reply = draw(app, {**UNIT, "image": text(wide), "resize_mode": mode})
    assert np.array_equal(first(reply), native(app, {**OURS, "img": text(hint)}))
    assert len(reply["warnings"]) == (how == "")


def test_hints_of_the_hires_fix_have_the_size_of_the_second_pass(app: Starlette) -> None:
    reply = draw(app, UNIT, enable_hr=True, hr_scale=2)
    ours = {"hires": 2, "keep_size": True, "hires_strength": 0.75}
    assert np.array_equal(first(reply), native(app, OURS, **ours))
    only = draw(app, {**UNIT, "hr_option": "Low res only"}, enable_hr=True)
    assert only["warnings"] == ["hr_option of ControlNet unit 0 has no effect here"]
    assert draw(app, {**UNIT, "hr_option": "Low res only"})["warnings"] == []


def test_what_has_no_effect_is_named(app: Starlette) -> None:
    canny = {**UNIT, "module": "canny", "threshold_a": 100, "threshold_b": 200}
    assert draw(app, {**canny, "processor_res": 64})["warnings"] == []
    other = draw(app, UNIT, {**canny, "threshold_a": 50, "processor_res": 512, "mask": "x"})
    assert other["warnings"] == [
        "mask, threshold_a, processor_res of ControlNet unit 1 has no effect here"
    ]
    quiet = {**UNIT, "threshold_a": 64, "processor_res": 512, "save_detected_map": True, "x": 1}
    assert draw(app, quiet)["warnings"] == []
    scripts = {"ADetailer": {"args": [True]}, "controlnet": {"args": [UNIT]}}
    reply = draw(app, alwayson_scripts=scripts)
    assert reply["warnings"] == ["alwayson_scripts ADetailer has no effect here"]
    assert np.array_equal(first(reply), native(app, OURS))


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ({**UNIT, "module": "openpose"}, "asks for the module 'openpose', which is not here: "),
        ({**UNIT, "module": "depth"}, "'depth', which cannot be used: it needs a network"),
        ({**UNIT, "model": "None"}, "names no model: there are doodle-canny, edges, lines"),
        ({**UNIT, "weight": 11}, "has weight: must be from 0.0 to 10.0"),
        ({**UNIT, "weight": "much", "control_mode": 3}, "control_mode: must be one of 0 (Balanced"),
        ({**UNIT, "image": "?"}, "has image: is not base64"),
        ({**UNIT, "image": text(HINT)[:40]}, "the picture of 'edges' is not a picture"),
        ("canny", "must be an object, not a string"),
    ],
)
def test_what_a_unit_cannot_have_is_a_sentence(app: Starlette, unit: Any, said: str) -> None:
    words = refused(app, unit)
    assert words.startswith("alwayson_scripts: ")
    assert said in words


def test_the_modules_that_there_are_are_told_and_unknown_models_are_not_found(
    app: Starlette,
) -> None:
    words = refused(app, {**UNIT, "module": "openpose"})
    assert words.endswith(
        "none, canny, invert, invert (from white bg & black line), tile, tile_resample, luma, "
        "recolor_luminance"
    )
    assert "'edgse'; did you mean 'edges'" in refused(app, {**UNIT, "model": "edgse"}, status=404)
    many = refused(app, *[UNIT] * 9)
    assert many == "alwayson_scripts: must be at most 8"
    assert "must be" in refused(app, alwayson_scripts={"controlnet": {"args": "x"}})


# ---------------------------------------------------------------------------------- the routes


def get(app: Starlette, path: str) -> Any:
    answer = ask(app, "GET", f"/controlnet/{path}")
    assert answer.status_code == 200
    return answer.json()


def test_a_controlnet_is_listed_with_its_hash_and_found_by_that(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    usable = Catalogue.usable

    def hashed(catalogue: Catalogue, kind: str = "model") -> list[ModelInfo]:
        found = usable(catalogue, kind)
        return [replace(info, details={"short_hash": "d14c016b"}) for info in found]

    monkeypatch.setattr(Catalogue, "usable", hashed)
    listed = get(app, "model_list")["model_list"]
    assert listed == [f"{name} [d14c016b]" for name in ("doodle-canny", "edges", "lines")]
    assert post(app, {"model": listed[1], "image": text(HINT)}).status_code == 200


def test_the_lists_of_the_extension_have_what_a_unit_may_name(app: Starlette) -> None:
    assert get(app, "model_list?update=true") == {"model_list": [BUNDLED, "edges", "lines"]}
    modules = get(app, "module_list?alias_names=false")
    assert modules["module_list"][:2] == ["none", "canny"]
    assert "depth" not in modules["module_list"]
    assert set(modules["module_detail"]) == set(modules["module_list"])
    assert get(app, "version") == {"version": 2}
    assert get(app, "settings") == {"control_net_unit_count": 8}
    types = get(app, "control_types")["control_types"]
    assert list(types) == ["All", "Canny edges", "Invert", "Tile", "Luminance"]
    models = ("None", BUNDLED, "edges", "lines")
    assert {tuple(each["model_list"]) for each in types.values()} == {models}
    assert types["Tile"]["module_list"] == ["none", "tile"]
    assert types["Tile"]["default_option"] == "tile"
    for module in modules["module_list"]:
        assert draw(app, {**UNIT, "module": module, "pixel_perfect": True})["warnings"] == []


@pytest.mark.parametrize("key", ["controlnet_input_images", "controlnet_images"])
def test_detect_shows_the_hints_of_pictures(app: Starlette, key: str) -> None:
    body = {"controlnet_module": "invert", key: [text(START), text(HINT)]}
    reply = ask(app, "POST", "/controlnet/detect", json=body).json()
    assert reply["info"] == "Success"
    found = [pixels(each) for each in reply["images"]]
    assert np.array_equal(found[0], 255 - np.asarray(START))
    assert np.array_equal(found[1], 255 - np.asarray(HINT))
    plain = ask(app, "POST", "/controlnet/detect", json={key: [text(START)]}).json()
    assert np.array_equal(pixels(plain["images"][0]), np.asarray(START))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "controlnet_input_images: must be a list of 1 to 2 pictures"),
        ({"controlnet_input_images": [text(HINT)] * 3}, "must be a list of 1 to 2 pictures"),
        ({"controlnet_input_images": ["?"]}, "controlnet_input_images: is not base64"),
        ({"controlnet_input_images": ["AAAA"]}, "controlnet_input_images: is not a picture"),
        ({"controlnet_module": "hed", "controlnet_input_images": ["?"]}, "'hed', which is not"),
        ({"controlnet_module": 5, "controlnet_input_images": ["?"]}, "must be a string"),
    ],
)
def test_what_cannot_be_detected_is_a_sentence(
    app: Starlette, body: dict[str, Any], said: str
) -> None:
    answer = ask(app, "POST", "/controlnet/detect", json=body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_paths_of_the_extension_that_are_not_there_answer_in_its_form(app: Starlette) -> None:
    missing = ask(app, "GET", "/controlnet/render_openpose_json")
    assert (missing.status_code, set(missing.json())) == (
        404, {"error", "detail", "body", "errors"},
    )  # fmt: skip


def test_webuiapis_own_units_are_obeyed(app: Starlette) -> None:
    webuiapi = pytest.importorskip("webuiapi")
    fields = {"weight": 0.5, "guidance_end": 0.5, "control_mode": 2, "resize_mode": "Just Resize"}
    unit = webuiapi.ControlNetUnit(image=HINT, module="invert", model="edges", **fields)
    ours = {**OURS, "preprocessor": "invert", "weight": 0.5, "end": 0.5, "mode": "control"}
    expected = native(app, ours)
    with live(app) as url:
        host, port = url.removeprefix("http://").split(":")
        api = webuiapi.WebUIApi(host, int(port), sampler="Euler")
        with api.session:  # its default of the scripts would keep the unit for later requests
            result = api.txt2img(**BODY, controlnet_units=[unit], alwayson_scripts={})
            assert api.controlnet_model_list() == [BUNDLED, "edges", "lines"]
    assert np.array_equal(np.asarray(result.image.convert("RGB")), expected)
