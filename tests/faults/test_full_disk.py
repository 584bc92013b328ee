"""A full disk, with the system's own error: one clear line, exit code 1, no files left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagine_core.pictures.metadata import read_meta
from programs import command

LIMIT = 4096
"""Bytes that a file may have: fewer than a picture of noise takes."""

RUN = ("run", "cat", "--sampler", "test euler", "--steps", "2", "-w", "256", "-h", "256", "--quiet")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "tiny.fake").touch()
    return folder


def run(folder: Path, *arguments: str | Path, limit: int | None = None) -> tuple[int, str]:
    """The exit code of the program and what it says, where no file may grow beyond `limit`."""
    call = (
        [sys.executable, "-c", LIMITED, str(limit), *command(*arguments)]
        if limit
        else command(*arguments)
    )
    ended = subprocess.run(
        call, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    return ended.returncode, ended.stderr


LIMITED = """
import os, resource, sys
size = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of files are POSIX")
@pytest.mark.parametrize("more", [(), ("--meta",), ("-n", "2")])
def test_a_picture_that_does_not_fit_is_one_line_and_leaves_nothing(
    tmp_path: Path, models: Path, more: tuple[str, ...]
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    code, said = run(work, *RUN, *more, "--models", models, "-o", "cat", limit=LIMIT)
    assert code == 1, said
    (line,) = said.splitlines()
    assert line.startswith("Error: cat")
    assert line.endswith(".png: cannot be written: File too large")
    assert list(work.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="limits of files are POSIX")
def test_an_intermediate_that_fitted_is_left_whole_and_named(tmp_path: Path, models: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    stream = ("--stream", "1", "--models", models, "-o", "cat")
    code, said = run(work, *RUN, *stream, limit=LIMIT)
    assert code == 1
    assert said.splitlines() == [
        "cat.png shows it after step 1 of 2",
        "Error: cat.png: cannot be written: File too large",
    ]
    assert read_meta(work / "cat.png")["prompt"] == "cat"
    assert list(work.iterdir()) == [work / "cat.png"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_device_that_is_full_is_one_line(tmp_path: Path, models: Path) -> None:
    code, said = run(tmp_path, *RUN, "--models", models, "-o", "/dev/full")
    assert (code, said) == (1, "Error: /dev/full: cannot be written: No space left on device\n")


@pytest.mark.skipif(os.name != "posix", reason="limits of files are POSIX")
def test_a_picture_that_does_not_fit_keeps_the_old_one(tmp_path: Path, models: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "cat.png").write_bytes(b"old")
    code, said = run(work, *RUN, "--models", models, "-o", "cat", limit=1000)
    assert code == 1
    assert said == "Error: cat.png: cannot be written: File too large\n"
    assert (work / "cat.png").read_bytes() == b"old"
    assert list(work.iterdir()) == [work / "cat.png"]
