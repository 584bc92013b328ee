from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from exif_blocks import PROMPT, SPELLINGS, picture_with
from imagine_core.cli import main
from imagine_core.pictures.metadata import png_bytes, read_meta
from programs import Imagine

META = {"model": "tiny", "prompt": "кот", "seed": "7"}


@pytest.fixture
def picture(work: Path) -> Path:
    path = work / "cat.png"
    path.write_bytes(png_bytes(Image.linear_gradient("L").convert("RGB"), META, infotext="кот"))
    return path


def test_convert_goes_both_ways_without_loss(imagine: Imagine, picture: Path) -> None:
    before = picture.read_bytes()
    there = imagine("convert", "cat.png")
    assert (there.code, there.out, there.err) == (0, "cat.json\n", "")
    assert json.loads(Path("cat.json").read_text("utf-8"))["meta"] == META
    picture.unlink()
    back = imagine("convert", "cat.json")
    assert (back.code, back.out, back.err) == (0, "cat.png\n", "")
    assert picture.read_bytes() == before


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_convert_takes_a_picture_of_another_tool(imagine: Imagine, work: Path, form: str) -> None:
    (work / "cat.jpg").write_bytes(picture_with(SPELLINGS["A1111, SD.Next"], form))
    meta = json.loads(imagine("info", "cat.jpg").out)
    assert (meta["prompt"], meta["steps"], meta["seed"]) == (PROMPT, 20, "42")
    assert imagine("convert", "cat.jpg").out == "cat.json\n"
    assert json.loads(Path("cat.json").read_text("utf-8"))["meta"] == meta
    assert imagine("convert", "cat.json").out == "cat.png\n"
    assert json.loads(imagine("info", "cat.png").out) == meta


def test_a_file_that_is_there_stays_unless_forced(imagine: Imagine, picture: Path) -> None:
    taken = Path("cat.json")
    taken.write_text("mine")
    ended = imagine("convert", "cat.png")
    assert ended.code == 1
    assert ended.err == "Error: cat.json exists already; --force replaces it\n"
    assert taken.read_text() == "mine"
    assert imagine("convert", "cat.png", "--force").code == 0
    assert read_meta(taken) == META


def test_the_output_may_be_named(imagine: Imagine, picture: Path) -> None:
    assert imagine("convert", "cat.png", "-o", "other.json").out == "other.json\n"
    assert imagine("convert", "other.json", "-o", "third").out == "third\n"
    assert Path("third").read_bytes() == picture.read_bytes()


def test_the_output_may_be_standard_output_or_a_device(
    picture: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["convert", "cat.png", "-o", "-"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["meta"] == META
    assert main(["convert", "cat.png", "-o", os.devnull]) == 0
    assert Path(os.devnull).is_char_device()


def test_a_file_is_never_replaced_by_its_own_conversion(imagine: Imagine, picture: Path) -> None:
    picture.rename("cat.json")
    ended = imagine("convert", "cat.json", "--force")
    assert ended.code == 1
    assert ended.err == "Error: cat.json would replace itself; -o names another file\n"


def test_a_folder_that_is_missing_is_one_line(imagine: Imagine, picture: Path) -> None:
    ended = imagine("convert", "cat.png", "-o", "no/cat.json")
    assert ended.code == 1
    assert ended.err == "Error: no/cat.json: cannot be written: No such file or directory\n"
