from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagine_core import GenerationRequest
from imagine_core.pictures.infotext import read_infotext, write_infotext

REQUEST = GenerationRequest(
    prompt="a cat, (tiny hat:1.3)", negative_prompt="ugly, blurry", model="dreamshaper_8"
)


def infotext(request: GenerationRequest, **other: str | None) -> str:
    given = {"sampler_label": "DPM++ 2M", "model_hash": "0123456789", "version": "Imagine 1"}
    return write_infotext(request, seed=42, **{**given, **other})  # type: ignore[arg-type]


def test_the_three_parts_stand_on_lines_of_their_own() -> None:
    prompt, negative, details = infotext(REQUEST).split("\n")
    assert prompt == "a cat, (tiny hat:1.3)"
    assert negative == "Negative prompt: ugly, blurry"
    assert details == (
        "Steps: 25, Sampler: DPM++ 2M, CFG scale: 7.0, Seed: 42, Size: 512x512, "
        "Model hash: 0123456789, Model: dreamshaper_8, Version: Imagine 1"
    )


def test_what_was_not_used_is_not_said() -> None:
    text = infotext(replace(REQUEST, negative_prompt=" "), model_hash=None)
    assert text.split("\n")[1].startswith("Steps: 25, ")
    for absent in ("Negative", "hash", "Denoising", "Clip skip", "Hires", "Schedule"):
        assert absent not in text


def test_what_was_used_is_said_in_the_words_of_other_tools() -> None:
    request = replace(
        REQUEST,
        init_image=b"picture",
        strength=0.7,
        clip_skip=2,
        hires_scale=1.5,
        noise_schedule="sgm_uniform",
    )
    details = infotext(request).split("\n")[-1]
    assert "Sampler: DPM++ 2M, Schedule type: SGM Uniform, CFG scale: 7.0" in details
    assert "Denoising strength: 0.7, Clip skip: 2, Hires upscale: 1.5, Version" in details


def test_a_value_that_holds_a_separator_is_quoted() -> None:
    request = replace(REQUEST, model='a, b: "c"\nd')
    text = infotext(request)
    assert text.split("\n")[-1].startswith("Steps: 25")
    assert r'Model: "a, b: \"c\"\nd", Version' in text
    meta = read_infotext(text)
    assert meta is not None
    assert meta["model"] == 'a, b: "c"\nd'


LINE = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])).map(str.strip)


@settings(deadline=None)
@given(prompt=LINE.filter(lambda line: not line.startswith("Negative prompt:")), neg=LINE)
def test_what_is_written_is_read_back(prompt: str, neg: str) -> None:
    request = replace(REQUEST, prompt=prompt, negative_prompt=neg, model=prompt or "m")
    assert read_infotext(infotext(request)) == {
        "model": prompt or "m",
        "prompt": prompt,
        "width": 512,
        "height": 512,
        "steps": 25,
        "guidance": 7.0,
        "sampler": "dpm++ 2m",
        "seed": "42",
        "neg": neg,
        "model_hash": "0123456789",
    }


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_seeds_keep_all_their_digits(seed: int) -> None:
    text = write_infotext(REQUEST, seed=seed, sampler_label="x", model_hash=None, version="1")
    assert (read_infotext(text) or {})["seed"] == str(seed)


def test_prompts_of_several_lines_are_read_from_another_tools_text() -> None:
    text = (
        "a cat\non a mat\n"
        "Negative prompt: ugly\nblurry\n"
        "Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 1, "
        'Size: 640x832, Model hash: abc, Model: m, Denoising strength: 0.4, Lora hashes: "a: 1, '
        'b: 2", Clip skip: 2, Hires upscale: 2, Hires steps: 10, Version: v1.10.1'
    )
    assert read_infotext(text) == {
        "model": "m",
        "prompt": "a cat\non a mat",
        "width": 640,
        "height": 832,
        "steps": 20,
        "guidance": 7.0,
        "sampler": "euler a",
        "seed": "1",
        "neg": "ugly\nblurry",
        "clip": 2,
        "strength": 0.4,
        "hires": 2.0,
        "model_hash": "abc",
    }


@pytest.mark.parametrize("text", ["", "a cat", '{"steps": 5}', "Steps: 5\nthen more"])
def test_another_text_is_no_infotext(text: str) -> None:
    assert read_infotext(text) is None


def test_values_that_make_no_sense_are_left_out() -> None:
    steps = 'Steps: many, CFG scale: nan, Denoising strength: some, Seed: -1, Clip skip: "2, '
    meta = read_infotext(f"cat\n{steps}Size: wide, Model:, Model hash")
    assert meta == {"model": "", "prompt": "cat", "neg": ""}


@settings(deadline=None)
@given(st.text())
def test_any_details_line_is_read_without_an_error(details: str) -> None:
    read_infotext("Steps: " + details)
