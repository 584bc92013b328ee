"""doodle reads the words that it knows in a prompt, and ignores others."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from doodle.captions import caption
from doodle.facts import random_scene
from doodle.tokenizer import EOS, assembled, load_tokenizer
from imagine_core.plugins import build_plugins
from imagine_plugins.commands.shared.request import DEFAULT_NEGATIVE


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    (folder,) = build_plugins(only=["imagine-model-doodle"]).model_folders()
    return load_tokenizer(Path(folder) / "doodle" / "tokenizer")


@pytest.fixture
def read(tokenizer: Any) -> Any:
    """Gives the tokens of a text, without those around it."""
    return tokenizer.tokenize


@pytest.mark.parametrize(
    "text",
    [
        DEFAULT_NEGATIVE,
        "",
        " ,. ,",
        "zorblax quuxing, by gloria mundi",
        "masterpiece, best quality, 8k, trending on artstation",
        "bad hands, poorly drawn face, full body, out of frame, depth of field",
        "une maison, 日本の家, дом 🏠",
        "by the, in a",
        "catalogue, infrared, boathouse",
    ],
)
def test_a_text_without_a_word_that_it_knows_is_an_empty_one(read: Any, text: str) -> None:
    assert read(text) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("An EPIC red house, intricate, by somebody, at night!!!", "an red house , at night"),
        ("a cat with a tiny hat, watercolor painting", None),
        ("two cats", "cat"),
        ("puppies, ponies and fishes in cities", "puppy , pony fish in city"),
        ("the cat's house", "the cat house"),
        ("trees in the woods, red flowers", "tree in the woods , red flower"),
        ("a cat among trees, a field of flowers", None),
        ("red_house (8-bit)", "red house 8 bit"),
        ("a cat by Greg Rutkowski in the snow.", "a cat in the snow"),
        ("a cat with glasses on mars, f/1.8, 1,5", "a cat on mars"),
        ("an intricate house in a big old forest", "an house in a big forest"),
        ("concept art of a cat. It is at night", "a cat , at night"),
        ("a full epic moon, hot spiced air balloons", "a full moon , hot air balloon"),
        ("dark blue car in the dark", "blue car in the dark"),
        ("water color of a cat by the water", "watercolor of a cat by the water"),
        ("hates cares cubes", ""),
        ("a full moon, full body", "a full moon"),
        ("bright red car, golden hour", "red car , golden hour"),
    ],
)
def test_what_it_knows_stays_as_it_was_said(read: Any, text: str, words: str | None) -> None:
    expected = (text.replace(",", " ,") if words is None else words).split()
    assert "".join(read(text)).replace("</w>", " ").split() == expected


def test_captions_are_read_whole(tokenizer: Any, read: Any) -> None:
    model = tokenizer.backend_tokenizer.model
    rng = random.Random(5)
    for _ in range(500):
        text = caption(random_scene(rng), rng).lower().replace("8-bit", "8 bit")
        words = text.replace(",", " ,").split()
        tokens = [token.value for word in words for token in model.tokenize(word)]
        assert read(text) == tokens, text


def test_the_packaged_tokenizer_is_the_one_that_the_training_would_make(tokenizer: Any) -> None:
    packaged = json.loads(tokenizer.backend_tokenizer.to_str())
    merges = [tuple(pair) for pair in packaged["model"]["merges"]]
    again = assembled(packaged["model"]["vocab"], merges)
    assert json.loads(again.backend_tokenizer.to_str()) == packaged
    assert again.pad_token == tokenizer.pad_token == EOS


@pytest.mark.parametrize("part", ["a ", ",", " ,", "z", "cats ", "es", "the by at ", "hand drawn "])
def test_no_text_takes_it_long(read: Any, part: str) -> None:
    text = part * (100_000 // len(part))
    assert len(read(text)) <= len(text)  # backtracking takes hours
