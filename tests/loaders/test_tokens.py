"""The tokens of a prompt: all of the user's text counts, and keeps its weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from doodle.tokenizer import load_tokenizer
from imagine_core.plugins import build_plugins
from imagine_core.prompting import parse
from imagine_plugins.loaders.tokens import comma, read
from imagine_plugins.loaders.words import Places
from reference import clip_tokenizer


@pytest.fixture(scope="module")
def clip() -> Any:
    return clip_tokenizer()


@pytest.fixture(scope="module")
def doodle() -> Any:
    (folder,) = build_plugins(only=["imagine-model-doodle"]).model_folders()
    return load_tokenizer(Path(folder) / "doodle" / "tokenizer")


def named(tokenizer: Any, prompt: str) -> list[tuple[str, float]]:
    tokens = read(tokenizer, parse(prompt), Places({})).tokens
    return [(tokenizer.convert_ids_to_tokens(token), weight) for token, weight in tokens]


def test_each_token_has_the_weight_of_the_words_it_comes_from(clip: Any, doodle: Any) -> None:
    expected = [("a</w>", 1), ("red</w>", 1.5), ("cat</w>", 1.5), ("big</w>", 1)]
    assert named(clip, "a (red cat:1.5) big") == expected
    assert named(doodle, "a (red zorblax cat:1.5) big") == expected


@pytest.mark.parametrize("control", ["<|endoftext|>", "<|startoftext|>"])
def test_control_tokens_that_the_user_wrote_are_text(clip: Any, doodle: Any, control: str) -> None:
    for prompt in (f"a cat {control} a dog", f"a ({control}:1.3)", control):
        found = [token for token, _ in read(clip, parse(prompt), Places({})).tokens]
        assert not {clip.bos_token_id, clip.eos_token_id} & set(found)
    assert "".join(name for name, _ in named(clip, control)).replace("</w>", "") == control
    assert named(doodle, f"a red {control} cat") == named(doodle, "a red cat")
    assert read(doodle, parse(f"a red {control} cat"), Places({})).unread == (control.strip("<|>"),)


def test_a_comma_is_known_by_its_token(clip: Any, doodle: Any) -> None:
    for tokenizer in (clip, doodle):
        assert [(comma(tokenizer), 1.0)] == [
            read(tokenizer, parse("cat, dog"), Places({})).tokens[1]
        ]
