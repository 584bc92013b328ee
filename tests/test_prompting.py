"""Prompts in A1111's notation: weights, escapes, BREAK, and chunks that lose nothing."""

from __future__ import annotations

import time
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagine_core.prompting import (
    COMMA_REACH,
    WEIGHT_LIMIT,
    Chunk,
    chunks,
    describe,
    parse,
    sections,
)

COMMA = 0


def weights(prompt: str) -> list[tuple[str, Any]]:
    return [(fragment.text, pytest.approx(fragment.weight)) for fragment in parse(prompt)]


def words(text: str) -> list[int]:
    """A tokenizer for tests: a number for each word, 0 for a comma."""
    spaced = text.replace(",", " , ")
    return [COMMA if word == "," else 1 + len(word) for word in spaced.split()]


def cut(prompt: str, length: int) -> tuple[Chunk, ...]:
    texts = [
        [(token, run.weight) for run in runs for token in words(run.text)]
        for runs in sections(parse(prompt))
    ]
    return chunks(texts, length=length, comma=COMMA)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", [("a cat", 1)]),
        ("", []),
        ("(cat)", [("cat", 1.1)]),
        ("((cat))", [("cat", 1.21)]),
        ("[cat]", [("cat", 1 / 1.1)]),
        ("(cat:1.3)", [("cat", 1.3)]),
        ("(cat: 1.3 )", [("cat", 1.3)]),
        ("(cat:-0.5)", [("cat", -0.5)]),
        ("(cat:.5)", [("cat", 0.5)]),
        ("(cat:2)", [("cat", 2)]),
        ("(a (big:2) cat:1.5)", [("a ", 1.5), ("big", 3), (" cat", 1.5)]),
        ("a [b (c)]", [("a ", 1), ("b ", 1 / 1.1), ("c", 1)]),
        ("a (b", [("a ", 1), ("b", 1.1)]),
        ("a [b", [("a ", 1), ("b", 1 / 1.1)]),
        ("a) b] c", [("a) b] c", 1)]),
        ("smile :) and :(", [("smile :) and :", 1)]),
        ("ratio 16:9, cat: yes", [("ratio 16:9, cat: yes", 1)]),
        ("(cat:1.2.3)", [("cat:1.2.3", 1.1)]),
        ("(cat:big)", [("cat:big", 1.1)]),
        ("cat:1.3)", [("cat:1.3)", 1)]),
        (r"\(cat\) \[dog\]", [("(cat) [dog]", 1)]),
        (r"(\(cat\):1.2)", [("(cat)", 1.2)]),
        (r"a \\ b", [(r"a \ b", 1)]),
        (r"a \o/ b", [(r"a \o/ b", 1)]),
        ("a (b:1.0) c", [("a b c", 1)]),
        ("()", []),
        ("(:1.3)", []),
        ("(a:1000)", [("a", WEIGHT_LIMIT)]),
        (f"(a:{'9' * 400})", [("a", WEIGHT_LIMIT)]),
        ("(" * 25 + "a", [("a", WEIGHT_LIMIT)]),
        ("(" * 26 + "a", [("(a", WEIGHT_LIMIT)]),
    ],
)
def test_weights_are_read_as_a1111_reads_them(
    prompt: str, expected: list[tuple[str, float]]
) -> None:
    assert weights(prompt) == expected


def test_break_starts_a_chunk() -> None:
    pieces = cut("a b BREAK c (d BREAK e:1.5)", 10)
    assert [piece.tokens for piece in pieces] == [(2, 2), (2, 2), (2,)]
    assert pieces[2].weights == (1.5,)
    assert cut("BREAKFAST", 10) == (Chunk((10,), (1.0,)),)


@pytest.mark.parametrize(
    ("prompt", "lengths"),
    [
        ("BREAK", [0]),
        ("BREAK a b", [0, 2]),
        ("a b BREAK", [2]),
        ("a b BREAK BREAK c", [2, 0, 1]),
        ("a b BREAK c BREAK ", [2, 1]),
        ("a " * 75 + "BREAK b", [75, 1]),
    ],
)
def test_a_break_around_nothing_pads_an_empty_chunk_as_in_a1111(
    prompt: str, lengths: list[int]
) -> None:
    assert [len(piece.tokens) for piece in cut(prompt, 75)] == lengths


def test_an_empty_prompt_is_one_empty_chunk() -> None:
    assert cut("", 75) == (Chunk(),)
    assert not Chunk().weighted


def test_a_full_chunk_breaks_after_the_last_comma_that_is_near() -> None:
    prompt = "x " * 60 + ", " + "y " * 30
    pieces = cut(prompt, 75)
    assert [len(piece.tokens) for piece in pieces] == [61, 30]
    assert pieces[0].tokens[-1] == COMMA


def test_a_full_chunk_breaks_anywhere_where_no_comma_is_near() -> None:
    far = "x " * (75 - COMMA_REACH - 1) + ", " + "y " * 40
    assert [len(piece.tokens) for piece in cut(far, 75)] == [75, 20]
    none = "x " * 76
    assert [len(piece.tokens) for piece in cut(none, 75)] == [75, 1]


def test_a_comma_that_follows_a_full_chunk_begins_the_next() -> None:
    pieces = cut("a, " + "x " * 73 + ", b", 75)
    assert [len(piece.tokens) for piece in pieces] == [75, 2]


def test_the_user_is_told_of_chunks_only_where_there_are_several() -> None:
    assert describe(cut("x " * 75, 75), 75) == ()
    assert describe(cut("x " * 96, 75), 75) == ("prompt has 96 tokens: encoded in 2 chunks of 75",)


@pytest.mark.parametrize(
    "text", ["(a" * 10_000, "[(" * 10_000, "(a)" * 6_666, "\\" * 20_000, " " * 20_000]
)
def test_the_longest_prompts_lose_no_token_and_take_no_square_of_their_length(text: str) -> None:
    """What takes the square of it is still at work when the suite's patience ends."""
    pieces = cut(text, 75)
    whole = [token for fragment in parse(text) for token in words(fragment.text)]
    assert [token for piece in pieces for token in piece.tokens] == whole


def test_tokens_that_belong_together_stay_in_one_chunk_where_one_holds_them() -> None:
    x, whole, long = (5, 1.0), ((-1, -2, -3), 1.3), (tuple(range(-1, -24, -1)), 1.0)
    pieces = chunks([[*[x] * 7, whole, x]], length=10, comma=COMMA)
    assert [piece.tokens for piece in pieces] == [(*[5] * 7, -1, -2, -3), (5,)]
    assert pieces[0].weights == (*[1.0] * 7, 1.3, 1.3, 1.3)
    pieces = chunks([[x, (COMMA, 1.0), *[x] * 6, whole]], length=10, comma=COMMA)
    assert [piece.tokens for piece in pieces] == [(5, COMMA, *[5] * 6), (-1, -2, -3)]
    pieces = chunks([[x, long, x], [whole]], length=10, comma=COMMA)
    assert [len(piece.tokens) for piece in pieces] == [1, 10, 10, 4, 3]
    assert [token for piece in pieces[1:4] for token in piece.tokens] == [*long[0], 5]


GROUPS = st.integers(1, 30).map(lambda count: tuple(range(-1, -1 - count, -1)))


@given(st.lists(st.integers(0, 3) | GROUPS, max_size=60), st.integers(1, 20))
def test_no_token_of_those_that_belong_together_is_lost(
    tokens: list[int | tuple[int, ...]], length: int
) -> None:
    pieces = chunks([[(token, 1.0) for token in tokens]], length=length, comma=COMMA)
    flat = [each for token in tokens for each in (token if isinstance(token, tuple) else [token])]
    assert [token for piece in pieces for token in piece.tokens] == flat
    assert all(len(piece.tokens) <= length for piece in pieces)
    ends = set(accumulate(len(piece.tokens) for piece in pieces))
    start = 0
    for token in tokens:
        count = len(token) if isinstance(token, tuple) else 1
        if count <= length:
            assert not ends & set(range(start + 1, start + count))
        start += count


ANY = st.text(alphabet=st.sampled_from(list("ab ,()[]:\\1.5-\n\té漢")), max_size=60) | st.text()


@given(ANY)
def test_any_text_is_a_prompt_and_every_weight_is_within_reason(prompt: str) -> None:
    for fragment in parse(prompt):
        assert abs(fragment.weight) <= WEIGHT_LIMIT


@given(ANY, st.integers(1, 30))
def test_no_token_is_ever_lost_and_no_chunk_too_long(prompt: str, length: int) -> None:
    pieces = cut(prompt, length)
    whole = [token for fragment in parse(prompt) for token in words(fragment.text)]
    assert [token for piece in pieces for token in piece.tokens] == whole
    assert all(len(p.tokens) <= length and len(p.tokens) == len(p.weights) for p in pieces)


@given(st.text().filter(lambda text: "BREAK" not in text))
def test_an_escaped_text_means_itself(text: str) -> None:
    escaped = "".join(f"\\{char}" if char in "\\()[]" else char for char in text)
    assert "".join(fragment.text for fragment in parse(escaped)) == text
    assert all(fragment.weight == 1 for fragment in parse(escaped))


@given(st.text(alphabet="abc ,", min_size=1), st.floats(0.1, 2).map(lambda w: round(w, 2)))
def test_a_written_weight_is_the_weight(text: str, weight: float) -> None:
    assert weights(f"({text}:{weight})") == [(text, weight)]


@pytest.mark.parametrize("start", [":", "(a:", "(a:1.", "(a: "])
def test_digits_without_end_take_no_time(start: str) -> None:
    started = time.process_time()
    parse(start + "9" * 19_000)
    assert time.process_time() - started < 0.5
