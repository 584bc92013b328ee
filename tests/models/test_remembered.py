"""What files were recognised as is remembered on disk, and forgotten when it may be otherwise."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagine_core.interfaces import ModelInfo
from imagine_core.models import remembered
from imagine_core.models.catalogue import Catalogue
from imagine_core.models.remembered import WORTH_SAVING
from imagine_core.testing import FakePlugin


class Counting:
    """A loader of LoRAs that counts what it looks at."""

    name = "counting"

    def __init__(self) -> None:
        self.looks = 0

    def recognise(self, path: Path) -> ModelInfo | None:
        if path.suffix != ".part3":
            return None
        self.looks += 1
        if "failing" in path.stem:
            raise ValueError(path)
        return ModelInfo(
            name=path.stem,
            path=path,
            loader=self.name,
            kind="lora",
            family="sd1",
            fits=("sd1", "sd2"),
            size=path.stat().st_size,
            problem="broken" if "broken" in path.stem else None,
            details={"triggers": ["a word"], "modules": 3},
        )

    def load(self, info: ModelInfo, **how: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "cache" / "recognised.json"
    monkeypatch.setattr(remembered, "default_file", lambda: file)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "loras"
    folder.mkdir(parents=True)
    for number in range(WORTH_SAVING):
        (folder / f"{number:03}.part3").write_bytes(b"x")
    return folder.parent


def look(folder: Path) -> tuple[int, list[ModelInfo]]:
    """How many files a new process would recognise, and what it lists."""
    loader = Counting()
    models = Catalogue(folder, loaders=(loader, FakePlugin().loader))
    listed = models.models("lora")
    return loader.looks, listed


def test_a_second_process_recognises_nothing_again(folder: Path, cache: Path) -> None:
    (folder / "loras" / "broken.part3").write_bytes(b"x")
    first, listed = look(folder)
    assert first == WORTH_SAVING + 1
    assert look(folder) == (0, listed)
    assert listed[0].fits == ("sd1", "sd2")
    assert listed[-1].problem == "broken"


def change(file: Path) -> None:
    file.write_bytes(b"yy")


def add_sidecar(file: Path) -> None:
    file.with_suffix(".json").write_text("{}")


def replace_of_same_size_and_time(file: Path) -> None:
    before = file.stat()
    other = file.with_suffix(".new")
    other.write_bytes(b"z")
    other.replace(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("how", [change, add_sidecar, replace_of_same_size_and_time])
def test_a_file_that_changed_is_recognised_again(
    folder: Path, cache: Path, how: Callable[[Path], None]
) -> None:
    look(folder)
    how(folder / "loras" / "003.part3")
    assert look(folder)[0] == 1


def test_loaders_that_changed_recognise_all_again(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(folder)
    monkeypatch.setattr(remembered, "version", lambda: "9.9")
    assert look(folder)[0] == WORTH_SAVING


def test_what_a_loader_failed_on_is_tried_again(folder: Path, cache: Path) -> None:
    (folder / "loras" / "failing.part3").write_bytes(b"x")
    look(folder)
    assert look(folder)[0] == 1


def test_a_few_files_are_not_worth_a_cache(folder: Path, cache: Path) -> None:
    (folder / "loras" / "000.part3").unlink()
    look(folder)
    assert not cache.exists()


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"loaders": 1, "files": 2}', "[" * 9999])
def test_a_damaged_cache_is_done_without(folder: Path, cache: Path, text: str) -> None:
    cache.parent.mkdir()
    cache.write_text(text)
    assert look(folder)[0] == WORTH_SAVING
    assert look(folder)[0] == 0


@pytest.mark.parametrize("entry", [None, 5, {}, {"stamp": []}, {"stamp": [], "info": {"a": 1}}])
def test_damaged_entries_are_recognised_again(folder: Path, cache: Path, entry: object) -> None:
    look(folder)
    content = json.loads(cache.read_text())
    key = f"lora|{folder / 'loras' / '003.part3'}"
    if isinstance(entry, dict) and "stamp" in entry:
        entry = entry | {"stamp": content["files"][key]["stamp"]}
    content["files"][key] = entry
    cache.write_text(json.dumps(content))
    assert look(folder)[0] == 1


def test_a_cache_that_cannot_be_written_is_done_without(folder: Path, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert look(folder)[0] == look(folder)[0] == WORTH_SAVING


def test_models_are_not_remembered(folder: Path, cache: Path) -> None:
    for number in range(WORTH_SAVING):
        (folder / f"{number}.fake").touch()
    Catalogue(folder, loaders=(FakePlugin().loader,)).models()
    assert not cache.exists()
