from __future__ import annotations

import json
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagine_core import ResolvedRequest
from imagine_core.fields import from_json
from imagine_core.pictures.infotext import LABELS, infotext_details, read_infotext, write_infotext
from imagine_core.pictures.infotext_values import READERS
from imagine_core.types import HIRES_STRENGTH, LoraUse

REQUEST = ResolvedRequest(
    prompt="a cat, (tiny hat:1.3)", negative_prompt="ugly, blurry", model="dreamshaper_8"
)


def infotext(request: ResolvedRequest, **other: str | None) -> str:
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
    assert "Denoising strength: 0.7, Clip skip: 2, Hires strength: 0.35, Hires up" in details


def test_a_hires_fix_is_said_so_that_a1111_switches_its_own_on() -> None:
    """It does so for a denoising strength beside a factor, and takes both over."""
    details = infotext(replace(REQUEST, hires_scale=1.5)).split("\n")[-1]
    assert f", Denoising strength: {HIRES_STRENGTH}, Hires upscale: 1.5, " in details
    assert ", Hires upscaler: Lanczos, " in details  # A1111's name of the upscaler
    assert "Hires steps" not in details  # as many as the first pass, which is A1111's default


@pytest.mark.parametrize("init_image", [None, b"picture"])
def test_a_hires_fix_is_read_back(init_image: bytes | None) -> None:
    request = replace(REQUEST, hires_scale=1.5, init_image=init_image, strength=0.7)
    meta = read_infotext(infotext(request)) or {}
    assert meta["hires"] == 1.5
    assert meta.get("strength") == (None if init_image is None else 0.7)


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


CORPUS: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("infotexts.json").read_text("utf-8")
)


@pytest.mark.parametrize("case", CORPUS, ids=[case["what"] for case in CORPUS])
def test_infotext_is_read_as_the_grammar_says(case: dict[str, Any]) -> None:
    assert read_infotext(case["text"]) == case["meta"]


def test_every_label_has_a_reader() -> None:
    assert set(LABELS.values()) == set(READERS)


def test_keys_are_in_the_order_of_our_own_metadata() -> None:
    meta = read_infotext("a cat\nNegative prompt: x\nSeed: 1, Steps: 2, Model: m, Size: 8x8") or {}
    assert list(meta) == ["model", "prompt", "width", "height", "steps", "seed", "neg"]


def test_details_have_every_label_as_it_is_written() -> None:
    text = (
        "a cat, 猫\nNegative prompt: ugly,\nbad\nSteps: 20, Sampler: Euler a, CFG scale: 7, "
        'Seed: 42, Size: 512x768, Hires resize: 1024x1536, Lora hashes: "a: 1, b: 2", '
        "Unheard of: yes, Version: v1.10.1"
    )
    assert infotext_details(text) == {
        "Prompt": "a cat, 猫",
        "Negative prompt": "ugly,\nbad",
        "Steps": "20",
        "Sampler": "Euler a",
        "CFG scale": "7",
        "Seed": "42",
        "Size-1": "512",
        "Size-2": "768",
        "Hires resize-1": "1024",
        "Hires resize-2": "1536",
        "Lora hashes": "a: 1, b: 2",
        "Unheard of": "yes",
        "Version": "v1.10.1",
    }


@pytest.mark.parametrize("text", ["", "a cat", "a cat\nSize: 8x8, Seed: 1", "Steps: many, a: b"])
def test_what_is_no_infotext_has_no_details(text: str) -> None:
    assert infotext_details(text) == {}


@pytest.mark.parametrize("case", CORPUS, ids=[case["what"] for case in CORPUS])
def test_details_are_there_where_an_infotext_is(case: dict[str, Any]) -> None:
    details = infotext_details(case["text"])
    assert bool(details) == (case["meta"] is not None)
    if details:
        if "loras" not in case["meta"]:  # their tags are part of the prompt
            assert details["Prompt"] == case["meta"]["prompt"]
        assert details["Negative prompt"] == case["meta"]["neg"]


def test_of_a_label_that_is_there_twice_the_first_counts() -> None:
    details = infotext_details("a\nSteps: 1, Seed: 2, Size: 8x16, Seed: 3, Size: 32x64")
    assert (details["Seed"], details["Size-1"], details["Size-2"]) == ("2", "8", "16")


@settings(deadline=None)
@given(st.text(st.sampled_from(' \n,:"\\{}[]aS.')))
def test_any_settings_are_read_without_an_error(settings: str) -> None:
    meta = read_infotext("a cat\nSteps: 20, Seed: 3, Sampler: x, " + settings)
    assert meta is not None
    assert (meta["steps"], meta["seed"]) == (20, "3")


SLOW = [" ", "a ", "a: ", ', a: "', ", a: {", ', a: {"', ', a: {\\"', "\\", "a/", "Steps: 1, "]


@pytest.mark.parametrize("part", SLOW)
@pytest.mark.parametrize("start", ["", "a mill\nSteps: 3,", "Steps: 3, Model: "])
def test_the_time_grows_with_the_length_alone(start: str, part: str) -> None:
    def seconds(length: int) -> float:
        text = start + part * (length // len(part))
        before = time.process_time()
        read_infotext(text)
        return time.process_time() - before

    seconds(10_000)
    # A quadratic reader would take 64 times as long.
    assert seconds(160_000) < 20 * max(seconds(20_000), 0.005)


def test_a_quoted_value_of_millions_of_characters_takes_little_memory() -> None:
    text = 'red\nSteps: 5, Size: 8x8, Seed: 1, a: "' + "x" * 4_000_000
    tracemalloc.start()
    infotext_details(text)
    assert tracemalloc.get_traced_memory()[1] < 10 * len(text)
    tracemalloc.stop()


def test_loras_are_tags_in_the_prompt_with_their_hashes_among_the_details() -> None:
    uses = (
        LoraUse(name="ink", weight=0.8),
        LoraUse(name="wet paper", weight=-1.0, text_weight=0.5, start=0.2, blocks="MIDD"),
    )
    text = write_infotext(
        replace(REQUEST, loras=uses, vae="mse"),
        seed=42,
        sampler_label="DPM++ 2M",
        model_hash=None,
        version="Imagine 1",
        hashes={"lora:ink": "0123456789ab", "vae": "9876543210", "embed:bad": "aaaaaaaaaa"},
    )
    prompt, _, details = text.split("\n")
    assert prompt == (
        "a cat, (tiny hat:1.3) <lora:ink:0.8> <lora:wet paper:0.5:-1:lbw=MIDD:start=0.2>"
    )
    assert details.endswith(
        'VAE hash: 9876543210, VAE: mse, Lora hashes: "ink: 0123456789ab", '
        'TI hashes: "bad: aaaaaaaaaa", Version: Imagine 1'
    )
    meta = read_infotext(text)
    assert meta is not None
    assert meta["prompt"] == REQUEST.prompt
    assert meta["vae"] == "mse"
    assert from_json({"prompt": "", "loras": meta["loras"]})[0].loras == uses


@pytest.mark.parametrize("prompt", ["<lora:ink:much> a cat", "<hypernet:old:1> a cat", "a < b > c"])
def test_what_is_no_lora_stays_in_the_prompt(prompt: str) -> None:
    meta = read_infotext(f"{prompt}\nSteps: 20, Sampler: Euler a, Seed: 42, Size: 64x64")
    assert meta is not None
    assert (meta["prompt"], meta.get("loras")) == (prompt, None)


def test_loras_are_read_where_the_number_of_steps_makes_no_sense() -> None:
    meta = read_infotext("a cat <lora:ink:1>\nSteps: 12345678901")
    assert meta == {"prompt": "a cat", "neg": "", "loras": [{"name": "ink", "weight": 1.0}]}
