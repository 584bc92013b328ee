"""`imagine run --again FILE` draws with the settings of a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from imagine_core.pictures.metadata import read_meta
from programs import Imagine

SMALL = ("-w", "64", "-h", "64", "-n", "4", "--sampler", "test euler")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with a LoRA and a VAE."""
    folder = tmp_path / "stocked"
    for name in ("tiny.fake", "loras/ink.fake", "vae/negative.fake"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def drawn(imagine: Imagine, folder: Path, name: str, *arguments: str) -> dict[str, Any]:
    ended = imagine("run", *arguments, "--models", folder, "-o", name)
    assert ended.code == 0, ended.err
    return {**read_meta(Path(name)), "date": None}


def pixels(name: str) -> bytes:
    return Image.open(name).convert("RGB").tobytes()


def test_the_same_picture_is_drawn_again(imagine: Imagine, folder: Path) -> None:
    first = drawn(
        *(imagine, folder, "a.png", "red<lora:ink:0.5>", *SMALL),
        *("--vae", "negative", "-g", "2.5", "--neg", "ugly", "-s", "2"),
    )
    again = drawn(imagine, folder, "b.png", "--again", "a.png")
    assert again == first | {"stream": None}
    assert again["loras"] == [{"name": "ink", "weight": 0.5}]
    assert pixels("a.png") == pixels("b.png")


def test_flags_and_a_prompt_win_over_the_picture(imagine: Imagine, folder: Path) -> None:
    first = drawn(imagine, folder, "a.png", "red", *SMALL, "--lora", "ink", "--seed", "5")
    changes = ("blue", "house", "--seed", "6", "--lora", "ink:-1:step=1-2", "--neg", "")
    again = drawn(imagine, folder, "b.png", "--again", "a.png", *changes)
    wanted = {
        "prompt": "blue house",
        "seed": "6",
        "neg": "",
        "loras": [{"name": "ink", "weight": -1.0, "start": 0.25, "end": 0.5}],
    }
    assert again == first | wanted


def test_infotext_of_a1111_is_taken_with_its_tags(imagine: Imagine, folder: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text(
        "parameters",
        "red <lora:ink:0.75>\nSteps: 4, Sampler: Test Euler, CFG scale: 3, Seed: 7, "
        'Size: 64x64, Model: tiny, Lora hashes: "ink: 0123456789ab"',
    )
    Image.new("RGB", (8, 8)).save("theirs.png", pnginfo=text)
    meta = drawn(imagine, folder, "a.png", "--again", "theirs.png")
    assert (meta["prompt"], meta["loras"]) == ("red", [{"name": "ink", "weight": 0.75}])
    assert (meta["seed"], meta["steps"], meta["guidance"], meta["neg"]) == ("7", 4, 3.0, "")


def test_a_setting_that_cannot_be_read_is_told_and_left_out(imagine: Imagine, folder: Path) -> None:
    Path("a.json").write_text(
        '{"meta": {"prompt": "red", "steps": "many", "width": 64, "height": 64, '
        '"sampler": "test euler", "other": 1}}'
    )
    ended = imagine("run", "--again", "a.json", "--models", folder, "-o", "a.png")
    assert ended.code == 0
    assert "Warning: a.json: steps: must be a whole number, not a string" in ended.err
    assert "steps" not in imagine("run", "--again", "a.json", "-n", "3", "--models", folder).err


def test_a_file_without_settings_is_refused(imagine: Imagine, folder: Path) -> None:
    Image.new("RGB", (8, 8)).save("plain.png")
    ended = imagine("run", "--again", "plain.png", "--models", folder)
    assert (ended.code, ended.out) == (1, "")
    assert "it holds no metadata known here" in ended.err
    assert imagine("run", "--again", "gone.png", "--models", folder).code == 1


@pytest.mark.parametrize("prompt", ["5", "null", "[]", '"\\ud800"'])
def test_a_prompt_that_is_none_is_told(imagine: Imagine, folder: Path, prompt: str) -> None:
    size = '"width": 64, "height": 64, "sampler": "test euler"'
    Path("a.json").write_text(f'{{"meta": {{"prompt": {prompt}, {size}}}}}')
    ended = imagine("run", "--again", "a.json", "--models", folder, "-o", "a.png")
    assert ended.code == 0
    assert "unexpected" not in ended.err


def test_another_file_of_the_name_is_told_and_loras_can_be_left_out(
    imagine: Imagine, folder: Path
) -> None:
    drawn(imagine, folder, "a.png", "red", *SMALL, "--lora", "ink", "--meta")
    text = Path("a.json").read_text().replace("abcdef012345", "0123456789ab")
    Path("a.json").write_text(text)
    ended = imagine("run", "--again", "a.json", "--models", folder, "-o", "b.png")
    assert "Warning: a.json: it was drawn with another file of that name: lora:ink" in ended.err
    meta = drawn(imagine, folder, "c.png", "--again", "a.png", "--lora", "none")
    assert "loras" not in meta
