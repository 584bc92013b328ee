"""CLIP's vocabulary comes from an installed distribution, checked and never imported."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, PackagePath
from pathlib import Path
from typing import Any

import pytest

from checkpoints import TINY_SD1, TINY_SD2, configs
from imagine_plugins.loaders import vocabulary
from imagine_plugins.loaders.architectures import SD1, SD2, SDXL
from imagine_plugins.loaders.configs import ConfigError
from imagine_plugins.loaders.tokenizers import tokenizer
from imagine_plugins.loaders.vocabulary import VocabularyError, clip_vocabulary

CLIP = SD1.texts[0]


@pytest.fixture
def _forgotten() -> Any:
    clip_vocabulary.cache_clear()
    yield
    clip_vocabulary.cache_clear()


def nothing(name: str) -> None:
    del name


def test_the_vocabulary_has_clips_tokens_in_their_places() -> None:
    tokens, merges = clip_vocabulary()
    assert (len(tokens), len(merges)) == (49_408, 48_894)
    assert tokens["!"] == 0
    assert (tokens["<|startoftext|>"], tokens["<|endoftext|>"]) == (49_406, 49_407)
    assert merges[0] == ("i", "n")


def test_a_sentence_gets_the_tokens_that_clip_was_trained_with() -> None:
    made = tokenizer(CLIP, nothing, "tokenizer")
    assert made("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert made.pad_token_id == 49407


@pytest.mark.parametrize("part", [SD2.texts[0], SDXL.texts[1]])
def test_an_exclamation_mark_stays_a_word_where_it_pads_too(part: Any) -> None:
    made = tokenizer(part, nothing, "tokenizer")
    assert made("! !! !!!", add_special_tokens=False).input_ids == [256, 748, 995]
    assert made.pad_token_id == 0


def test_an_own_tokenizer_is_read_from_the_files_that_transformers_writes(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    from imagine_plugins.loaders.folder import _reader

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(char + "</w>" for char in letters), "ca", "cat</w>", "<s>", "</s>"]
    special = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "</s>") | {"bos_token": "<s>"}
    made = CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=[("c", "a"), ("ca", "t</w>")],
        model_max_length=24,
        **special,
    )
    made.save_pretrained(tmp_path / "tokenizer")
    config = {**CLIP.config, "vocab_size": len(words), "max_position_embeddings": 24}
    part = type(CLIP)(prefix="", layout="clip", config=config)
    again = tokenizer(part, _reader(tmp_path), "tokenizer")
    assert again("a cat").input_ids == made("a cat").input_ids == [54, 26, 53, 55]
    assert (again.pad_token_id, again.bos_token_id, again.model_max_length) == (55, 54, 24)


def test_a_tokenizer_with_more_words_than_the_encoder_knows_is_refused() -> None:
    config = configs(TINY_SD2)["text_encoder/config.json"] | {"vocab_size": 100}
    part = type(CLIP)(prefix="", layout="clip", config=config)
    with pytest.raises(ConfigError, match="49408 tokens, its text encoder knows 100"):
        tokenizer(part, nothing, "tokenizer")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", {"model": {"type": "Unigram"}}),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": [], "merges": []}}),
        ("vocab.json", {"a": 0}),
        ("merges.txt", "a b"),
    ],
)
def test_damaged_tokenizer_files_are_refused(file: str, content: object) -> None:
    with pytest.raises(ConfigError, match="tokenizer"):
        tokenizer(CLIP, {f"tokenizer/{file}": content}.get, "tokenizer")


@pytest.mark.usefixtures("_forgotten")
def test_a_missing_distribution_is_named_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(vocabulary, "files", missing)
    with pytest.raises(VocabularyError, match="pip install openai-clip"):
        clip_vocabulary()


@pytest.mark.usefixtures("_forgotten")
def test_another_file_of_that_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / vocabulary.FILE).write_bytes(b"something else")
    other = PackagePath(vocabulary.FILE)
    other.dist = type("Dist", (), {"locate_file": staticmethod(lambda path: tmp_path / path)})()
    monkeypatch.setattr(vocabulary, "files", lambda name: [other])
    with pytest.raises(VocabularyError, match="not the vocabulary"):
        clip_vocabulary()


def test_the_plugins_import_nothing_heavy_and_the_vocabulary_no_package() -> None:
    code = (
        "import sys, imagine_plugins.loaders.checkpoint, imagine_plugins.loaders.folder\n"
        "from imagine_plugins.loaders.vocabulary import clip_vocabulary; clip_vocabulary()\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'clip', 'numpy', 'PIL', 'safetensors'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tiny_layouts_use_the_whole_vocabulary() -> None:
    assert TINY_SD1.texts[0].vocabulary == len(clip_vocabulary()[0])
