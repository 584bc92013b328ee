from __future__ import annotations

import os
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import click
import pytest
from PIL import Image

from imagine_core import GeneratedImage, GenerationResult, ResolvedRequest, StepEvent
from imagine_core.pictures.metadata import read_meta
from imagine_plugins.commands.shared.saving import Gallery, open_gallery

REQUEST = ResolvedRequest(prompt="cat", model="tiny", width=64, height=64, seed=7)
DATE = datetime(2023, 10, 27, 15, 30, 45, tzinfo=UTC)


def gallery(
    folder: Path, stem: str = "20231027_153045", *, keep: bool = True, document: bool = False
) -> Gallery:
    return Gallery(
        folder=folder, stem=stem, keep=keep, document=document, label=str.upper, date=DATE
    )


def result(*seeds: int) -> GenerationResult:
    image = Image.new("RGB", (64, 64), "teal")
    images = tuple(GeneratedImage(image=image, seed=seed) for seed in seeds)
    return GenerationResult(images=images, request=REQUEST)


def preview(step: int, *, image: int = 0) -> StepEvent:
    small = Image.new("RGB", (8, 8), "red")
    return StepEvent(step=step, steps=25, seed=7 + image, image=image, preview=small)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_runs_in_the_same_second_never_replace_each_others_pictures(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        gallery(tmp_path).finish(result(seed))
    files = [tmp_path / f"20231027_153045{end}.png" for end in ("", "_2", "_3")]
    assert names(tmp_path) == sorted(file.name for file in files)
    assert [read_meta(file)["seed"] for file in files] == ["1", "2", "3"]


def test_a_name_whose_json_is_taken_is_taken(tmp_path: Path) -> None:
    (tmp_path / "20231027_153045.json").write_text("mine")
    gallery(tmp_path, document=True).finish(result(1))
    assert (tmp_path / "20231027_153045.json").read_text() == "mine"
    assert {"20231027_153045_2.png", "20231027_153045_2.json"} <= set(names(tmp_path))


def test_a_name_that_was_asked_for_replaces_what_is_there(tmp_path: Path) -> None:
    for seed in (1, 2):
        gallery(tmp_path, "cat", keep=False).finish(result(seed))
    assert names(tmp_path) == ["cat.png"]
    assert read_meta(tmp_path / "cat.png")["seed"] == "2"


def test_an_intermediate_has_the_size_of_the_picture_and_says_how_far_it_is(
    tmp_path: Path,
) -> None:
    ours = gallery(tmp_path)
    ours.preview(preview(5), REQUEST)
    [file] = tmp_path.iterdir()
    with Image.open(file) as image:
        assert image.size == (64, 64)
    assert read_meta(file)["unfinished"] == "5/25"
    assert ours.left_behind() == [f"{file} shows it after step 5 of 25"]


def test_a_finished_picture_replaces_its_own_intermediates(tmp_path: Path) -> None:
    ours, other = gallery(tmp_path), gallery(tmp_path)
    for step in (5, 10):
        ours.preview(preview(step), REQUEST)
        other.preview(preview(step), REQUEST)
    assert ours.finish(result(7)) == [tmp_path / "20231027_153045.png"]
    assert ours.left_behind() == [f"{tmp_path}/20231027_153045.png is saved"]
    assert "unfinished" not in read_meta(tmp_path / "20231027_153045.png")
    assert read_meta(tmp_path / "20231027_153045_2.png")["unfinished"] == "10/25"


def test_intermediates_of_several_pictures_go_to_their_own_files(tmp_path: Path) -> None:
    ours = gallery(tmp_path, "cat", keep=False)
    ours.preview(preview(5, image=1), REQUEST)
    ours.preview(preview(5, image=0), REQUEST)
    files = ours.finish(result(7, 8))
    assert [file.name for file in files] == ["cat.png", "cat_2.png"]
    assert [read_meta(file)["seed"] for file in files] == ["7", "8"]


def test_a_picture_says_its_sampler_in_its_label(tmp_path: Path) -> None:
    ran = replace(result(7), request=replace(REQUEST, sampler="heun"))
    [file] = gallery(tmp_path).finish(ran)
    image = Image.open(file)
    image.load()
    assert "Sampler: HEUN" in image.info["parameters"]


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("cat", "cat.png"),
        ("cat.png", "cat.png"),
        ("cat.PNG", "cat.png"),
        ("cat.json", "cat.png"),
        ("model v1.5", "model v1.5.png"),
        ("folder/cat", "folder/cat.png"),
    ],
)
def test_a_name_is_taken_with_or_without_its_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    ours = open_gallery(output, document=False, label=str)
    assert [str(file) for file in ours.finish(result(7))] == [name]


@pytest.mark.parametrize("output", [None, "folder", "folder/"])
def test_without_a_name_the_time_is_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    [file] = open_gallery(output, document=False, label=str).finish(result(7))
    datetime.strptime(file.name, "%Y%m%d_%H%M%S.png").astimezone()
    assert file.parent == Path(output or ".")


@pytest.mark.parametrize("name", ["cat.jpg", "cat.WEBP"])
def test_another_format_is_refused_with_the_name_that_would_do(name: str) -> None:
    with pytest.raises(click.UsageError, match=r"pictures are PNG files: -o cat\.png"):
        open_gallery(name, document=False, label=str)


posix = pytest.mark.skipif(os.name != "posix", reason="pipes have names on POSIX")


@posix
def test_a_pipe_gets_the_finished_pictures_and_keeps_its_name(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        # Each picture opens and closes the pipe, so that each is read by a reader of its own.
        first = pool.submit(pipe.read_bytes)
        opened = open_gallery(str(pipe), document=False, label=str.upper)
        opened.preview(preview(5), REQUEST)
        assert opened.left_behind() == []
        assert opened.finish(result(7)) == [pipe]
        assert Image.open(BytesIO(first.result(30))).size == (64, 64)
    assert names(tmp_path) == ["pipe"]
    assert pipe.is_fifo()


@posix
def test_a_device_is_written_to_as_it_is() -> None:
    opened = open_gallery(os.devnull, document=False, label=str.upper)
    assert opened.finish(result(7, 8)) == [Path(os.devnull)] * 2
    assert Path(os.devnull).is_char_device()


@posix
def test_a_pipe_that_may_not_be_written_to_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe", 0o400)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # which is true but for root
    with pytest.raises(OSError, match="cannot be written: Permission denied"):
        open_gallery(str(tmp_path / "pipe"), document=False, label=str.upper)


@posix
def test_a_socket_holds_no_picture() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as sock:
        path = str(Path(folder) / "s")  # short: the names of sockets have some 100 characters
        sock.bind(path)
        with pytest.raises(click.UsageError, match="no file, folder or pipe"):
            open_gallery(path, document=False, label=str.upper)


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_standard_output_gets_the_picture_and_no_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_gallery(name, document=False, label=str.upper).finish(result(7)) == []
    assert Image.open(BytesIO(capfdbinary.readouterr().out)).size == (64, 64)
    assert names(tmp_path) == []


def test_a_picture_is_not_thrown_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(click.UsageError, match="send it to a file"):
        open_gallery("-", document=False, label=str.upper)


@pytest.mark.parametrize("name", ["-", os.devnull])
def test_a_json_file_needs_a_file_to_be_beside(name: str) -> None:
    with pytest.raises(click.UsageError, match="--meta"):
        open_gallery(name, document=True, label=str.upper)
