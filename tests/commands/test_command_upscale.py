"""`imagine upscale` and `imagine upscalers`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagine_core.pictures.metadata import document_bytes, png_bytes, read_meta
from imagine_core.pictures.pngtext import replace_texts
from programs import KEY, Imagine
from upscalers import compact, noise, repeating, save

META = {"prompt": "a fox", "seed": "1", "width": 12, "height": 8}


@pytest.fixture
def fox(work: Path) -> Path:
    """A picture with its settings."""
    file = work / "fox.png"
    file.write_bytes(png_bytes(noise(12, 8), META, infotext="a fox\nSteps: 2, Seed: 1"))
    return file


@pytest.fixture
def networks(models: str) -> str:
    """The models folder, with upscalers in it."""
    folder = Path(models) / "upscale_models"
    folder.mkdir()
    save(folder / "Repeat.pth", {"params_ema": repeating()})
    save(folder / "Small.safetensors", compact(factor=2))
    (folder / "broken.pth").write_bytes(b"<!doctype html>")
    return models


def test_a_picture_is_enlarged_beside_itself_and_keeps_its_settings(
    imagine: Imagine, fox: Path
) -> None:
    run = imagine("upscale", fox)
    assert run.code == 0, run.err
    assert run.err == "no server at 127.0.0.1:5000: enlarging in this process\n"
    (file,) = run.files
    assert file == fox.with_name("fox_2x.png")
    assert Image.open(file).size == (24, 16)
    assert read_meta(file) == META
    said = Image.open(file).info["postprocessing"]
    assert said == "Postprocess upscale by: 2, Postprocess upscaler: Lanczos"


def test_an_existing_file_is_never_replaced_unless_it_is_named(imagine: Imagine, fox: Path) -> None:
    first, second = imagine("upscale", fox).files[0], imagine("upscale", fox).files[0]
    assert (first.name, second.name) == ("fox_2x.png", "fox_2x_2.png")
    (again,) = imagine("upscale", fox, "-o", first, "--scale", "1.5").files
    assert again == first
    assert Image.open(first).size == (18, 12)


@pytest.mark.parametrize("written", ["30x20", "30X20", "30 x 20", "30\u00d720"])
def test_a_size_is_written_with_an_x(imagine: Imagine, fox: Path, written: str) -> None:
    (file,) = imagine("upscale", fox, "--size", written, "--upscaler", "nearest").files
    assert file.name == "fox_30x20.png"
    assert Image.open(file).size == (30, 20)


def test_a_network_in_the_folder_enlarges_it(imagine: Imagine, fox: Path, networks: str) -> None:
    run = imagine("upscale", fox, "--upscaler", "repeat", "--scale", "4", "--models", networks)
    larger = np.array(Image.open(run.files[0]))
    assert np.array_equal(larger, np.array(Image.open(fox)).repeat(4, 0).repeat(4, 1))
    assert Image.open(run.files[0]).info["postprocessing"].endswith("upscaler: Repeat")


def test_info_says_how_a_picture_was_enlarged(imagine: Imagine, fox: Path, work: Path) -> None:
    noise(12, 8).save(work / "photo.jpg")
    told = "Postprocess upscale by: 2, Postprocess upscaler: Lanczos"
    for name, meta in (("fox.png", META), ("photo.jpg", {})):
        (larger,) = imagine("upscale", name).files
        shown = imagine("info", larger)
        assert (shown.code, json.loads(shown.out)) == (0, {**meta, "postprocessing": told})
    damaged = replace_texts(larger.read_bytes(), {"meta": "{", "postprocessing": told})
    larger.write_bytes(damaged)
    assert "its metadata is damaged" in imagine("info", larger).err


@pytest.mark.parametrize("there", [False, True])
def test_a_see_through_picture_stays_so(
    imagine: Imagine, work: Path, server: str, *, there: bool
) -> None:
    logo = noise(12, 8).convert("RGBA")
    logo.paste((0, 0, 0, 0), (0, 0, 6, 8))
    logo.save(work / "logo.png")
    asked = ("-a", server, "--api-key", KEY) if there else ()
    (file,) = imagine("upscale", "logo.png", "--upscaler", "nearest", *asked).files
    larger = np.array(Image.open(file))
    expected = np.array(logo).repeat(2, 0).repeat(2, 1)
    assert (larger[..., 3] == expected[..., 3]).all()
    assert (larger[expected[..., 3] > 0] == expected[expected[..., 3] > 0]).all()


def test_a_json_file_of_a_run_is_a_picture_too(imagine: Imagine, work: Path) -> None:
    file = work / "fox.json"
    file.write_bytes(document_bytes(META, png_bytes(noise(12, 8), None)))
    (larger,) = imagine("upscale", file).files
    assert larger.name == "fox_2x.png"
    assert read_meta(larger) == META


def test_a_folder_takes_it_under_its_name(imagine: Imagine, fox: Path) -> None:
    folder = fox.parent / "large"
    folder.mkdir()
    assert imagine("upscale", fox, "-o", folder).files == [folder / "fox_2x.png"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scale", "0"], "--scale: must be more than 0"),
        (["--scale", "nan"], "no finite number"),
        (["--size", "20"], "must look like 1024x768"),
        (["--size", "20x20", "--scale", "2"], "give one of them"),
        (["--size", "9000x9000"], "--size: makes 9000 x 9000 pixels"),
        (["--upscaler", "lanzcos"], "did you mean 'lanczos'?"),
        (["-o", "x.jpg"], "pictures are PNG files"),
    ],
)
def test_what_cannot_be_done_is_an_error_in_words(
    imagine: Imagine, fox: Path, options: list[str], said: str
) -> None:
    run = imagine("upscale", fox, *options)
    assert run.code != 0
    assert said in run.err
    assert list(fox.parent.iterdir()) == [fox]


def test_a_file_that_is_no_picture_is_an_error_in_words(imagine: Imagine, work: Path) -> None:
    (work / "x.png").write_bytes(b"no")
    assert "x.png: is not a picture in a format" in imagine("upscale", "x.png").err
    assert "cannot be read" in imagine("upscale", "y.png").err
    assert imagine("upscale").code == 2


def test_upscalers_are_listed_with_what_is_wrong_with_some(imagine: Imagine, networks: str) -> None:
    run = imagine("upscalers", "--models", networks)
    header, *rows = [line.split(maxsplit=2) for line in run.out.splitlines()]
    assert header[2].split() == ["ARCHITECTURE", "PLUGIN", "PROBLEM"]
    assert rows[0][2].split() == ["-", "imagine-upscalers"]
    assert [row[:2] for row in rows] == [
        ["bicubic", "any"],
        ["lanczos", "any"],
        ["nearest", "any"],
        ["Repeat", "4x"],
        ["Small", "2x"],
        ["broken.pth", "-"],
    ]
    assert "ESRGAN (RRDBNet)" in run.out
    listed = json.loads(imagine("upscalers", "--models", networks, "--json").out)
    assert {each["name"]: each["factor"] for each in listed}["Small"] == 2


def test_a_server_enlarges_it_and_lists_its_upscalers(
    imagine: Imagine, fox: Path, server: str
) -> None:
    asked = ("-a", server, "--api-key", KEY)
    run = imagine("upscale", fox, "--upscaler", "nearest", *asked)
    assert run.code == 0, run.err
    larger = np.array(Image.open(run.files[0]))
    assert np.array_equal(larger, np.array(Image.open(fox)).repeat(2, 0).repeat(2, 1))
    assert read_meta(run.files[0]) == META
    assert f"{__file__}: is not a picture" in imagine("upscale", __file__, *asked).err
    assert "--size: must be" in imagine("upscale", fox, "--size", "9000x9000", *asked).err
    assert "lanczos" in imagine("upscalers", *asked).out


def test_the_picture_can_go_to_standard_output(fox: Path) -> None:
    import subprocess

    run = [sys.executable, "-m", "imagine_core", "upscale", str(fox), "-o", "-", "--device", "cpu"]
    done = subprocess.run(run, capture_output=True, check=True)
    assert done.stdout.startswith(b"\x89PNG")
