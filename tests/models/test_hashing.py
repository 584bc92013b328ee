"""Hashes are computed once per file, remembered on disk, and forgotten when the file changes."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from imagine_core.models import hashing
from imagine_core.models.hashing import FileHash, file_hash, known_hash


def wanted(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:10]


def test_a_hash_is_remembered_by_path_size_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache = tmp_path / "m", tmp_path / "cache" / "hashes.json"
    file.write_bytes(b"one")
    assert FileHash(file, cache=cache).start().wait(10) == wanted(b"one")

    def refuse(self: FileHash, key: str) -> None:
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(FileHash, "_compute", refuse)
        assert FileHash(file, cache=cache).start().wait(10) == wanted(b"one")
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 0))
    assert FileHash(file, cache=cache).start().wait(10) == wanted(b"two")


def test_the_value_is_unknown_until_it_is_computed_and_stopping_ends_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "m"
    file.write_bytes(bytes(100))
    reading, go_on = threading.Event(), threading.Event()

    class Slow:
        def update(self, block: bytes) -> None:
            reading.set()
            assert go_on.wait(10)

    monkeypatch.setattr(hashing, "BLOCK", 10)
    monkeypatch.setattr(hashlib, "sha256", Slow)
    hash_ = FileHash(file, cache=tmp_path / "hashes.json").start()
    assert reading.wait(10)
    assert hash_.value is None
    hash_.stop()
    go_on.set()
    assert hash_.wait(10) is None
    assert not (tmp_path / "hashes.json").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}'])
def test_a_damaged_cache_is_replaced(tmp_path: Path, content: str) -> None:
    cache = tmp_path / "hashes.json"
    cache.write_text(content, "utf-8")
    (tmp_path / "m").write_bytes(b"x")
    assert FileHash(tmp_path / "m", cache=cache).start().wait(10) == wanted(b"x")
    assert wanted(b"x") in cache.read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    cache = tmp_path / "file" / "hashes.json"
    assert FileHash(tmp_path / "file", cache=cache).start().wait(10) == wanted(b"x")


def test_a_file_that_is_gone_has_no_hash(tmp_path: Path) -> None:
    assert FileHash(tmp_path / "gone", cache=tmp_path / "c").start().wait(10) is None


def test_a_known_hash_is_one_that_is_remembered_and_costs_no_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "cache_file", lambda: tmp_path / "hashes.json")
    file = tmp_path / "m"
    file.write_bytes(b"one")
    assert known_hash(file) is None
    assert file_hash(file) == wanted(b"one")

    def refuse(self: FileHash, key: str) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr(FileHash, "_compute", refuse)
    assert known_hash(file) == wanted(b"one")
    file.write_bytes(b"other")
    assert known_hash(file) is None


def test_folders_and_files_that_are_gone_have_no_known_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "cache_file", lambda: tmp_path / "hashes.json")
    assert known_hash(tmp_path) is None
    assert known_hash(tmp_path / "gone") is None
