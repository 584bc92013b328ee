"""JSON is read strictly: invalid input is refused, and never crashes."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagine_core import strict_json as strict
from imagine_core.errors import MalformedBody
from imagine_core.strict_json import Refused, number, parse_object, picture


def refusal(body: bytes) -> str:
    with pytest.raises(MalformedBody) as caught:
        parse_object(body)
    return caught.value.message


def test_an_object_is_read_as_it_is() -> None:
    body = '{"a": [1, 2.5, "ä", null, true], "b": {"c": -1}}'
    assert parse_object(body.encode()) == json.loads(body)


def test_a_byte_order_mark_is_no_harm() -> None:
    assert parse_object(b"\xef\xbb\xbf{}") == {}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"{", "not JSON"),
        (b"prompt=fox", "not JSON"),
        (b"{'prompt': 'fox'}", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b'{"a": "\x01"}', "not JSON"),
        (b"[]", "an array"),
        (b'"fox"', "a string"),
        (b"7", "the number 7"),
        (b"null", "null"),
        (b"\xff\xfe{\x00}\x00", "UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "UTF-8"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' appears more than once"),
        (b'{"a": {"b": 1, "b": 1}}', "'b' appears more than once"),
        (b"[" * 50_000, "nested"),
        (b'{"a":' * 50_000, "nested"),
        (b'{"a": [' + b"1," * 100_000 + b"1]}", "too many values"),
    ],
)
def test_what_is_no_object_is_refused_with_the_reason(body: bytes, says: str) -> None:
    assert says in refusal(body)


def test_numbers_of_any_length_are_read_in_no_time() -> None:
    value = parse_object(b'{"a": ' + b"9" * 1_000_000 + b', "b": 1e999, "c": 12345678901234567890}')
    assert value["a"] == float("inf")
    assert value["b"] == float("inf")
    assert value["c"] == 12345678901234567890


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("1" + "0" * 400, "1000000000...00000 (401 characters)"),
        ("-" + "9" * 150, "-999999999...99999 (151 characters)"),
        ("1e999", "1e999"),
    ],
)
@pytest.mark.parametrize("read", [strict.integer, strict.number, strict.seed, strict.every])
def test_a_huge_number_is_refused_as_it_was_written(
    read: Callable[[object], Any], written: str, says: str
) -> None:
    value = parse_object(b'{"n": %s}' % written.encode())["n"]
    with pytest.raises(Refused, match=re.escape(says)):
        read(value)


@pytest.mark.parametrize("read", [strict.text, strict.flag, strict.picture, strict.choice])
def test_a_huge_number_in_place_of_something_else_is_shown_as_it_was_written(
    read: Callable[[object], Any],
) -> None:
    value = parse_object(b'{"n": 1%s}' % (b"0" * 400))["n"]
    with pytest.raises(Refused, match=r"not the number 1000000000\.\.\.00000"):
        read(value)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    with suppress(MalformedBody):
        assert isinstance(parse_object(body), dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
READERS: list[Callable[[object], Any]] = [
    strict.text,
    strict.name,
    strict.integer,
    strict.number,
    strict.flag,
    strict.seed,
    strict.every,
    strict.picture,
    strict.one_of(("low", "high")),
    strict.within(0, 100),
]


@given(JSON, st.sampled_from(READERS))
def test_any_value_is_read_or_refused(value: object, read: Callable[[object], Any]) -> None:
    with suppress(Refused):
        assert read(value) is None or isinstance(read(value), str | int | float | bytes)


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (strict.text, "", ""),
        (strict.text, "😀", "😀"),
        (strict.integer, -3, -3),
        (strict.number, 7, 7.0),
        (strict.number, 0.5, 0.5),
        (strict.flag, False, False),
        (strict.seed, 0, 0),
        (strict.seed, "18446744073709551615", 2**64 - 1),
        (strict.seed, "007", 7),
        (strict.seed, -1, None),
        (strict.seed, "-1", None),
        (strict.every, 0, 0),
        (strict.every, False, 0),
        (strict.every, 5, 5),
        (strict.picture, "AAEC", b"\0\1\2"),
        (strict.picture, "AA\nEC ", b"\0\1\2"),
        (strict.picture, "data:image/png;base64,AAEC", b"\0\1\2"),
        (strict.picture, "DATA:;base64,AAEC", b"\0\1\2"),
        (strict.one_of(("low", "high")), "high", "high"),
        (strict.one_of({"low": 1, "": 2}), "", ""),
        (strict.within(0, 100), 0, 0),
        (strict.within(0, 100), 100, 100),
        (strict.within(-1, 1), -1, -1),
    ],
)
def test_what_fits_is_taken(read: Callable[[object], Any], value: object, expected: object) -> None:
    taken = read(value)
    assert taken == expected
    assert type(taken) is type(expected)


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (strict.text, 1),
        (strict.text, None),
        (strict.text, "half \ud83d"),
        (strict.name, ""),
        (strict.name, " "),
        (strict.integer, True),
        (strict.integer, "5"),
        (strict.integer, 5.0),
        (strict.integer, None),
        (strict.number, True),
        (strict.number, "7.0"),
        (strict.number, float("nan")),
        (strict.number, float("inf")),
        (strict.flag, 0),
        (strict.flag, "true"),
        (strict.flag, None),
        (strict.seed, True),
        (strict.seed, 1.0),
        (strict.seed, ""),
        (strict.seed, "-2"),
        (strict.seed, "+1"),
        (strict.seed, " 1"),
        (strict.seed, "1_0"),
        (strict.seed, "1e3"),
        (strict.seed, "٣"),
        (strict.seed, "9" * 21),
        (strict.every, True),
        (strict.every, "5"),
        (strict.picture, 5),
        (strict.picture, "AAE"),
        (strict.picture, "AA*C"),
        (strict.picture, "ÄÄÄÄ"),
        (strict.picture, "http://127.0.0.1/fox.png"),
        (strict.picture, "file:///etc/passwd"),
        (strict.picture, "data:image/png,AAEC"),
        (strict.one_of(("low", "high")), "HIGH"),
        (strict.one_of(("low", "high")), ""),
        (strict.one_of(("low", "high")), None),
        (strict.one_of(("low", "high")), ["low"]),
        (strict.one_of(("1",)), 1),
        (strict.within(0, 100), -1),
        (strict.within(0, 100), 101),
        (strict.within(0, 100), 50.0),
        (strict.within(0, 100), "50"),
        (strict.within(0, 1), True),
        (strict.within(0, 100), None),
        (strict.within(0, 100), strict.Huge("1" * 200)),
    ],
)
def test_what_does_not_fit_is_refused(read: Callable[[object], Any], value: object) -> None:
    with pytest.raises(Refused):
        read(value)


def test_a_long_picture_is_decoded_quickly_and_whole() -> None:
    data = bytes(range(256)) * 40_000
    assert strict.picture(base64.b64encode(data).decode()) == data


def test_a_refusal_says_which_words_and_numbers_are_taken() -> None:
    with pytest.raises(Refused, match=r"^must be one of low, high$"):
        strict.one_of(("low", "high"))("best")
    with pytest.raises(Refused, match=r"^must be from 0 to 3$"):
        strict.within(0, 3)(4)


def test_a_key_that_stands_twice_is_found_among_many_at_once() -> None:
    body = "{" + ",".join(f'"{n}":1' for n in range(90_000)) + ',"89999":1}'
    started = time.process_time()
    with pytest.raises(MalformedBody, match="'89999' appears more than once"):
        parse_object(body.encode())
    assert time.process_time() - started < 5  # it took two minutes


def test_base64_may_have_blanks_and_line_breaks() -> None:
    assert picture("aGVs\r\nbG8g \tIQ==\n") == b"hello !"
    with pytest.raises(Refused, match="is not base64"):
        picture("aGVsbG8\u00a0gIQ==")


def test_a_whole_number_that_no_float_holds_is_not_finite() -> None:
    with pytest.raises(Refused, match="must be a finite number"):
        number(10**400)
