"""`imagine run` with masks, borders, ControlNets, variations and larger pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagine_core.pictures.metadata import read_meta
from programs import Imagine

SMALL = ("-w", "64", "-h", "64", "-n", "4", "-g", "2", "--seed", "1", "--sampler", "test euler")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with a ControlNet and an upscaler."""
    folder = tmp_path / "stocked"
    for name in ("tiny.fake", "controlnet/edges.fake", "upscale_models/Twice.fake"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture
def start() -> np.ndarray:
    """The pixels of start.png, of which mask.png repaints the left half."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("start.png")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save("mask.png")
    return pixels


def drawn(imagine: Imagine, folder: Path, name: str, *arguments: str) -> dict[str, Any]:
    ended = imagine("run", *arguments, "--models", folder, "-o", name)
    assert ended.code == 0, ended.err
    return {**read_meta(Path(name)), "date": None}


def pixels(name: str) -> np.ndarray:
    return np.asarray(Image.open(name).convert("RGB"))


def test_a_mask_repaints_and_the_same_picture_is_drawn_again(
    imagine: Imagine, folder: Path, start: np.ndarray
) -> None:
    first = drawn(
        *(imagine, folder, "a.png", "red", *SMALL, "-i", "start.png", "--mask", "mask.png"),
        *("--mask-blur", "0", "--mask-fill", "noise"),
    )
    assert (pixels("a.png")[:, 32:] == start[:, 32:]).all()
    assert (pixels("a.png")[:, :32] != start[:, :32]).any()
    assert (first["mask_blur"], first["mask_fill"]) == (0.0, "noise")
    again = drawn(imagine, folder, "b.png", "--again", "a.png")
    assert again == first
    assert (pixels("b.png") == pixels("a.png")).all()
    inverted = drawn(imagine, folder, "c.png", "--again", "a.png", "--mask-invert")
    assert inverted["mask_invert"] is True
    assert (pixels("c.png")[:, :32] == start[:, :32]).all()


def test_a_picture_is_extended(imagine: Imagine, folder: Path, start: np.ndarray) -> None:
    made = drawn(
        *(imagine, folder, "a.png", "red", *SMALL, "-i", "start.png", "--mask-blur", "0"),
        *("--extend", "0,8,16,0"),
    )
    assert pixels("a.png").shape == (72, 80, 3)
    assert (pixels("a.png")[8:, :64] == start).all()
    assert made["extend"] == [0, 8, 16, 0]


@pytest.mark.parametrize("borders", ["8", "8,8,8", "a,b,c,d", "8,8,8,8,8", ""])
def test_borders_that_are_none_are_told(imagine: Imagine, borders: str) -> None:
    ended = imagine("run", "red", "--extend", borders)
    assert ended.code == 2
    assert "is no LEFT,TOP,RIGHT,BOTTOM in pixels" in ended.err


def test_bad_masks_are_told_under_their_flags(imagine: Imagine, folder: Path) -> None:
    Path("no.png").write_bytes(b"no picture")
    here = ("run", "red", *SMALL, "--models", folder)
    ended = imagine(*here, "--mask", "no.png", "--extend", "0,0,7,0")
    assert ended.code == 2
    assert "--mask no.png: needs a picture to start from" in ended.err
    assert "--extend: must be multiples of 8" in ended.err
    Image.new("RGB", (64, 64)).save("start.png")
    ended = imagine(*here, "-i", "start.png", "--mask", "no.png")
    assert "--mask no.png: is not a picture in a format that is known here" in ended.err
    ended = imagine(*here, "-i", "no.png")
    assert "--img no.png: is not a picture in a format that is known here" in ended.err
    assert imagine(*here, "--mask", "missing.png").code != 0


def test_a_controlnet_and_its_hint_are_asked_for_and_noted(imagine: Imagine, folder: Path) -> None:
    Image.new("RGB", (64, 64), (200, 40, 90)).save("hint.png")
    made = drawn(
        *(imagine, folder, "a.png", "red", *SMALL),
        *("--control", "EDGES=hint.png,weight=0.5,mode=control"),
        *("--control", "edges=hint.png,start=0.25,end=.75"),
    )
    plain = drawn(imagine, folder, "plain.png", "red", *SMALL)
    assert "controls" not in plain
    assert (pixels("a.png") != pixels("plain.png")).any()
    first, second = made["controls"]
    assert (first["name"], first["weight"], first["mode"]) == ("edges", 0.5, "control")
    assert (second["start"], second["end"]) == (0.25, 0.75)
    drawn(imagine, folder, "b.png", "--again", "a.png")
    assert (pixels("a.png") == pixels("b.png")).all()


def test_a_hint_that_is_no_picture_is_told_by_its_file(imagine: Imagine, folder: Path) -> None:
    Image.new("RGB", (64, 64)).save("hint.png")
    Path("no.png").write_bytes(b"no picture")
    asked = ("run", "red", *SMALL, "--models", folder, "--control", "edges=hint.png,weight=0.5")
    ended = imagine(*asked, "--control", "lines=no.png")
    assert "--control no.png: is not a picture in a format that is known here" in ended.err
    ended = imagine(*asked, "--control", "edges=no.png")  # which of the two is not said
    assert "--control hint.png or no.png: is not a picture" in ended.err


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("edges", "is no NAME=FILE"),
        ("=hint.png", "is no NAME=FILE"),
        ("edges=hint.png,mod=x", "is none of weight, start, end, mode, preprocessor"),
        ("edges=hint.png,img=x", "is none of weight"),
        ("edges=hint.png,weight=much", "weight must be a finite number"),
        ("edges=missing.png", "missing.png"),
    ],
)
def test_a_control_that_cannot_be_read_is_told(imagine: Imagine, value: str, said: str) -> None:
    Path("hint.png").write_bytes(b"x")
    ended = imagine("run", "red", "--control", value)
    assert ended.code != 0
    assert said in ended.err


def test_the_larger_picture_is_kept(imagine: Imagine, folder: Path) -> None:
    made = drawn(
        *(imagine, folder, "a.png", "red", *SMALL, "--hires", "2", "--keep-size"),
        *("--hires-upscaler", "twice", "--hires-steps", "3", "--hires-strength", "0.5"),
        *("--hires-sampler", "euler"),
    )
    assert pixels("a.png").shape == (128, 128, 3)
    assert (made["hires_upscaler"], made["hires_steps"]) == ("Twice", 3)
    assert (made["hires_strength"], made["hires_sampler"]) == (0.5, "euler")
    drawn(imagine, folder, "b.png", "--again", "a.png")
    assert (pixels("a.png") == pixels("b.png")).all()


def test_variations_keep_the_seed_and_each_is_drawn_again(imagine: Imagine, folder: Path) -> None:
    made = drawn(
        *(imagine, folder, "a.png", "red", *SMALL, "--subseed", "9", "--subseed-strength", "0.3"),
        *("--count", "2"),
    )
    second = read_meta(Path("a_2.png"))
    assert (made["seed"], made["subseed"]) == ("1", "9")
    assert (second["seed"], second["subseed"]) == ("1", "10")
    assert (pixels("a.png") != pixels("a_2.png")).any()
    drawn(imagine, folder, "b.png", "--again", "a_2.png")
    assert (pixels("b.png") == pixels("a_2.png")).all()


def test_seamless_pictures_and_tiles_are_asked_for(imagine: Imagine, folder: Path) -> None:
    made = drawn(imagine, folder, "a.png", "red", *SMALL, "--tiling", "xy", "--vae-tiling")
    assert (made["tiling"], made["vae_tiling"]) == (True, True)
    assert imagine("run", "red", "--tiling", "z").code == 2
