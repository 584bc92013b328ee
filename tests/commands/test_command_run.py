from __future__ import annotations

import base64
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imagine_core import GenerationRequest, PhaseEvent
from imagine_core.cli import main
from imagine_core.fields import FIELDS
from imagine_core.pictures.metadata import read_meta
from imagine_core.plugins import Plugins
from imagine_core.testing import FakeModel, FakePlugin
from imagine_core.types import USUAL
from imagine_plugins.commands.run import run
from imagine_plugins.dialects.native.client import NativeClient
from programs import KEY, Imagine, command, serving

EULER = ("--sampler", "test euler", "-w", "64", "-h", "64", "-n", "4")


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, "PNG")
    return buffer.getvalue()


# -------------------------------------------------------------------------------- the contract

README = {
    ("-m", "--model"): None,
    ("-a", "--address"): None,
    ("-o", "--output"): None,
    ("--meta",): False,
    ("-w", "--width"): 512,
    ("-h", "--height"): 512,
    ("-n", "--steps"): 25,
    ("-g", "--guidance"): 7.0,
    ("-d", "--strength"): 0.8,
    ("-c", "--clip"): 1,
    ("--sampler",): "dpm++ 2m",
    ("-i", "--img"): None,
    ("-f", "--hires"): None,
    ("--seed",): None,
    ("--neg",): "ugly, deformed, blurry, low quality",
    ("-s", "--stream"): 0,
}


def test_every_flag_of_the_readme_has_its_short_form_and_its_default() -> None:
    given = run.make_context("run", ["cat"]).params
    exposed = [each for each in run.params if each.expose_value]
    known = {tuple(each.opts): given[each.name or ""] for each in exposed}
    left = {field.flags: value for field in FIELDS if (value := USUAL.get(field.name)) is not None}
    assert all(known[flags] is None for flags in left), "they are left to the model"
    known |= left  # which Stable Diffusion 1 and doodle have
    assert {flags: known.get(flags, "missing") for flags in README} == README


def test_flags_that_change_nothing_are_warned_of_and_left_out(
    imagine: Imagine, models: str, work: Path
) -> None:
    small = ("run", "red", "-w", "64", "-h", "64", "-n", "2", "--sampler", "test euler")
    here = (*small, "--models", models, "-o", "red.png")
    assert "changes nothing" not in imagine(*here).err
    ended = imagine(
        *(*here, "-d", "0.5", "--mask-blur", "4", "--mask-fill", "noise", "--mask-padding", "8"),
        *("--mask-invert", "--keep-size", "--hires-steps", "3", "--subseed", "5"),
    )
    assert ended.code == 0
    assert [line for line in ended.err.splitlines() if "Warning" in line] == [
        "Warning: --strength changes nothing without --img",
        "Warning: --keep-size changes nothing without --hires",
        "Warning: --hires-steps changes nothing without --hires",
        "Warning: --subseed changes nothing without --subseed-strength",
        "Warning: --mask-blur changes nothing without --mask or --extend",
        "Warning: --mask-fill changes nothing without --mask or --extend",
        "Warning: --mask-invert changes nothing without --mask",
        "Warning: --mask-padding changes nothing without --mask or --extend",
    ]
    noted = set(read_meta(work / "red.png"))
    assert noted.isdisjoint({"keep_size", "hires_steps", "subseed", "mask_fill", "mask_invert"})
    (work / "in.png").write_bytes(png())
    acting = imagine(*here, "-i", "in.png", "--extend", "8,0,0,0", "--mask-blur", "2")
    assert "changes nothing" not in acting.err


def test_every_flag_reaches_the_picture(imagine: Imagine, models: str, work: Path) -> None:
    (work / "in.png").write_bytes(png())
    ended = imagine(
        *("run", "a", "red", "house", "-m", "tiny", "-w", "64", "-h", "128", "-n", "6"),
        *("-g", "2.5", "-d", "0.5", "-c", "2", "--sampler", "test euler", "-i", "in.png"),
        *("-f", "1.5", "--seed", 2**64 - 1, "--neg", "ugly", "-s", "2", "--deterministic"),
        *("--schedule", "default", "--meta", "-o", "out", "--models", models),
    )
    assert ended.code == 0
    meta = read_meta(work / "out.png")
    assert meta.pop("date")
    assert meta == {
        "model": "tiny",
        "prompt": "a red house",
        "width": 64,
        "height": 128,
        "steps": 6,
        "guidance": 2.5,
        "sampler": "test euler",
        "seed": "18446744073709551615",
        "neg": "ugly",
        "clip": 2,
        "stream": 2,
        "img": base64.b64encode(png()).decode(),
        "strength": 0.5,
        "hires": 1.5,
        "deterministic": True,
        "model_hash": "0123456789",
    }
    document = json.loads((work / "out.json").read_text())
    assert base64.b64decode(document["out"]) == (work / "out.png").read_bytes()
    assert document["meta"] == read_meta(work / "out.png")


# ------------------------------------------------------------------------------ in this process


def test_a_run_prints_the_name_of_its_file_alone(imagine: Imagine, models: str) -> None:
    ended = imagine("run", "cat", *EULER, "--models", models)
    assert ended.code == 0
    assert re.fullmatch(r"\d{8}_\d{6}\.png\n", ended.out)
    assert ended.err == "generating in this process\n"
    image = Image.open(ended.files[0])
    image.load()
    assert image.size == (64, 64)
    assert "Sampler: Test Euler" in image.info["parameters"]


def test_a_quiet_run_says_nothing_else(imagine: Imagine, models: str) -> None:
    assert imagine("run", "cat", *EULER, "--models", models, "--quiet").err == ""


def test_a_run_without_any_server_says_where_it_looked(
    imagine: Imagine, models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path(models).parent))
    (Path(models).parent / ".imagine").symlink_to(Path(models).parent)
    ended = imagine("run", "cat", *EULER)
    assert ended.err == "no server at 127.0.0.1:5000: generating in this process\n"
    assert ended.code == 0


def test_each_of_several_pictures_has_a_file_and_a_seed(
    imagine: Imagine, models: str, work: Path
) -> None:
    arguments = ("run", "cat", *EULER, "--models", models, "-o", "cat")
    ended = imagine(*arguments, "--seed", "7", "--count", "3")
    assert ended.out == "cat.png\ncat_2.png\ncat_3.png\n"
    assert [read_meta(file)["seed"] for file in ended.files] == ["7", "8", "9"]
    second = (work / "cat_2.png").read_bytes()
    imagine(*arguments, "--seed", "8")
    assert pixels(work / "cat.png") == pixels(io.BytesIO(second))


def pixels(file: Path | io.BytesIO) -> bytes:
    return Image.open(file).convert("RGB").tobytes()


def test_warnings_of_the_engine_are_on_stderr(imagine: Imagine, models: str) -> None:
    ended = imagine("run", "word " * 80, *EULER, "--models", models, "--quiet")
    assert ended.code == 0
    assert "Warning: prompt: 2 chunks" in ended.err


def test_a_terminal_is_shown_the_progress_and_what_came_of_it(
    imagine: Imagine, models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ended = imagine("run", "cat", *EULER, "--models", models, "--seed", "7")
    assert "\rloading the model" in ended.err
    assert "\rdrawing [########################] 4/4" in ended.err
    assert re.fullmatch(r" *seed 7, \d+\.\d s\n", re.split("[\r\b]", ended.err)[-1])


def test_a_sampler_that_only_the_server_knows_is_called_as_the_server_does(
    imagine: Imagine, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGINE_PLUGINS", "imagine-command-run")
    arguments = ["run", "cat", *EULER, *remote(server), "-o", "cat"]
    assert main(arguments) == 0
    with Image.open("cat.png") as image:
        image.load()
        assert "Sampler: test euler" in image.info["parameters"]


def test_a_seed_of_minus_one_is_random(imagine: Imagine, models: str) -> None:
    ended = imagine("run", "cat", *EULER, "--models", models, "--seed", "-1")
    assert int(read_meta(ended.files[0])["seed"]) >= 0


# ----------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "ends"),
    [
        (("cat", "-o", "no/cat"), (1, "Error: no: cannot be written: No such file or directory")),
        (("cat", "-o", "file/cat"), (1, "Error: file: cannot be written: Not a directory")),
        (("cat", "-i", "no.png"), (1, "Error: no.png: cannot be read: No such file or directory")),
        (("cat", "-i", "."), (1, "Error: .: cannot be read: Is a directory")),
        (("cat", "-o", "cat.jpg"), (2, "Error: pictures are PNG files: -o cat.png")),
        (("cat", "-o", "folder"), (2, "Error: folder.png is a folder")),
        ((" ",), (2, "Error: the prompt is empty")),
        (("cat", "-a", "h", "--device", "cpu"), (2, "Error: -a asks a server, which has its own")),
        (("cat", "-a", "a b:c"), (2, "Error: 'a b:c' is no address of a server")),
        (("cat", "-s", "-1"), (2, "Error: Invalid value for '-s' / '--stream'")),
    ],
)
def test_what_can_be_known_before_the_work_is_said_before_it(
    imagine: Imagine, work: Path, fake: FakePlugin, arguments: Any, ends: tuple[int, str]
) -> None:
    (work / "file").touch()
    (work / "folder.png").mkdir()
    before = sorted(work.iterdir())
    ended = imagine("run", *arguments)
    code, line = ends
    assert ended.code == code
    assert ended.out == ""
    assert ended.err.splitlines()[-1].startswith(line)
    assert fake.loader.models == []
    assert sorted(work.iterdir()) == before


def test_values_that_cannot_be_are_named_by_their_flags_at_once(
    imagine: Imagine, models: str
) -> None:
    ended = imagine("run", "cat", "-w", "65", "-g", "-1", "-c", "0", "--models", models)
    assert ended.code == 2
    for flag in ("--width", "--guidance", "--clip"):
        assert f"{flag}: must be" in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "tinny"), "unknown model 'tinny'; did you mean 'tiny'?"),
        (("-m", "broken"), "model 'broken' cannot be used: it is broken; get another one"),
        (("--sampler", "test eulr"), "unknown sampler 'test eulr'; did you mean 'test euler'?"),
        (("--device", "gpu"), "unknown device 'gpu'"),
    ],
)
def test_names_that_nobody_knows_are_one_line(
    imagine: Imagine, models: str, arguments: tuple[str, ...], message: str
) -> None:
    (Path(models) / "broken.fake").touch()
    ended = imagine("run", "cat", *EULER, "-m", "tiny", *arguments, "--models", models, "--quiet")
    assert ended.code == 1
    assert ended.err.startswith(f"Error: {message}")
    assert ended.err.count("\n") == 1


def test_a_model_that_fails_leaves_the_last_intermediate_and_says_so(
    imagine: Imagine, models: str, work: Path, fake: FakePlugin
) -> None:
    def fail_at_the_fourth(rows: int) -> None:
        if len(fake.loader.models[0].forwards) == 3:
            raise ValueError("a fault")

    fake.loader.before = fail_at_the_fourth
    ended = imagine("run", "cat", *EULER, "--models", models, "-o", "cat", "-s", "2", "--quiet")
    assert ended.code == 1
    said, error = ended.err.splitlines()
    assert said == "cat.png shows it after step 2 of 4"
    assert error.startswith("Error: model 'tiny' failed with ValueError")
    assert error.endswith("(IMAGINE_DEBUG=1 shows the log)")
    meta = read_meta(work / "cat.png")
    assert (meta["unfinished"], meta["model"]) == ("2/4", "tiny")
    assert list(work.iterdir()) == [work / "cat.png"]


@pytest.mark.parametrize("part", ["encode_prompt", "predict", "decode"])
@pytest.mark.parametrize(
    "failure", [(ValueError("a fault"), "failed with ValueError"), (MemoryError(), "memory")]
)
def test_whatever_fails_in_this_process_is_one_line(
    imagine: Imagine,
    models: str,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    failure: tuple[Exception, str],
) -> None:
    fault, said = failure

    def fail(*arguments: object, **options: object) -> None:
        raise fault

    monkeypatch.setattr(FakeModel, part, fail)
    ended = imagine("run", "cat", *EULER, "--models", models, "--quiet")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("Error: ")
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_with_no_model_at_all_it_says_how_to_get_one(
    imagine: Imagine, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plugins, "model_folders", lambda plugins: [])
    ended = imagine("run", "cat", "--models", work, "--quiet")
    assert ended.code == 1
    assert "imagine pull" in ended.err
    assert "default" not in ended.err


def test_the_picture_may_go_into_a_pipe(work: Path, models: str) -> None:
    arguments = command("run", "cat", *EULER, "--models", models, "-o", "-", "-s", "1")
    ended = subprocess.run(arguments, capture_output=True, check=True)
    assert Image.open(io.BytesIO(ended.stdout)).size == (64, 64)
    assert list(work.iterdir()) == []


def test_a_disk_that_fills_up_is_one_line_and_leaves_the_old_file(
    imagine: Imagine, models: str, work: Path, fake: FakePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(rows: int) -> None:
        monkeypatch.setattr(os, "fsync", full)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (work / "cat.png").write_bytes(b"old")
    fake.loader.before = fill
    ended = imagine("run", "cat", *EULER, "--models", models, "-o", "cat", "--quiet")
    assert ended.code == 1
    assert ended.err == "Error: cat.png: cannot be written: No space left on device\n"
    assert (work / "cat.png").read_bytes() == b"old"
    assert list(work.iterdir()) == [work / "cat.png"]


def test_a_json_file_that_cannot_be_written_does_not_hide_the_picture(
    imagine: Imagine, models: str, work: Path
) -> None:
    (work / "cat.json").mkdir()
    ended = imagine("run", "cat", *EULER, "--models", models, "-o", "cat", "--meta", "--quiet")
    assert ended.code == 1
    assert ended.err.splitlines() == [
        "cat.png is saved",
        "Error: cat.json: cannot be written: Is a directory",
    ]


def test_a_prompt_that_is_no_text_is_drawn_all_the_same(imagine: Imagine, models: str) -> None:
    ended = imagine("run", "cat \udcff", *EULER, "--models", models)
    assert ended.code == 0
    assert read_meta(ended.files[0])["prompt"] == "cat ?"


# ----------------------------------------------------------------------------------- a server


def remote(server: str) -> tuple[str, ...]:
    return ("-a", server, "--api-key", KEY)


def test_a_server_makes_the_same_picture_as_this_process(
    imagine: Imagine, models: str, server: str, work: Path
) -> None:
    common = ("run", "кот 🐈", *EULER, "--seed", "7", "--quiet")
    assert imagine(*common, "--models", models, "-o", "here").code == 0
    ended = imagine(*common, *remote(server), "-o", "there")
    assert (ended.code, ended.err) == (0, "")
    here, there = read_meta(work / "here.png"), read_meta(work / "there.png")
    assert pixels(work / "here.png") == pixels(work / "there.png")
    assert {**here, "date": ""} == {**there, "date": ""}


def test_the_metadata_keeps_what_a_server_does_not_repeat(
    imagine: Imagine, server: str, work: Path
) -> None:
    (work / "in.png").write_bytes(png())
    ended = imagine("run", "cat", *EULER, *remote(server), "-i", "in.png", "-s", "1", "-d", "0.9")
    assert ended.code == 0
    meta = read_meta(ended.files[0])
    assert base64.b64decode(meta["img"]) == png()
    assert (meta["stream"], meta["strength"]) == (1, 0.9)


def test_an_answer_that_just_ends_is_one_line(
    imagine: Imagine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def generate(client: NativeClient, request: GenerationRequest) -> AsyncIterator[Any]:
        yield PhaseEvent(phase="queued")

    monkeypatch.setattr(NativeClient, "generate", generate)
    ended = imagine("run", "cat", "-a", "example.com")
    assert ended.code == 1
    assert ended.err == "Error: the answer ended before the picture was finished\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("-w", "65", "-n", "0"),
            2,
            "--width: must be a multiple of 8 from 64 to 65,536; --steps:",
        ),
        (("-m", "tinny"), 1, "unknown model 'tinny'; did you mean 'tiny'?"),
        (("--api-key", "wrong"), 1, "the server wants its API key, and got none or another one"),
    ],
)
def test_what_a_server_refuses_is_one_line(
    imagine: Imagine, server: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ended = imagine("run", "cat", *EULER, *remote(server), *arguments)
    assert ended.code == code
    assert ended.err.startswith(f"Error: {message}")
    assert ended.err.count("\n") == 1


def test_an_address_without_a_server_is_one_line(imagine: Imagine) -> None:
    ended = imagine("run", "cat", "-a", "127.0.0.1:9")
    assert ended.code == 1
    assert ended.err.startswith("Error: no server answers at http://127.0.0.1:9")
    assert ended.err.count("\n") == 1


def test_a_run_against_a_server_imports_no_torch(server: str, work: Path) -> None:
    code = (
        "import sys; from imagine_core.cli import main; main(sys.argv[1:]);"
        "sys.exit(bool({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    arguments = ["run", "cat", "-n", "2", "-w", "64", "-h", "64", "--sampler", "ddim"]
    ended = subprocess.run([sys.executable, "-c", code, *arguments, *remote(server)], check=False)
    assert ended.returncode == 0
    assert [path.suffix for path in work.iterdir()] == [".png"]


# ---------------------------------------------------------------------------------- interrupted


def start(work: Path, *arguments: str, stall: int = -1) -> subprocess.Popen[str]:
    """A run in a process of its own, which saves every step of many."""
    streamed = ("run", "cat", "--sampler", "test euler", "-w", "64", "-h", "64", "-s", "1")
    return subprocess.Popen(
        command(*streamed, "-n", "500", "-o", "cat", *arguments),
        cwd=work,
        env={**os.environ, "FAKE_STALL": str(stall)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def left_behind(work: Path) -> str:
    """How far the one file in `work` is."""
    assert list(work.iterdir()) == [work / "cat.png"]
    Image.open(work / "cat.png").load()
    return str(read_meta(work / "cat.png")["unfinished"]).replace("/", " of ")


def jobs(server: str) -> list[Any]:
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{server}/ps", headers={"Authorization": f"Bearer {KEY}"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return list(json.load(answer)["jobs"])


def test_ctrl_c_ends_the_servers_job_and_keeps_the_last_intermediate(
    server: str, work: Path
) -> None:
    process = start(work, *remote(server))
    wait_for(work / "cat.png")
    assert len(jobs(server)) == 1
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.split("\n")[:2] == [f"cat.png shows it after step {left_behind(work)}", ""]
    assert "Interrupted" in err
    deadline = time.monotonic() + 60
    while jobs(server):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ctrl_c_in_the_middle_of_a_long_step_does_not_wait_for_it(work: Path, models: str) -> None:
    process = start(work, "--models", models, stall=1)
    wait_for(work / "cat.png")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)  # the step takes ten minutes
    assert process.returncode == 130
    assert f"cat.png shows it after step {left_behind(work)}" in err
    assert err.count("Interrupted") == 1


def test_a_server_that_dies_leaves_the_last_intermediate(work: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "served", step=0.02) as (address, server):
        process = start(work, *remote(address))
        wait_for(work / "cat.png")
        server.kill()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    said, error = err.splitlines()
    assert said == f"cat.png shows it after step {left_behind(work)}"
    assert error == f"Error: the server at {address} went away before it was done"


def test_two_streams_at_once_each_have_their_file(server: str, work: Path) -> None:
    common = ("run", "--sampler", "test euler", "-w", "64", "-h", "64", "-n", "20", "-s", "1")
    processes = [
        subprocess.Popen(
            command(*common, prompt, *remote(server)), cwd=work, stdout=subprocess.PIPE, text=True
        )
        for prompt in ("red", "blue")
    ]
    names = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert len(set(names)) == 2
    assert [read_meta(work / name)["prompt"] for name in names] == ["red", "blue"]
    assert len(list(work.iterdir())) == 2


@pytest.mark.parametrize("flag", ["-g", "-d", "-f"])
@pytest.mark.parametrize("value", ["nan", "inf", "1e400"])
def test_numbers_must_be_finite(imagine: Imagine, flag: str, value: str) -> None:
    ended = imagine("run", "cat", flag, value)
    assert ended.code == 2
    assert "no finite number" in ended.err


@pytest.mark.parametrize("key", ["", "a\nb"])
def test_a_key_must_fit_into_a_header(imagine: Imagine, key: str) -> None:
    for words in (("run", "cat", "-a", "127.0.0.1:1"), ("serve",)):
        ended = imagine(*words, "--api-key", key)
        assert ended.code == 2
        assert "a key must not be empty" in ended.err


def test_a_folder_that_is_not_there_is_said(imagine: Imagine, tmp_path: Path) -> None:
    ended = imagine("run", "cat", "--models", str(tmp_path / "none"), "-w", "64", "-h", "64")
    assert "does not exist" in ended.err
