"""Embeddings in prompts, against text encoders that are called by hand with the vectors."""

from __future__ import annotations

import copy
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import TINY_SD1, TINY_SD2, TINY_SDXL, Layout, write_checkpoint
from doodle.tokenizer import load_tokenizer
from imagine_core.parts import Parts
from imagine_core.plugins import build_plugins
from imagine_core.prompting import parse, sections
from imagine_plugins.loaders.emphasis import weighted
from imagine_plugins.loaders.tokens import read
from imagine_plugins.loaders.words import Places, Word
from reference import Half, clip_tokenizer, load

LAYOUTS: dict[str, Layout] = {"sd1": TINY_SD1, "sd2": TINY_SD2, "sdxl": TINY_SDXL}
COMPONENTS = ("text_encoder", "text_encoder_2")
UNUSED = 40_000  # tokens from here on are in no prompt of these tests
Row = int | torch.Tensor


@pytest.fixture(scope="module", params=LAYOUTS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    return load(write_checkpoint(folder / "tiny.safetensors", LAYOUTS[request.param]))


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(write_checkpoint(tmp_path_factory.mktemp("m") / "tiny.safetensors", TINY_SD1))


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(write_checkpoint(tmp_path_factory.mktemp("m") / "tiny.safetensors", TINY_SDXL))


def encoders(model: Any) -> list[Any]:
    return [model.text, model.second] if hasattr(model, "second") else [model.text]


def random_vectors(model: Any, count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        component: torch.randn(count, text.model.config.hidden_size, generator=generator) * 0.1
        for component, text in zip(COMPONENTS, encoders(model), strict=False)
    }


def encode(model: Any, prompt: str, **found: Any) -> Any:
    """A prompt with embeddings by name; underscores stand for dashes."""
    parts = Parts(
        embeddings={
            name.replace("_", "-"): SimpleNamespace(vectors=each, hash=None, close=lambda: None)
            for name, each in found.items()
        }
    )
    return model.encode_prompt(prompt, clip_skip=1, width=64, height=64, parts=parts)


def ids(model: Any, text: str) -> list[Row]:
    return list(model.text.tokenizer(text, add_special_tokens=False).input_ids)


@torch.no_grad()
def by_hand(text: Any, chunks: Sequence[Sequence[Row]]) -> tuple[torch.Tensor, torch.Tensor]:
    """What a text encoder makes of chunks of tokens and vectors, its layers called by hand."""
    twin = copy.deepcopy(text.model)
    table = twin.get_input_embeddings().weight
    outputs, token = [], UNUSED
    for chunk in chunks:
        known = []
        for row in chunk:
            if isinstance(row, torch.Tensor):
                table[token] = row
                known.append(token)
                token += 1
            else:
                known.append(row)
        tokenizer = text.tokenizer
        padding = [tokenizer.pad_token_id] * (75 - len(known))
        whole = [tokenizer.bos_token_id, *known, tokenizer.eos_token_id, *padding]
        outputs.append(twin(torch.tensor([whole]), output_hidden_states=True))
    layers = [
        each.last_hidden_state if text.normalise else each.hidden_states[-text.first_layer]
        for each in outputs
    ]
    first = outputs[0]
    pooled = first.text_embeds if "text_embeds" in first else first.pooler_output
    return torch.cat(layers, dim=1), pooled


def assert_read(model: Any, encoded: Any, chunks: Sequence[Sequence[Any]]) -> None:
    """The encoding is that of the chunks, where a dictionary is an embedding's vectors."""
    results = []
    for component, text in zip(COMPONENTS, encoders(model), strict=False):
        rows = [
            [
                each
                for row in chunk
                for each in (row.get(component, ()) if isinstance(row, dict) else [row])
            ]
            for chunk in chunks
        ]
        results.append(by_hand(text, rows))
    expected = torch.cat([context for context, _ in results], dim=-1)
    torch.testing.assert_close(encoded.context, expected, atol=1e-6, rtol=0)
    if "text_embeds" in encoded.extras:
        torch.testing.assert_close(encoded.extras["text_embeds"], results[-1][1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("prompt", ["a {} cat", "{}", "a,{}, cat", "a (one) {} {}. cat"])
def test_vectors_stand_in_the_place_of_tokens(model: Any, prompt: str) -> None:
    bad = random_vectors(model, 3)
    encoded = encode(
        model,
        prompt.format("BAD-hands-5", "embedding:bad-hands-5").replace("(one)", "one"),
        bad_hands_5=bad,
    )
    rows = [
        row
        for piece in prompt.replace("(one)", "one").split("{}")
        for row in [*ids(model, piece), bad]
    ]
    assert_read(model, encoded, [rows[:-1]])
    assert encoded.warnings == ()


def test_an_embedding_that_is_a_words_own_vector_is_that_word(model: Any) -> None:
    vectors = {}
    for component, text in zip(COMPONENTS, encoders(model), strict=False):
        (cat,) = ids(model, "cat")
        vectors[component] = text.model.get_input_embeddings().weight[[cat]].float()
    for prompt in ("a {} here", "a ({}:1.3) [here]", "{} BREAK a {}", "x, " * 24 + "a b c {} dog"):
        plain, word = prompt.replace("{}", "cat"), prompt.replace("{}", "Zorblax")
        ours, theirs = encode(model, word, zorblax=vectors), encode(model, plain)
        assert torch.equal(ours.context, theirs.context)
        assert ours.warnings == theirs.warnings
        for name, value in theirs.extras.items():
            assert torch.equal(ours.extras[name], value)


def test_a_weight_multiplies_the_vectors_output_as_that_of_tokens(sd1: Any) -> None:
    bad = random_vectors(sd1, 2)["text_encoder"]
    heavy = encode(sd1, "a (cat Bad:1.4) [x]", bad={"text_encoder": bad})
    plain, _ = by_hand(sd1.text, [[*ids(sd1, "a cat"), *bad, *ids(sd1, "x")]])
    factors = torch.ones(77)
    factors[2:5] = 1.4
    factors[5] = 1 / 1.1
    torch.testing.assert_close(heavy.context, weighted(plain, factors), atol=1e-6, rtol=0)


def test_an_embedding_that_does_not_fit_begins_the_next_chunk_whole(model: Any) -> None:
    bad = random_vectors(model, 10)
    cat, comma = ids(model, "cat,")
    fits = encode(model, "cat " * 65 + "bad", bad=bad)
    assert_read(model, fits, [[cat] * 65 + [bad]])
    assert fits.warnings == ()
    over = encode(model, "cat " * 66 + "bad, cat", bad=bad)
    assert_read(model, over, [[cat] * 66, [bad, comma, cat]])
    assert over.warnings == ("prompt has 78 tokens: encoded in 2 chunks of 75",)
    after_a_comma = encode(model, "cat " * 60 + ", cat cat cat cat cat, bad", bad=bad)
    assert_read(model, after_a_comma, [[*[cat] * 60, comma, *[cat] * 5, comma], [bad]])


def test_an_embedding_longer_than_a_chunk_loses_no_vector(sd1: Any) -> None:
    long = random_vectors(sd1, 160)["text_encoder"]
    (cat,) = ids(sd1, "cat")
    encoded = encode(sd1, "cat Long cat", long={"text_encoder": long})
    assert_read(sd1, encoded, [[cat], [*long[:75]], [*long[75:150]], [*long[150:], cat]])


def test_words_that_move_to_the_next_chunk_take_an_embedding_along(sd1: Any) -> None:
    bad = random_vectors(sd1, 3)
    cat, comma = ids(sd1, "cat,")
    encoded = encode(sd1, "cat " * 66 + ", bad " + "cat " * 10, bad=bad)
    assert_read(sd1, encoded, [[*[cat] * 66, comma], [bad, *[cat] * 10]])


def test_the_longest_name_wins_in_prompts_and_negative_prompts(sd1: Any) -> None:
    short, long = random_vectors(sd1, 1, seed=1), random_vectors(sd1, 4, seed=2)
    both = {"badhand": short, "badhand_v4": long}
    for prompt in ("badhand, BADHAND-V4", "BadHand-v4, badhandle, badhand"):
        encoded = encode(sd1, prompt, **both)
        rows = {"badhand": short, "badhand-v4": long, "badhandle": ids(sd1, "badhandle")}
        pieces = [rows[piece] for piece in prompt.lower().split(", ")]
        flat: list[Any] = []
        for number, piece in enumerate(pieces):
            flat += [
                *(ids(sd1, ",") if number else []),
                *(piece if isinstance(piece, list) else [piece]),
            ]
        assert_read(sd1, encoded, [flat])


def test_a_text_encoder_without_vectors_reads_nothing_there_and_cuts_as_the_other(
    sdxl: Any,
) -> None:
    half = {"text_encoder_2": random_vectors(sdxl, 10)["text_encoder_2"]}
    uneven = {"text_encoder": random_vectors(sdxl, 2)["text_encoder"], **half}
    cat, dog = ids(sdxl, "cat dog")
    said = (
        "embedding 'half' has no vectors for one of this model's text encoders, "
        "which reads nothing in its place"
    )
    short = encode(sdxl, "cat Half dog", half=half)
    assert_read(sdxl, short, [[cat, half, dog]])
    assert short.warnings == (said,)
    long = encode(sdxl, "cat " * 66 + "half dog", half=half)
    assert_read(sdxl, long, [[cat] * 66, [half, dog]])
    assert long.warnings == ("prompt has 77 tokens: encoded in 2 chunks of 75", said)
    assert_read(sdxl, encode(sdxl, "cat x dog", x=uneven), [[cat, uneven, dog]])
    assert encode(sdxl, "cat " * 66 + "(x:1.3) dog", x=uneven).context.shape[1] == 2 * 77


def test_a_prompt_is_encoded_again_where_an_embedding_of_its_was_replaced(sd1: Any) -> None:
    one, other = random_vectors(sd1, 2, seed=1), random_vectors(sd1, 2, seed=2)
    first = encode(sd1, "a bad cat", bad=one).context
    assert not torch.equal(encode(sd1, "a bad cat", bad=other).context, first)
    assert not torch.equal(encode(sd1, "a bad cat").context, first)
    again = {"text_encoder": one["text_encoder"].clone()}
    assert encode(sd1, "a bad cat", bad=again).context is first
    assert encode(sd1, "a cat", bad=one).context is encode(sd1, "a cat").context


def test_a_text_encoder_is_what_it_was_whatever_fails(
    sd1: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    bad = random_vectors(sd1, 2)
    (cat,) = ids(sd1, "cat")
    monkeypatch.setattr(sd1.text.model.encoder, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        encode(sd1, "a bad failure", bad=bad)
    monkeypatch.undo()
    assert not sd1.text.model.get_input_embeddings()._forward_hooks
    assert_read(sd1, encode(sd1, "cat cat cat"), [[cat, cat, cat]])


def test_vectors_of_another_width_are_read_as_words_with_a_warning(sd1: Any) -> None:
    plain = encode(sd1, "a bad cat")
    for shape in ((2, 768), (2, 4, 768)):
        read = encode(sd1, "a bad cat", bad={"text_encoder": torch.zeros(shape)})
        assert torch.equal(read.context, plain.context)
        (warning,) = read.warnings
        assert warning.startswith("'bad' is read as words: its vectors have 768 numbers")
        assert encode(sd1, "a cat", bad={"text_encoder": torch.zeros(shape)}).warnings == ()


def test_vectors_are_cast_to_the_text_encoders_precision(tmp_path: Path, sd1: Any) -> None:
    path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SD1)
    half = load(path, device=Half(torch.bfloat16))
    bad = random_vectors(sd1, 2)
    encoded = encode(half, "a bad cat", bad=bad).context
    assert encoded.dtype == torch.bfloat16
    expected = encode(sd1, "a bad cat", bad=bad).context
    assert (encoded.float() - expected).abs().max() < 0.1 < expected.abs().max()


def test_a_prompt_with_embeddings_is_encoded_the_same_in_every_process(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SD1)
    script = """
import sys, hashlib, torch
from pathlib import Path
from types import SimpleNamespace
from imagine_core.parts import Parts
from reference import load
torch.set_num_threads(1)
model = load(Path(sys.argv[1]))
names = {"bad", "badhand", "badhand v4", "EasyNegative", "bad-x"}
torch.manual_seed(0)
vectors = {name: torch.randn(2, 32) for name in sorted(names)}
found = {name: SimpleNamespace(vectors={"text_encoder": vectors[name]}) for name in names}
prompt = "BAD, (badhand V4:1.2), badhandle, [easynegative] bad-x badhand"
context = model.encode_prompt(
    prompt, clip_skip=1, width=64, height=64, parts=Parts(embeddings=found)
).context
print(hashlib.sha256(context.numpy().tobytes()).hexdigest())
"""
    support = Path(__file__).parents[1] / "support"
    answers = {
        subprocess.run(
            [sys.executable, "-c", script, str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(support)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1
    assert len(answers.pop().strip()) == len(hashlib.sha256().hexdigest())


# -------------------------------------------------------------------------------- other tokenizers


@pytest.fixture(scope="module", params=["clip", "doodle"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    if request.param == "clip":
        return clip_tokenizer()
    (folder,) = build_plugins(only=["imagine-model-doodle"]).model_folders()
    return load_tokenizer(Path(folder) / "doodle" / "tokenizer")


def places(**words: int) -> Places:
    return Places({name: Word(torch.zeros(count, 4), count) for name, count in words.items()})


def test_each_tokenizer_reads_the_words_between_embeddings(tokenizer: Any) -> None:
    known = places(bad=2, Zorb=1)
    prompt = "a red (Zorb cat:1.5), zorb bad zorbx"
    found = read(tokenizer, parse(prompt), known)

    def tokens(text: str, weight: float) -> list[Any]:
        return [(token, weight) for token, _ in read(tokenizer, parse(text), places()).tokens]

    zorb, bad = known.tokens("Zorb"), known.tokens("bad")
    assert (len(zorb), len(bad)) == (1, 2)
    assert found.tokens == [
        *tokens("a red", 1.0),
        (zorb, 1.5),
        *tokens("cat", 1.5),
        *tokens(",", 1.0),
        (zorb, 1.0),
        (bad, 1.0),
        *tokens("zorbx", 1.0),
    ]
    assert found.unread in {(), ("zorbx",)}


PIECES = st.sampled_from(
    [
        "bad",
        "BAD",
        "Zorb",
        "zorbs",
        " ",
        ",",
        "(",
        ")",
        "[",
        "]",
        ":1.2)",
        " BREAK ",
        "\\(",
        "a red",
    ]
)
PROMPTS = st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=40)


@given(PROMPTS)
def test_no_prompt_fails_and_none_loses_a_token(tokenizer: Any, prompt: str) -> None:
    known = places(bad=2, Zorb=1)
    for runs in sections(parse(prompt)):
        found = read(tokenizer, runs, known).tokens
        segments: list[list[Any]] = [[]]
        names = []
        for run in runs:
            for text, name in known.names.split(run.text):
                if name is None:
                    segments[-1].append(type(run)(text, run.weight))
                else:
                    names.append((known.tokens(name), run.weight))
                    segments.append([])
        plain = [token for each in segments for token in read(tokenizer, each, places()).tokens]
        assert [each for each in found if isinstance(each[0], tuple)] == names
        assert [each for each in found if isinstance(each[0], int)] == plain
