"""Masks, variations, seamless pictures and the hires fix of A1111's API over a fake model."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette

from calls import SMALL, app_of, ask
from imagine_core.pictures.fitting import fitted
from imagine_core.pictures.infotext import read_infotext
from imagine_core.settings import Limits, Settings
from imagine_core.testing import build_test_engine
from upscalers import noise

V1 = "/sdapi/v1/"
BODY: dict[str, Any] = {"prompt": "red", "width": 64, "height": 64, "steps": 4, "seed": 1}
START = noise(64, 64)
BOX = (16, 16, 40, 48)
MASK = Image.new("L", (64, 64), 0)
MASK.paste(255, BOX)
PAINTED = np.asarray(MASK) > 0


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Starlette]:
    folder = tmp_path / "models"
    for name in ("tiny.fake", "upscale_models/Twice.fake"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"fake")
    settings = Settings(models=folder, default_model="tiny", limits=Limits(pixels=512 * 512))
    engine = build_test_engine(folder, settings=settings)
    yield app_of(engine)
    engine.close(grace=0)


def text(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def post(app: Starlette, **body: Any) -> httpx.Response:
    path = "img2img" if "init_images" in body else "txt2img"
    return ask(app, "POST", V1 + path, json={**BODY, **body})


def draw(app: Starlette, **body: Any) -> dict[str, Any]:
    """The answer, with `info` read."""
    answer = post(app, **body)
    assert answer.status_code == 200, answer.text
    return {**answer.json(), "info": json.loads(answer.json()["info"])}


def paint(app: Starlette, **body: Any) -> dict[str, Any]:
    """The answer to a mask that has a hard edge."""
    asked = {"init_images": [text(START)], "mask": text(MASK), "mask_blur": 0, **body}
    return draw(app, **asked)


def pixels(encoded: str) -> np.ndarray[Any, Any]:
    data = base64.b64decode(encoded, validate=True)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def first(reply: dict[str, Any]) -> np.ndarray[Any, Any]:
    return pixels(reply["images"][0])


def native(app: Starlette, **fields: Any) -> np.ndarray[Any, Any]:
    reply = ask(app, "POST", "/generate", json={**SMALL, "sampler": "euler", **fields})
    assert reply.status_code == 200, reply.text
    return pixels(reply.json()["img"])


def masked(app: Starlette, **fields: Any) -> np.ndarray[Any, Any]:
    """The same mask over the native API."""
    usual = {"img": text(START), "mask": text(MASK), "mask_blur": 0, "strength": 0.75}
    return native(app, **{**usual, **fields})


# ----------------------------------------------------------------------------------------- masks


def test_a_mask_keeps_the_picture_outside_pixel_for_pixel(app: Starlette) -> None:
    for whole in (True, False):
        reply = paint(app, inpaint_full_res=whole)
        drawn = first(reply)
        assert reply["warnings"] == []
        assert np.array_equal(drawn[~PAINTED], np.asarray(START)[~PAINTED])
        assert (drawn[PAINTED] != np.asarray(START)[PAINTED]).any(axis=1).mean() > 0.9
        assert reply["parameters"]["mask"] is None


def test_the_defaults_of_a_mask_are_those_of_a1111(app: Starlette) -> None:
    reply = draw(app, init_images=[text(START)], mask=text(MASK))
    wanted = masked(app, mask_blur=4, mask_fill="average", mask_padding=0)
    assert np.array_equal(first(reply), wanted)
    meta = read_infotext(reply["info"]["infotexts"][0])
    assert meta is not None
    said = {"mask_blur": 4.0, "mask_fill": "average", "mask_padding": 0, "strength": 0.75}
    assert {key: meta[key] for key in said} == said


@pytest.mark.parametrize(
    ("number", "fill"), list(enumerate(("average", "original", "noise", "blank")))
)
def test_the_masked_content_goes_by_a1111s_numbers(app: Starlette, number: int, fill: str) -> None:
    for asked in (number, str(number)):
        drawn = first(paint(app, inpainting_fill=asked, inpaint_full_res=False))
        assert np.array_equal(drawn, masked(app, mask_fill=fill))


def test_each_field_of_a_mask_is_obeyed(app: Starlette) -> None:
    fields: dict[str, Any] = {"inpainting_fill": 1, "inpaint_full_res_padding": 8}
    fields |= {"inpainting_mask_invert": 1, "mask_blur": 2}
    reply = paint(app, **fields)
    ours = {"mask_padding": 8, "mask_invert": True, "mask_blur": 2}
    assert np.array_equal(first(reply), masked(app, **ours))
    assert "Mask mode: Inpaint not masked" in reply["info"]["infotexts"][0]
    axes = paint(app, mask_blur=None, mask_blur_x=1, mask_blur_y=3, inpaint_full_res=False)
    assert axes["warnings"] == ["mask_blur_x and mask_blur_y are the same here: both are 3"]
    assert np.array_equal(first(axes), masked(app, mask_blur=3, mask_fill="average"))


def test_of_a_mask_with_transparency_the_opaque_parts_are_repainted(app: Starlette) -> None:
    """As A1111 has it, unlike OpenAI and the native API."""
    see_through = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    see_through.paste((0, 0, 0, 255), BOX)
    drawn = first(paint(app, mask=text(see_through), inpaint_full_res=False))
    assert np.array_equal(drawn, masked(app, mask_fill="average"))


def test_what_is_wrong_with_a_mask_has_a1111s_names(app: Starlette) -> None:
    asked: dict[str, Any] = {"init_images": [text(START)], "mask": text(MASK)}
    wrong = {"mask": "AAAA", "mask_blur": 300, "inpainting_fill": 4, "resize_mode": "stretch"}
    wrong |= {"inpaint_full_res_padding": -1}
    for key, value in wrong.items():
        answer = post(app, **{**asked, key: value})
        assert answer.status_code == 422
        assert f"{key}: " in answer.json()["detail"], key
    words = post(app, **{**asked, "inpainting_fill": 4}).json()["detail"]
    assert words.endswith("one of 0 (fill), 1 (original), 2 (latent noise), 3 (latent nothing)")
    assert draw(app, mask="no picture")["warnings"] == []  # txt2img has no such field


# -------------------------------------------------------------------------------------- proportions


@pytest.mark.parametrize(("mode", "cut"), [(1, "cut"), (2, ""), ("Crop and resize", "cut")])
def test_a_picture_of_other_proportions_is_cut_or_filled_up(
    app: Starlette, mode: int | str, cut: str
) -> None:
    wide = noise(96, 40)
    reply = draw(app, init_images=[text(wide)], resize_mode=mode)
    assert reply["warnings"] == []
    wanted = native(app, img=text(fitted(wide, (64, 64), crop=bool(cut))), strength=0.75)
    assert np.array_equal(first(reply), wanted)
    squeezed = draw(app, init_images=[text(wide)], resize_mode=0)
    assert "distorted" in squeezed["warnings"][0]


def test_a_mask_is_cut_with_its_picture(app: Starlette) -> None:
    wide, mask = noise(128, 64), Image.new("L", (128, 64), 0)
    mask.paste(255, (64, 0, 128, 64))
    asked = {"init_images": [text(wide)], "mask": text(mask), "inpaint_full_res": False}
    drawn = first(paint(app, **asked, resize_mode=1))
    middle = np.asarray(wide)[:, 32:96]
    assert np.array_equal(drawn[:, :32], middle[:, :32])
    assert (drawn[:, 32:] != middle[:, 32:]).any(axis=2).mean() > 0.9


def test_resizing_of_latents_and_sizes_beyond_the_limit_are_told(app: Starlette) -> None:
    reply = draw(app, init_images=[text(START)], resize_mode=3)
    assert reply["warnings"] == ["resize_mode 3 works on latents: the picture is resized instead"]
    beyond = post(app, init_images=[text(noise(9, 8))], resize_mode=2, width=4096, height=4096)
    assert beyond.status_code == 422
    assert "pixels" in beyond.json()["detail"]


# ----------------------------------------------------------------------- variations, seamlessness


def test_a_variation_is_the_native_apis_and_info_has_its_seeds(app: Starlette) -> None:
    reply = draw(app, subseed=7, subseed_strength=0.25, batch_size=2)
    assert np.array_equal(first(reply), native(app, subseed=7, subseed_strength=0.25))
    info = reply["info"]
    assert (info["all_seeds"], info["all_subseeds"]) == ([1, 1], [7, 8])
    assert (info["subseed"], info["subseed_strength"]) == (7, 0.25)
    assert (info["seed_resize_from_w"], info["seed_resize_from_h"]) == (-1, -1)
    assert "Variation seed: 8, Variation seed strength: 0.25" in info["infotexts"][1]


def test_a_subseed_of_minus_one_is_drawn(app: Starlette) -> None:
    found = [draw(app, subseed=-1, subseed_strength=0.5)["info"] for _ in range(2)]
    seeds = [info["subseed"] for info in found]
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert seeds[0] != seeds[1]
    assert f"Variation seed: {seeds[0]}," in found[0]["infotexts"][0]
    plain = draw(app, subseed=5)["info"]
    assert (plain["all_seeds"], plain["all_subseeds"]) == ([1], [5])
    assert "Variation" not in plain["infotexts"][0]


def test_tiling_makes_both_axes_seamless(app: Starlette) -> None:
    reply = draw(app, tiling=True)
    assert reply["warnings"] == []
    assert "Tiling: True" in reply["info"]["infotexts"][0]
    assert reply["parameters"]["tiling"] is True
    assert "Tiling" not in draw(app, tiling=False)["info"]["infotexts"][0]


# ------------------------------------------------------------------------------------- hires fix


def test_the_larger_picture_of_the_hires_fix_is_kept(app: Starlette) -> None:
    reply = draw(app, enable_hr=True, hr_resize_x=96, denoising_strength=0.5)
    assert reply["warnings"] == []
    ours = {"hires": 1.5, "keep_size": True, "hires_strength": 0.5}
    assert first(reply).shape == (96, 96, 3)
    assert np.array_equal(first(reply), native(app, **ours))
    info = reply["info"]
    assert (info["width"], info["height"], info["denoising_strength"]) == (64, 64, 0.5)
    assert "Denoising strength: 0.5, Hires upscale: 1.5" in info["infotexts"][0]
    assert "Hires" not in draw(app, denoising_strength=0.5)["info"]["infotexts"][0]


def test_a_second_pass_of_the_same_size_refines_the_picture(app: Starlette) -> None:
    for asked in ({"hr_scale": 1}, {"hr_resize_x": 64}):
        reply = draw(app, enable_hr=True, denoising_strength=0.5, **asked)
        assert reply["warnings"] == []
        assert first(reply).shape == (64, 64, 3)
        assert np.array_equal(first(reply), native(app, hires=1, hires_strength=0.5))
        assert not np.array_equal(first(reply), native(app))


def test_the_second_pass_has_its_own_steps_sampler_schedule_and_upscaler(app: Starlette) -> None:
    asked: dict[str, Any] = {"enable_hr": True, "hr_scale": 2, "hr_second_pass_steps": 6}
    asked |= {"hr_sampler_name": "DPM++ 2M", "hr_scheduler": "Karras", "hr_upscaler": "Twice"}
    reply = draw(app, **asked)
    ours: dict[str, Any] = {"hires": 2, "keep_size": True, "hires_strength": 0.75}
    ours |= {"hires_steps": 6}
    ours |= {"hires_sampler": "dpm++ 2m karras", "hires_upscaler": "Twice"}
    assert reply["warnings"] == []
    assert np.array_equal(first(reply), native(app, **ours))
    same = {"hr_sampler_name": "Use same sampler", "hr_scheduler": "Use same scheduler"}
    usual = draw(app, enable_hr=True, **same, hr_upscaler="None", hr_second_pass_steps=0)
    plain = native(app, hires=2, keep_size=True, hires_strength=0.75)
    assert (usual["warnings"], np.array_equal(first(usual), plain)) == ([], True)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"hr_upscaler": "Latent (nearest)"}, "enlarges latents: Lanczos enlarges instead"),
        ({"hr_upscaler": "SwinIR 4x"}, "unknown upscaler 'SwinIR 4x'"),
        ({"hr_sampler_name": "Eulerish"}, "unknown sampler 'Eulerish'"),
        ({"hr_resize_x": 100}, "hr_resize_x makes 96 x 96: sides are multiples of 8"),
        ({"hr_resize_y": 100, "hr_resize_x": 100}, "makes 96 x 96: sides are multiples of 8"),
        ({"hr_resize_x": 128, "hr_resize_y": 96}, "not cut out here: 128 x 128 are kept"),
    ],
)
def test_what_the_hires_fix_lacks_is_named(
    app: Starlette, asked: dict[str, Any], said: str
) -> None:
    (warning,) = draw(app, enable_hr=True, **asked)["warnings"]
    assert said in warning
    assert draw(app, **asked)["warnings"] == []


@pytest.mark.parametrize("field", ["hr_resize_x", "inpaint_full_res_padding", "subseed"])
@pytest.mark.parametrize("digits", [309, 5000])
def test_sizes_beyond_all_bounds_are_refused(app: Starlette, field: str, digits: int) -> None:
    answer = post(app, init_images=[text(START)], enable_hr=True, **{field: "1" * digits})
    assert answer.status_code == 422
    assert f"{field}: must be" in answer.json()["detail"]


def test_upscalers_are_listed_by_their_labels(app: Starlette) -> None:
    listed = {each["name"]: each for each in ask(app, "GET", V1 + "upscalers").json()}
    assert next(iter(listed)) == "None"
    assert {"Lanczos", "Bicubic", "Nearest", "Twice"} <= set(listed)
    assert listed["Twice"] | {"scale": 2} == {
        "name": "Twice", "model_name": "Twice", "model_path": "Twice.fake",
        "model_url": None, "scale": 2,
    }  # fmt: skip
    for name in listed:
        reply = draw(app, enable_hr=True, hr_upscaler=name)
        assert reply["warnings"] == [], name
