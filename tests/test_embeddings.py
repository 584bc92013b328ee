"""Names of embeddings in prompts: whole, the longest, the same in every process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagine_core.embeddings import EmbeddingNames, missing_embeddings, named_embeddings
from imagine_core.prompting import parse

NAMES = [
    "EasyNegative", "badhand", "badhandv4", "bad-hands-5", "bad_prompt_version2", "BadDream", "bad",
    "ng_deepnegative_v1_75t", "By bad artist -neg", "style (ink)", "v1.5", "Élan", "STRASSE",
    "悪い手", "***",
]  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("EasyNegative", ["EasyNegative"]),
        ("easynegative, EASYNEGATIVE", ["EasyNegative"]),
        ("a cat,EasyNegative.", ["EasyNegative"]),
        ("(EasyNegative:1.2)", ["EasyNegative"]),
        ("[[(EasyNegative)]], ((badhand", ["EasyNegative", "badhand"]),
        ("<EasyNegative>", ["EasyNegative"]),
        ('"EasyNegative"|badhand', ["EasyNegative", "badhand"]),
        ("badhandle", []),
        ("mybadhand badhand2 badhand_x", []),
        ("badhand, badhandv4", ["badhand", "badhandv4"]),
        ("badhandv4, badhand", ["badhandv4", "badhand"]),
        ("bad-hands-5", ["bad-hands-5"]),
        ("bad-hands-50", ["bad"]),
        ("bad_prompt_version2-neg", ["bad_prompt_version2"]),
        ("bad_prompt_version", []),
        ("ng_deepnegative_v1_75t", ["ng_deepnegative_v1_75t"]),
        ("by bad artist -neg", ["By bad artist -neg"]),
        ("By  bad\nartist\t-neg", ["By bad artist -neg"]),
        ("by bad artist", ["bad"]),
        (r"style \(ink\)", ["style (ink)"]),
        ("style (ink)", []),  # a weight
        ("v1.5 v1.50", ["v1.5"]),
        ("e\u0301lan", ["Élan"]),
        ("ÉLAN", ["Élan"]),
        ("Straße", ["STRASSE"]),
        ("悪い手, x", ["悪い手"]),
        ("*** and ***", []),
        ("embedding:EasyNegative", ["EasyNegative"]),
        ("(Embedding:easynegative.safetensors:1.2), x", ["EasyNegative"]),
        ("embedding:badhandle", []),
        ("EasyBREAKNegative, badhand BREAK BadDream", ["badhand", "BadDream"]),
        ("", []),
    ],
)
def test_a_name_counts_as_a_whole_in_any_capital_letters(prompt: str, named: list[str]) -> None:
    assert named_embeddings(prompt, NAMES) == named
    assert named_embeddings(prompt, reversed(NAMES)) == named
    assert named_embeddings(prompt, []) == []


def test_a_text_is_split_into_names_and_what_is_between_them() -> None:
    known = EmbeddingNames(NAMES)
    assert list(known.split("a bad cat, embedding:badhandv4.pt,badhandle")) == [
        ("a ", None),
        ("bad", "bad"),
        (" cat, ", None),
        ("embedding:badhandv4.pt", "badhandv4"),
        (",badhandle", None),
    ]
    assert list(known.split("")) == []
    assert list(EmbeddingNames(["a b", "b c d"]).split("a b c d")) == [
        ("a b", "a b"),
        (" c d", None),
    ]


def test_an_embedding_that_is_asked_for_by_its_form_and_is_not_there_is_missing() -> None:
    prompt = "embedding:nope, (Embedding:gone.safetensors:1.2), embedding:bad, myembedding:x, nope"
    assert missing_embeddings(prompt, NAMES) == ["nope", "gone.safetensors"]
    assert missing_embeddings("nope, bad", NAMES) == []


WORDS = st.sampled_from(
    ["bad", "Hand", "é", "v4", "-", "_", "5", " ", "\n", "(", ")", ":1.2)", ","]
)
TEXTS = st.lists(WORDS, max_size=20).map("".join) | st.text(max_size=40)


@given(TEXTS, st.lists(TEXTS, max_size=6))
def test_splitting_never_fails_and_loses_nothing(text: str, names: list[str]) -> None:
    pieces = list(EmbeddingNames(names).split(text))
    assert "".join(piece for piece, _ in pieces) == text
    assert all(name is None or name in names for _, name in pieces)
    assert all(piece for piece, _ in pieces) or text == ""


@given(TEXTS, st.lists(TEXTS, max_size=6))
def test_those_that_a_prompt_names_are_found_among_themselves(
    prompt: str, names: list[str]
) -> None:
    named = named_embeddings(prompt, names)
    assert named_embeddings(prompt, named) == named
    every, few = EmbeddingNames(names), EmbeddingNames(named)
    for run in parse(prompt):
        assert [name for _, name in every.split(run.text) if name] == [
            name for _, name in few.split(run.text) if name
        ]


@given(st.text("ab-_. 5é", min_size=1, max_size=8), st.text("ab-_. 5é", max_size=4))
def test_a_name_that_is_also_in_a_longer_name_loses_to_it(name: str, more: str) -> None:
    longer = f"{name}{more}"
    if not any(map(str.isalnum, name)) or longer.strip() != longer:
        return
    assert named_embeddings(f"x, {longer.upper()}, y", {name, longer}) == [longer]


def test_names_are_the_same_in_every_process() -> None:
    prompt = "badhand, badhandv4, EasyNegative, BadDream, by bad artist -neg, bad-hands-5"
    code = (
        "import json, sys; from imagine_core.embeddings import named_embeddings; "
        "prompt, names = json.loads(sys.argv[1]); "
        "print(json.dumps(named_embeddings(prompt, set(names))))"
    )
    names = [*NAMES, "BADHAND", "easynegative"]
    answers = {
        subprocess.run(
            [sys.executable, "-c", code, json.dumps([prompt, names])],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(answers) == 1
    assert json.loads(answers.pop()) == named_embeddings(prompt, names)


def test_thousands_of_names_in_a_long_prompt_take_milliseconds() -> None:
    names = [f"bad-artist-{number} style_{number}" for number in range(2000)]
    prompt = "bad-artist-1999 style_1999, bad-artist- bad-artist-7 " * 200
    start = time.process_time()
    assert named_embeddings(prompt, names) == [names[1999]]
    assert time.process_time() - start < 0.5
