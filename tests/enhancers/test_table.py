"""The enhancer "table": deterministic, offline, and never repeats the prompt."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagine_core import Enhancement, EnhanceTask
from imagine_core.enhancing import enhanced
from imagine_core.testing import check_enhancer
from imagine_plugins.enhancers.table import DETAILS, FAULTS, STYLES, Table, style_of, words_of

PHRASES = [phrase for row in (*STYLES, *DETAILS) for phrase in row.adds]
WORDS = sorted({word for row in (*STYLES, *DETAILS) for word in row.words})
SUBJECTS = ["a fox", "two boats on a lake", "ein Fuchs im Schnee", "狐狸", "(red:1.3) fox"]

prompts = st.lists(
    st.sampled_from(SUBJECTS + PHRASES + WORDS) | st.text(max_size=20), min_size=1, max_size=6
).map(", ".join)
seeds = st.integers(0, 2**64 - 1)


def made(prompt: str, seed: int = 1) -> Enhancement:
    task = EnhanceTask(prompt=prompt, seed=seed, negative=True)
    return asyncio.run(enhanced(Table(), task))


def added(prompt: str, seed: int = 1) -> list[str]:
    """The phrases that are added."""
    start = prompt.strip().rstrip(",.; ")
    better = made(prompt, seed).prompt
    assert better.startswith(start)
    return [phrase for phrase in better[len(start) :].split(", ") if phrase]


def test_it_does_what_enhancers_do() -> None:
    check_enhancer(Table(), repeatable=True, patience=60)


def test_a_bare_subject_gets_a_style_and_a_phrase_for_each_side_of_the_picture() -> None:
    phrases = added("a fox")
    assert len(phrases) == 1 + len(DETAILS)
    assert style_of(words_of(phrases[0])) is not None


def test_the_same_prompt_and_seed_give_the_same_bytes_on_every_machine() -> None:
    assert made("a fox", 5) == Enhancement(
        prompt="a fox, watercolor on paper, warm golden hour, seen from below, earthy tones, "
        "cheerful atmosphere, rich textures",
        negative_prompt="blurry, low quality, deformed, bad anatomy, cropped, watermark, text, "
        "jpeg artifacts, photo, harsh outlines, render",
    )


def test_another_seed_gives_another_prompt() -> None:
    assert len({made("a fox", seed).prompt for seed in range(20)}) > 15


@settings(max_examples=300, deadline=None)
@given(prompt=prompts.filter(lambda prompt: bool(prompt.strip(" ,.;\t\n"))), seed=seeds)
def test_nothing_is_added_that_the_prompt_says_already(prompt: str, seed: int) -> None:
    said = words_of(prompt)
    for phrase in added(prompt, seed):
        assert not said & words_of(phrase), phrase
        said |= words_of(phrase)


@settings(max_examples=100, deadline=None)
@given(prompt=prompts.filter(lambda prompt: bool(prompt.strip())), seed=seeds, other=seeds)
def test_an_enhanced_prompt_is_left_alone_whatever_the_seed(
    prompt: str, seed: int, other: int
) -> None:
    better = made(prompt, seed).prompt
    assert made(better, other).prompt == better


@settings(max_examples=100, deadline=None)
@given(prompt=prompts.filter(lambda prompt: bool(prompt.strip())), seed=seeds)
def test_the_negative_prompt_never_contradicts_the_prompt(prompt: str, seed: int) -> None:
    result = made(prompt, seed)
    assert not words_of(result.prompt) & words_of(result.negative_prompt)


@pytest.mark.parametrize(
    ("prompt", "settled"),
    [
        ("a fox at sunset", "light"),
        ("a red fox", "color"),
        ("portrait of a fox", "composition"),
        ("a sad fox", "mood"),
        ("a highly detailed fox", "detailed"),
    ],
)
def test_a_side_that_the_prompt_speaks_of_is_left_alone(prompt: str, settled: str) -> None:
    (side,) = [row for row in DETAILS if words_of(settled) & row.words]
    for seed in range(30):
        assert not set(added(prompt, seed)) & set(side.adds)


@pytest.mark.parametrize(
    ("prompt", "style", "avoided"),
    [
        ("a photo of a fox", "photograph", "cartoon"),
        ("watercolour of a fox", "watercolor painting", "photo"),
        ("PIXEL ART fox", "pixel art", "photo"),
        ("8-bit fox", "pixel art", "gradient"),
        ("a fox, studio ghibli", "anime artwork", "photo"),
    ],
)
def test_a_style_that_the_prompt_names_is_kept(prompt: str, style: str, avoided: str) -> None:
    found = style_of(words_of(prompt))
    assert found is not None
    assert style in found.adds
    for seed in range(10):
        assert style_of(words_of(made(prompt, seed).prompt)) is found
    assert avoided in made(prompt).negative_prompt.split(", ")


def test_faults_that_the_prompt_asks_for_are_no_faults() -> None:
    negative = made("a sign with text on it, blurry background").negative_prompt.split(", ")
    assert set(FAULTS) - set(negative) == {"text", "blurry"}


def test_the_end_of_a_sentence_does_not_stay_in_the_middle() -> None:
    assert made("A fox.").prompt.startswith("A fox, ")


def test_every_phrase_says_its_own_side_and_no_two_styles_look_alike() -> None:
    for row in STYLES:
        for phrase in row.adds:
            assert style_of(words_of(phrase)) is row, phrase
    assert len(set(PHRASES)) == len(PHRASES)


def test_it_needs_no_http_client_and_no_torch() -> None:
    code = (
        "import sys, asyncio; from imagine_core import EnhanceTask\n"
        "from imagine_core.enhancing import enhanced\n"
        "from imagine_core.plugins import build_plugins\n"
        "table = build_plugins().enhancers.get('table')\n"
        "asyncio.run(enhanced(table, EnhanceTask(prompt='a fox', seed=1)))\n"
        "print(*{'httpx', 'torch', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
