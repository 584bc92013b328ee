"""SIGKILL at any moment leaves whole files or none."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imagine_core.pictures.metadata import read_meta
from programs import command
from slow_server import wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")

WRITER = """
import sys
from pathlib import Path
from imagine_core.pictures.files import write_file
path, size = Path(sys.argv[1]), 2**20
write_file(path, b"0" * size)
print("begun", flush=True)
while True:
    for digit in b"1", b"2":
        write_file(path, digit * size)
"""


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL


@pytest.mark.parametrize("seed", range(6))
def test_a_file_that_is_written_over_and_over_is_whole_whenever_the_writer_dies(
    tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "cat.png"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        before = path.stat().st_mtime_ns
        wait_until(lambda: path.stat().st_mtime_ns != before)  # it is at it
        spin = random.Random(seed).randrange(200_000)
        while spin:
            spin -= 1
        killed(process)
    for left in tmp_path.iterdir():  # at most a file that was whole and about to take the name
        content = left.read_bytes()
        assert len(content) == 2**20
        assert len(set(content)) == 1


@pytest.mark.parametrize("writes", [1, 2, 3])
def test_every_picture_of_a_stream_that_was_killed_is_a_whole_one(
    tmp_path: Path, writes: int
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "tiny.fake").touch()
    run = command("run", "cat", "--models", models, "--sampler", "test euler", "--steps", "1000")
    more = ["--count", "4", "-w", "64", "-h", "64", "--stream", "1", "--meta", "-o", "cat"]
    with subprocess.Popen(
        [*run, *more],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "FAKE_STEP": "0.1"},  # long enough to be killed half way anywhere
    ) as process:
        wait_until(lambda: len(list(tmp_path.glob("cat*.png"))) == 4, seconds=60)
        first = next(iter(tmp_path.glob("cat*.png")))
        for _ in range(writes):
            before = first.stat().st_mtime_ns
            wait_until(lambda before=before: first.stat().st_mtime_ns != before, seconds=60)  # type: ignore[misc]
        killed(process)
    pictures = list(tmp_path.glob("cat*.png"))
    assert len(pictures) == 4
    for each in pictures:
        assert read_meta(each)["prompt"] == "cat"
    for each in tmp_path.glob("cat*.json"):
        assert json.loads(each.read_text())["meta"]["prompt"] == "cat"
