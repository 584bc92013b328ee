from __future__ import annotations

import base64
import io
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


def base64_of(kind: str) -> str:
    """A picture of 64 x 48 pixels as metadata has it."""
    file = io.BytesIO()
    Image.effect_noise((64, 48), 50).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def test_a_terminal_gets_the_kind_and_size_of_input_pictures(
    imagine: Imagine, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpeg = base64_of("JPEG")
    meta = {
        **META,
        "img": base64_of("PNG"),
        "controls": [{"image": f"data:image/jpeg;base64,{jpeg}", "weight": 0.5}],
        "odd": "A" * 5000,
        "note": "a short sentence, and then more of them, so that it is longer than others " * 3,
    }
    (work / "cat.png").write_bytes(png_bytes(PICTURE, meta))
    assert json.loads(imagine("info", "cat.png").out) == meta
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = json.loads(imagine("info", "cat.png").out)
    size = f"{len(base64.b64decode(jpeg)) / 1000:.0f} kB"
    assert shown["img"].startswith("(PNG, 64 x 48, ")
    assert shown["controls"] == [{"image": f"(JPEG, 64 x 48, {size})", "weight": 0.5}]
    assert shown["odd"] == "(no picture, 4 kB)"
    assert {**shown, "img": meta["img"], "controls": meta["controls"], "odd": meta["odd"]} == meta


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cat: cannot be read: No such file or directory"),
        (b"", "cat: it is neither a PNG nor JSON"),
        (b"<html>", "cat: it is neither a PNG nor JSON"),
        (png_bytes(PICTURE, None), "cat: it holds no metadata known here: another program made it"),
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
