from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from imagine_core.pictures.metadata import document_bytes, png_bytes
from programs import Imagine

META = {"model": "tiny", "prompt": "кот 🐈 \x1b[31m", "seed": "7", "img": "A" * 5000}
PICTURE = Image.new("RGB", (8, 8), "teal")


def test_info_prints_the_meta_of_either_file(imagine: Imagine, work: Path) -> None:
    png = png_bytes(PICTURE, META)
    (work / "cat.png").write_bytes(png)
    (work / "cat.json").write_bytes(document_bytes(META, png))
    for name in ("cat.png", "cat.json"):
        ended = imagine("info", name)
        assert (ended.code, ended.err) == (0, "")
        assert json.loads(ended.out) == META
        assert "кот 🐈" in ended.out
        assert "\x1b" not in ended.out


def test_a_terminal_is_spared_the_input_picture(
    imagine: Imagine, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "cat.png").write_bytes(png_bytes(PICTURE, META))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = json.loads(imagine("info", "cat.png").out)
    assert shown == {**META, "img": "(5,000 characters of base64)"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cat: cannot be read: No such file or directory"),
        (b"", "cat: it is neither a PNG nor JSON"),
        (b"<html>", "cat: it is neither a PNG nor JSON"),
        (png_bytes(PICTURE, None), "cat: it holds no metadata: another program made it"),
        (png_bytes(PICTURE, None)[:40], "cat: the PNG is cut off: its end is missing"),
        (b'{"meta": [1]}', "cat: it holds no metadata: it is JSON, but has no object"),
        (b'{"meta": {"guidance": NaN}}', "cat: its metadata is damaged: NaN is no number"),
    ],
)
@pytest.mark.parametrize("command", ["info", "convert"])
def test_a_file_without_metadata_is_one_line(
    imagine: Imagine, work: Path, command: str, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (work / "cat").write_bytes(content)
    before = sorted(work.iterdir())
    ended = imagine(command, "cat")
    assert ended.code == 1
    assert ended.err.startswith(f"Error: {problem}")
    assert (ended.err.count("\n"), ended.out) == (1, "")
    assert sorted(work.iterdir()) == before
