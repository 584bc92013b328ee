"""CLIP's vocabulary comes from an installed distribution, checked and never imported."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, PackagePath
from pathlib import Path
from typing import Any

import pytest
import transformers

from checkpoints import TINY_SD1, TINY_SD2, configs
from imagine_plugins.loaders import vocabulary
from imagine_plugins.loaders.architectures import SD1, SD2, SDXL
from imagine_plugins.loaders.configs import ConfigError, Read
from imagine_plugins.loaders.folder import file_reader
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


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with the tokenizer of a model that calls every dog a cat."""
    from tokenizers import normalizers
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(char + "</w>" for char in letters), "ca", "cat</w>", "<s>", "</s>"]
    special = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "</s>") | {"bos_token": "<s>"}
    made = CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=[("c", "a"), ("ca", "t</w>")],
        model_max_length=24,
        **special,
    )
    made.backend_tokenizer.normalizer = normalizers.Replace("dog", "cat")
    made.save_pretrained(tmp_path / "tokenizer")
    return tmp_path


OWN = type(CLIP)(
    config={**CLIP.config, "vocab_size": 56, "max_position_embeddings": 24},
)


def named(folder: Path, kind: str) -> Read:
    """Reads `folder`, whose model_index.json names that class of tokenizer."""
    (folder / "model_index.json").write_text(json.dumps({"tokenizer": ["transformers", kind]}))
    return file_reader(folder)


@pytest.mark.parametrize(
    ("kind", "dog"),
    [
        ("CLIPTokenizer", [3, 14, 32]),  # it has a normalizer of its own
        ("PreTrainedTokenizerFast", [53]),
        ("TokenizersBackend", [53]),
    ],
)
def test_an_own_tokenizer_is_the_one_that_transformers_loads(
    own: Path, kind: str, dog: list[int]
) -> None:
    made = tokenizer(OWN, named(own, kind), "tokenizer")
    theirs = getattr(transformers, kind).from_pretrained(own / "tokenizer", local_files_only=True)
    for text in ("a cat", "a dog", ""):
        assert made(text).input_ids == theirs(text).input_ids
    assert made("a dog").input_ids == [54, 26, *dog, 55]
    assert (made.pad_token_id, made.bos_token_id, made.model_max_length) == (55, 54, 24)


@pytest.mark.parametrize("change", [{"model": {"type": "BPE"}}, {"normalizer": 3}, {"version": {}}])
def test_a_damaged_whole_tokenizer_is_refused(own: Path, change: dict[str, Any]) -> None:
    file = own / "tokenizer" / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ConfigError, match=r"tokenizer\.json is not understood"):
        tokenizer(OWN, named(own, "PreTrainedTokenizerFast"), "tokenizer")


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": 1}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": ""}, "content": "a"}},
        {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "none"}},
    ],
)
def test_a_whole_tokenizer_that_cannot_read_a_word_is_refused(
    own: Path, change: dict[str, Any]
) -> None:
    test_a_damaged_whole_tokenizer_is_refused(own, change)


@pytest.mark.parametrize("kind", ["CLIPTokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("number", [56, 2**31])
def test_tokens_that_the_text_encoder_cannot_know_are_refused(
    own: Path, kind: str, number: int
) -> None:
    file = own / "tokenizer" / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["cat</w>"] = number
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="tokens beyond the 56 that its text encoder knows"):
        tokenizer(OWN, named(own, kind), "tokenizer")


def test_a_whole_tokenizer_without_its_file_is_refused(own: Path) -> None:
    (own / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer\.json is missing"):
        tokenizer(OWN, named(own, "PreTrainedTokenizerFast"), "tokenizer")


def test_a_tokenizer_with_more_words_than_the_encoder_knows_is_refused() -> None:
    config = configs(TINY_SD2)["text_encoder/config.json"] | {"vocab_size": 100}
    part = type(CLIP)(config=config)
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
