"""The Python package `webuiapi`, which is written for A1111's API, draws with doodle."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from webuiapi import ControlNetUnit, HiResUpscaler, Upscaler, WebUIApi

from clients.native import (
    HEIGHT,
    PROMPT,
    SEED,
    STEPS,
    WIDTH,
    Live,
    Pixels,
    base64_of,
    pixels,
    png,
    same,
)
from clients.webui import DRAW, SMALL, pictures

KARRAS = "dpm++ 2m karras"


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


# -- pictures --------------------------------------------------------------------------------------


def test_the_picture_of_a_seed_is_that_of_the_native_api(live: Live, api: WebUIApi) -> None:
    expected = live.draw(seed=SEED, sampler=KARRAS)
    assert same(pictures(api.txt2img(**DRAW)), expected)
    joined = api.txt2img(**SMALL, sampler_name="DPM++ 2M Karras")
    assert same(pictures(joined), expected)
    settings = {"cfg_scale": 4.5, "negative_prompt": "a car", "sampler_name": "Euler a"}
    found = api.txt2img(**SMALL, **settings, scheduler="automatic")
    assert same(pictures(found), live.draw(seed=SEED, sampler="euler a", guidance=4.5, neg="a car"))


def test_the_defaults_of_the_package_draw(api: WebUIApi) -> None:
    api.default_steps = 2
    result = api.txt2img()
    (image,) = result.images
    assert image.size == (512, 512)
    assert result.info["prompt"] == ""
    assert result.info["sampler_name"] == "Euler a"
    assert 0 <= result.info["seed"] < 2**64


def test_the_info_says_what_was_drawn(api: WebUIApi) -> None:
    result = api.txt2img(**DRAW, negative_prompt="a car", batch_size=2, n_iter=1)
    assert len(result.images) == 2
    info = result.info
    assert info["all_seeds"] == [SEED, SEED + 1]
    assert (info["prompt"], info["all_prompts"]) == (PROMPT, [PROMPT] * 2)
    assert (info["width"], info["height"], info["steps"]) == (WIDTH, HEIGHT, STEPS)
    assert (info["cfg_scale"], info["negative_prompt"]) == (7, "a car")
    assert info["sd_model_name"] == "doodle"
    assert info["index_of_first_image"] == 0
    assert info["sampler_name"].startswith("DPM++ 2M")
    for seed, text, image in zip(info["all_seeds"], info["infotexts"], result.images, strict=True):
        assert text.startswith(f"{PROMPT}\nNegative prompt: a car\nSteps: {STEPS}, ")
        assert f"Seed: {seed}" in text
        assert image.info["parameters"] == text
    assert result.parameters["prompt"] == PROMPT
    assert result.parameters["seed"] in {SEED, -1}


def test_a_batch_and_its_repetitions_have_consecutive_seeds(live: Live, api: WebUIApi) -> None:
    result = api.txt2img(**DRAW, batch_size=2, n_iter=2)
    assert result.info["all_seeds"] == [SEED, SEED + 1, SEED + 2, SEED + 3]
    assert same(pictures(result), live.draw(seed=SEED, n=4, sampler=KARRAS))


def test_img2img_starts_from_the_picture(live: Live, api: WebUIApi, house: Pixels) -> None:
    given = Image.fromarray(house.astype("uint8"))
    result = api.img2img(images=[given], **DRAW, denoising_strength=0.6)
    native = live.draw(seed=SEED, sampler=KARRAS, img=base64_of(png(house)), strength=0.6)
    assert same(pictures(result), native)
    assert result.info["denoising_strength"] == 0.6
    assert result.parameters["init_images"] is None


def test_the_larger_picture_of_the_hires_fix_is_kept(live: Live, api: WebUIApi) -> None:
    hires = {"enable_hr": True, "hr_scale": 2, "denoising_strength": 0.5}
    result = api.txt2img(**DRAW, **hires, hr_upscaler=HiResUpscaler.Lanczos)
    asked = {"hires": 2, "keep_size": True, "hires_strength": 0.5}
    assert same(pictures(result), live.draw(seed=SEED, sampler=KARRAS, **asked))
    assert result.image.size == (2 * WIDTH, 2 * HEIGHT)
    latent = api.txt2img(**DRAW, **hires, hr_upscaler=HiResUpscaler.LatentNearest)
    assert same(pictures(latent), pictures(result))
    assert "Lanczos" in latent.info["warnings"][0]


def test_the_text_of_a_picture_can_be_read_again(api: WebUIApi) -> None:
    result = api.txt2img(**DRAW)
    assert api.png_info(result.image).info == result.info["infotexts"][0]
    bare = Image.new("RGB", (8, 8))
    assert api.png_info(bare).info == ""


def test_what_is_wrong_is_an_error_with_a_sentence(api: WebUIApi) -> None:
    for wrong in ({"width": 7}, {"steps": 0}, {"batch_size": 1000}, {"script_name": "none such"}):
        with pytest.raises(RuntimeError) as caught:
            api.txt2img(**{**DRAW, **wrong})
        status, text = caught.value.args
        assert 400 <= status < 500
        assert next(iter(wrong.values())) == "none such" or next(iter(wrong)) in text
    with pytest.raises(RuntimeError):
        api.img2img(images=[], **DRAW)


# -- settings --------------------------------------------------------------------------------------


def test_the_model_is_set_by_a_part_of_its_name(api: WebUIApi) -> None:
    titles = api.util_get_model_names()
    assert api.util_get_current_model() in titles
    api.util_set_model("twin")
    assert api.util_get_current_model() in titles
    assert api.util_get_current_model().startswith("twin")
    assert api.txt2img(**DRAW).info["sd_model_name"] == "twin"
    api.util_set_model("doodle")
    assert api.txt2img(**DRAW).info["sd_model_name"] == "doodle"


def test_a_model_for_one_picture_is_given_back(api: WebUIApi) -> None:
    override = {"sd_model_checkpoint": "twin"}
    assert api.txt2img(**DRAW, override_settings=override).info["sd_model_name"] == "twin"
    assert api.util_get_current_model().startswith("doodle")
    assert api.txt2img(**DRAW).info["sd_model_name"] == "doodle"


def test_clip_skip_is_an_option_and_one_of_a_picture(live: Live, api: WebUIApi) -> None:
    expected = live.draw(seed=SEED, sampler=KARRAS, clip=2)
    override = {"CLIP_stop_at_last_layers": 2}
    result = api.txt2img(**DRAW, override_settings=override)
    assert same(pictures(result), expected)
    assert result.info["clip_skip"] == 2
    assert not same(expected, live.draw(seed=SEED, sampler=KARRAS))


def test_all_options_can_be_sent_back_as_they_were_read(api: WebUIApi) -> None:
    options = api.get_options()
    assert "forge_preset" not in options
    assert options["CLIP_stop_at_last_layers"] == 1
    assert api.set_options({**options, "samples_format": "png"}) is None
    assert api.get_options()["sd_model_checkpoint"] == options["sd_model_checkpoint"]


def test_an_unknown_model_is_refused_and_changes_nothing(api: WebUIApi) -> None:
    before = api.util_get_current_model()
    refused = api.set_options({"sd_model_checkpoint": "none such"})
    assert "none such" in refused["detail"]
    assert api.util_get_current_model() == before


# -- lists -----------------------------------------------------------------------------------------


def test_models_have_titles(live: Live, api: WebUIApi) -> None:
    models = {model["model_name"]: model for model in api.get_sd_models()}
    assert set(models) == set(live.send("GET", "/models").json()["models"])
    for name, model in models.items():
        assert model["title"].startswith(name)
        assert {"hash", "sha256", "filename", "config"} <= set(model)


def test_samplers_and_schedulers_that_are_listed_draw(live: Live, api: WebUIApi) -> None:
    samplers = api.util_get_sampler_names()
    labels = {each["label"] for each in live.send("GET", "/samplers").json()["details"]}
    assert set(samplers) == labels
    assert all(isinstance(each["aliases"], list) for each in api.get_samplers())
    assert {"automatic", "karras"} <= set(api.util_get_scheduler_names())
    karras = next(each for each in api.get_schedulers() if each["name"] == "karras")
    assert karras["label"] == "Karras"
    for name in samplers:
        (image,) = api.txt2img(**{**SMALL, "steps": 2}, sampler_name=name).images
        assert image.size == (WIDTH, HEIGHT)


def test_what_there_is_not_is_an_empty_list(live: Live, api: WebUIApi) -> None:
    assert api.get_upscalers()[0]["name"] == "None"
    assert all("name" in mode for mode in api.get_latent_upscale_modes())
    assert all({"model_name", "filename"} <= set(vae) for vae in api.get_sd_vae())
    assert api.get_loras() == []
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert api.get_scripts() == {"txt2img": ["controlnet"], "img2img": ["controlnet"]}
    controlnets = live.send("GET", "/models?kind=controlnet").json()["models"]
    listed = api.controlnet_model_list()
    assert [name.partition(" [")[0] for name in listed] == controlnets == ["doodle-canny"]
    assert isinstance(api.get_cmd_flags(), dict)
    assert {"ram", "cuda"} <= set(api.get_memory())
    assert api.refresh_checkpoints() is None


@pytest.mark.parametrize(
    "ask",
    [
        WebUIApi.get_hypernetworks,
        WebUIApi.get_face_restorers,
        WebUIApi.get_realesrgan_models,
        WebUIApi.get_prompt_styles,
    ],
)
def test_lists_of_other_things_are_empty_too(
    api: WebUIApi, ask: Callable[[WebUIApi], object]
) -> None:
    assert ask(api) == []


# -- masks, hints, larger pictures -----------------------------------------------------------------


def test_a_mask_repaints_its_part_and_nothing_else(
    live: Live, api: WebUIApi, house: Pixels
) -> None:
    given = Image.fromarray(house.astype("uint8"))
    mask = Image.new("L", given.size, 0)
    mask.paste(255, (32, 32, 96, 80))
    painted = np.asarray(mask) > 0
    asked = {"images": [given], "mask_image": mask, "mask_blur": 0, **DRAW}
    whole = api.img2img(**asked, inpainting_fill=1, inpaint_full_res=False)
    (found,) = pictures(whole)
    assert np.array_equal(found[~painted], house[~painted])
    assert not np.array_equal(found[painted], house[painted])
    native = {"img": base64_of(png(house)), "mask": base64_of(encoded(mask)), "mask_blur": 0}
    assert same([found], live.draw(seed=SEED, sampler=KARRAS, **native, strength=0.75))
    (alone,) = pictures(api.img2img(**asked, inpaint_full_res_padding=8))
    assert np.array_equal(alone[~painted], house[~painted])


def test_a_controlnet_unit_that_cannot_be_obeyed_says_what_there_is(api: WebUIApi) -> None:
    unit = ControlNetUnit(image=Image.new("RGB", (8, 8)), module="openpose", model="none such")
    with pytest.raises(RuntimeError) as caught:
        api.txt2img(**DRAW, controlnet_units=[unit], alwayson_scripts={})
    status, said = caught.value.args
    assert status == 422
    assert "'openpose'" in said
    assert "canny" in said
    assert "canny" in api.controlnet_module_list()
    assert api.controlnet_version() == 2
    white = Image.new("RGB", (8, 8), "white")
    assert not pixels(api.controlnet_detect([white], module="invert").image).any()


def test_a_picture_is_enlarged(api: WebUIApi, house: Pixels) -> None:
    given = Image.fromarray(house.astype("uint8"))
    result = api.extra_single_image(given, upscaler_1=Upscaler.Lanczos, upscaling_resize=2)
    larger = given.resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.LANCZOS)
    assert np.array_equal(pixels(result.image), pixels(larger))
    assert "Lanczos" in result.info
    several = api.extra_batch_images([given, given], upscaler_1="Nearest", upscaling_resize=3)
    assert [image.size for image in several.images] == [(3 * WIDTH, 3 * HEIGHT)] * 2
    assert {"None", "Lanczos", "Nearest"} <= {each["name"] for each in api.get_upscalers()}


def test_a_variation_has_both_seeds(live: Live, api: WebUIApi) -> None:
    result = api.txt2img(**DRAW, subseed=3, subseed_strength=0.3)
    native = live.draw(seed=SEED, sampler=KARRAS, subseed="3", subseed_strength=0.3)
    assert same(pictures(result), native)
    assert (result.info["subseed"], result.info["all_subseeds"]) == (3, [3])
