"""The header reader against good files, bad files and damaged ones."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import TINY_SD1, header_bytes, shapes, write_hollow
from imagine_plugins.loaders.header import (
    HEADER_LIMIT,
    Header,
    HeaderError,
    parse_header,
    read_header,
)


def _content(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _file(path: Path, header: object, data: bytes = b"") -> Path:
    path.write_bytes(_content(header, data))
    return path


def _entry(dtype: str = "F16", shape: object = (2, 3), offsets: object = (0, 12)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_tensors_and_metadata_of_a_file_are_read(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"modelspec.title": "Tiny"},
        "a": _entry(),
        "b": _entry("F32", [], [12, 16]),
    }
    path = _file(tmp_path / "m.safetensors", header, bytes(16))
    found = read_header(path)
    start = path.stat().st_size - 16
    assert found.metadata == {"modelspec.title": "Tiny"}
    assert [(t.dtype, t.shape, t.start, t.end) for t in found.tensors.values()] == [
        ("F16", (2, 3), start, start + 12),
        ("F32", (), start + 12, start + 16),
    ]


def test_a_file_written_by_the_safetensors_library_is_read(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {
        "a": torch.zeros(3, 5),
        "empty": torch.zeros(0),
        "c": torch.zeros(2, dtype=torch.bfloat16),
    }
    save_file(tensors, tmp_path / "m.safetensors", metadata={"format": "pt"})
    found = read_header(tmp_path / "m.safetensors")
    assert {name: tensor.shape for name, tensor in found.tensors.items()} == {
        "a": (3, 5),
        "empty": (0,),
        "c": (2,),
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (bytes(5000), "only zeros"),
        (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b"\xef\xbb\xbf\n<html lang=en></html>", "web page"),
        (b"PK\x03\x04" + bytes(100), "pickle"),
        (b"\x80\x02}q\x00", "pickle"),
        (b"GGUF\x03\0\0\0" + bytes(100), "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b'{"error": "Access to model is restricted"}', "JSON"),
        (b"short", "not a safetensors file"),
        (struct.pack("<Q", 1) + b"{", "not a safetensors file"),
        (struct.pack("<Q", 500) + b'{"a": {"dtype"', "incomplete"),
        (struct.pack("<Q", 2**63) + bytes(100), "not a safetensors file"),
        (struct.pack("<Q", 4) + b"[1] ", "not a safetensors file"),
        (struct.pack("<Q", 4) + b"{,} ", "damaged"),
        (struct.pack("<Q", 4) + b'{"\xff"', "damaged"),
        (struct.pack("<Q", 60_001) + b"{" + b'"a":{' * 12_000, "damaged"),
    ],
)
def test_what_is_no_safetensors_file_is_told_by_its_content(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(HeaderError, match=words):
        read_header(path)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"a": _entry(offsets=[0, 11])}, "size of 'a'"),
        ({"a": _entry(offsets=[12, 0])}, "size of 'a'"),
        ({"a": _entry(shape=[-2, -3])}, "shape of 'a'"),
        ({"a": _entry(shape=[2, 3.0])}, "shape of 'a'"),
        ({"a": _entry(shape=[True, 6])}, "shape of 'a'"),
        ({"a": _entry(shape=[1] * 17)}, "shape of 'a'"),
        ({"a": _entry("F8_E9M9")}, "unknown type"),
        ({"a": {"dtype": "F16", "shape": [2, 3]}}, "tensor 'a'"),
        ({"a": None}, "tensor 'a'"),
        ({"a": _entry(), "b": _entry()}, "overlap or leave gaps"),
        ({"a": _entry(), "b": _entry(offsets=[14, 26])}, "overlap or leave gaps"),
        ({"a": _entry(), "__metadata__": "text"}, "metadata is no map"),
        (b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":1}', "twice"),
        (b'{"a":' + b"9" * 5000 + b"}", "damaged"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(
    tmp_path: Path, header: object, words: str
) -> None:
    with pytest.raises(HeaderError, match=words):
        read_header(_file(tmp_path / "m.safetensors", header, bytes(12)))


@pytest.mark.parametrize(("change", "words"), [(-1, "incomplete: .* of .* bytes"), (3, "too many")])
def test_a_file_of_the_wrong_length_is_told(tmp_path: Path, change: int, words: str) -> None:
    path = write_hollow(tmp_path / "m.safetensors", shapes(TINY_SD1))
    os.truncate(path, path.stat().st_size + change)
    with pytest.raises(HeaderError, match=words):
        read_header(path)


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.safetensors")
    with pytest.raises(HeaderError, match="not a regular file"):
        read_header(tmp_path / "m.safetensors")


def test_an_unreadable_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_hollow(tmp_path / "m.safetensors", {"a": (1,)})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(HeaderError, match="cannot be read: Permission denied"):
        read_header(path)


@pytest.mark.parametrize(
    "text",
    [
        b"{" + b'"a":{},' * 12_000_000 + b'"b":{}}',
        b'{"__metadata__":{"a":"' + b"\\u0041" * 14_000_000 + b'"}}',
        b'{"a":' + b"[" * 90_000_000,
        b'{"__metadata__":{"a":"' + b"x" * 90_000_000 + b'"}}',
    ],
    ids=["objects", "escapes", "nesting", "text"],
)
def test_the_largest_headers_stay_within_bounds_of_memory(tmp_path: Path, text: bytes) -> None:
    path = _file(tmp_path / "m.safetensors", text)
    tracemalloc.start()
    try:
        with suppress(HeaderError):
            read_header(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * HEADER_LIMIT


# ----------------------------------------------------------------------------- damage at random


def _outcome(content: bytes) -> Header | None:
    """The header, or None where it is refused; anything but HeaderError fails the test."""
    try:
        return parse_header(io.BytesIO(content), len(content))
    except HeaderError as error:
        assert 10 < len(str(error)) < 500  # noqa: PT017 - most headers raise, some do not
        return None


def test_ten_thousand_damaged_headers_neither_crash_nor_hang() -> None:
    head, size = header_bytes({f"layer.{n}.weight": (n, 3) for n in range(20)}, metadata={"a": "b"})
    chance = random.Random(7)
    refused = 0
    for _ in range(10_000):
        content = bytearray(head + bytes(size))
        for _ in range(chance.randint(1, 4)):
            _damage(content, chance, limit=len(head))
        refused += _outcome(bytes(content)) is None
    assert refused > 7_000  # a changed letter in a name is no damage that shows


def _damage(content: bytearray, chance: random.Random, *, limit: int) -> None:
    at = chance.randrange(min(limit, len(content)) or 1)
    match chance.randrange(5):
        case 0:
            content[at : at + 1] = bytes([chance.randrange(256)])
        case 1:
            del content[at : at + chance.randint(1, 30)]
        case 2:
            content[at:at] = chance.choice([b"{", b"}", b"]", b"[", b'"', b"9" * 50, b"-", b"null"])
        case 3:
            content[0:8] = struct.pack(
                "<Q", chance.choice([0, 1, 2, limit - 9, limit, 2**32, 2**64 - 1])
            )
        case _:
            other = chance.randrange(limit)
            piece = content[other : other + chance.randint(1, 60)]
            content[at : at + len(piece)] = piece


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4)
    ),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F16", "F32", "BF16", "U8", "F4", "nope"]) | JSON,
        "shape": st.lists(st.integers(-1, 5), max_size=4) | JSON,
        "data_offsets": st.lists(st.integers(-5, 200), min_size=1, max_size=3) | JSON,
    }
)
HEADER = st.dictionaries(
    st.sampled_from(["__metadata__", "a", "b", "model.x"]) | st.text(max_size=8),
    ENTRY | JSON,
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(header=HEADER, data=st.integers(0, 200))
def test_whatever_a_header_says_it_is_read_or_refused_in_words(header: object, data: int) -> None:
    found = _outcome(_content(header, bytes(data)))
    if found is not None:
        assert all(0 <= t.start <= t.end <= found.size for t in found.tensors.values())
        assert data == sum(t.end - t.start for t in found.tensors.values())
