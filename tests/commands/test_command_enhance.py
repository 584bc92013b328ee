from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_ollama import FakeOllama, answer, running
from imagine_core.pictures.metadata import read_meta
from imagine_core.testing import FakePlugin
from imagine_plugins.commands.enhance import enhance
from imagine_plugins.enhancers.ollama import Ollama
from programs import Imagine, command

BETTER = "a fox, better"
SMALL = ("-m", "tiny", "--sampler", "test euler", "-w", "64", "-h", "64", "-n", "2")


@pytest.fixture
def ollama(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOllama]:
    with running() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        yield server


@pytest.fixture
def no_ollama(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address at which there is none."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    monkeypatch.setenv("OLLAMA_HOST", address)
    return address


# ---------------------------------------------------------------------------------- imagine enhance


def test_every_flag_of_the_readme_has_its_short_form() -> None:
    known = {tuple(each.opts) for each in enhance.params}
    assert {("-m", "--model"), ("-s", "--stream"), ("-n", "--neg")} <= known


def test_stdout_is_the_better_prompt_alone(imagine: Imagine, ollama: FakeOllama) -> None:
    ended = imagine("enhance", "a", "fox")
    assert (ended.code, ended.out) == (0, f"{BETTER}\n")
    assert ended.err == "enhancing with ollama\n"


def test_the_negative_prompt_is_a_line_of_its_own(imagine: Imagine, ollama: FakeOllama) -> None:
    assert imagine("enhance", "a fox", "-n").out == f"{BETTER}\nNegative prompt: blurry\n"


def test_the_example_of_the_readme_works(imagine: Imagine, ollama: FakeOllama) -> None:
    ollama.says = answer("a tabby cat\n in a \x1b[31mtiny top hat", "dogs,\nblurry")
    ended = imagine("enhance", "a cat with a tiny hat", "-s", "-n")
    assert ended.out == ("a tabby cat in a  [31mtiny top hat\nNegative prompt: dogs, blurry\n")


def test_json_says_all_of_it(imagine: Imagine, ollama: FakeOllama) -> None:
    ended = imagine("enhance", "a fox", "-n", "-s", "--json", "--seed", "5", "-m", "gemma3:4b")
    assert json.loads(ended.out) == {
        "prompt": BETTER,
        "original_prompt": "a fox",
        "neg": "blurry",
        "enhancer": "ollama",
        "model": "gemma3:4b",
        "seed": "5",
    }


def test_without_ollama_the_table_does_it_and_stderr_says_why(
    imagine: Imagine, no_ollama: str
) -> None:
    ended = imagine("enhance", "a fox", "--seed", "3", "-s")
    assert ended.code == 0
    assert ended.out.startswith("a fox, ")
    assert ended.out == imagine("enhance", "a fox", "--seed", "3").out
    assert ended.err.startswith(f"enhancing with table (no Ollama answers at http://{no_ollama}")
    assert ended.err.count("\n") == 1


def test_an_address_comes_before_the_environment(imagine: Imagine, ollama: FakeOllama) -> None:
    with running() as elsewhere:
        assert imagine("enhance", "a fox", "-a", elsewhere.url).code == 0
        assert (len(elsewhere.requests), len(ollama.requests)) == (1, 0)


@pytest.mark.parametrize(
    "flags", [("-e", "ollama"), ("-m", "gemma:2b"), ("-a", "ADDRESS"), ("-e", "ollama", "-n")]
)
def test_who_asks_for_a_language_model_gets_no_table(
    imagine: Imagine, no_ollama: str, flags: tuple[str, ...]
) -> None:
    ended = imagine("enhance", "a fox", *(no_ollama if f == "ADDRESS" else f for f in flags))
    assert (ended.code, ended.out) == (1, "")
    last = ended.err.splitlines()[-1]
    assert last.startswith("Error: enhancer 'ollama': no Ollama answers")
    assert "ollama serve" in last


def test_a_model_that_is_not_pulled_is_one_clear_line(imagine: Imagine, ollama: FakeOllama) -> None:
    ended = imagine("enhance", "a fox", "-m", "gemma:2b")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.splitlines()[-1].endswith("'ollama pull gemma:2b'")


def test_a_stream_that_breaks_off_ends_its_line_and_fails(
    imagine: Imagine, ollama: FakeOllama
) -> None:
    ollama.cut_after = 6
    ended = imagine("enhance", "a fox", "-s")
    assert ended.code == 1
    assert ended.out.endswith("\n")
    assert BETTER.startswith(ended.out.strip())
    assert "broke off" in ended.err


DEFAULTS: dict[str, Any] = Ollama.__init__.__kwdefaults__ or {}
FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"says": ""}, "answered nothing"),
    ({"says": '{"prompt": "a fox'}, "broken JSON"),
    ({"says": "A fox sits in the snow."}, "prose instead of JSON"),
    ({"cut_after": 4}, "broke off"),
    ({"ends_after": 4}, "broke off"),
    ({"stops_after": 0}, "said nothing for 0.2 s"),
    ({"stops_after": 4}, "said nothing for 0.2 s"),
    ({"status": 500, "body": b'{"error": "out of memory"}'}, "out of memory"),
    ({"body": b"<html>"}, "does not speak as Ollama does"),
    ({"models": []}, "ollama pull"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_each_fault_of_ollama_is_one_clear_line_and_nothing_is_drawn(  # noqa: PLR0913 - fixtures
    imagine: Imagine,
    *,
    models: str,
    work: Path,
    fake: FakePlugin,
    ollama: FakeOllama,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.setattr(Ollama.__init__, "__kwdefaults__", {**DEFAULTS, "silence": 0.2})
    for name, value in fault.items():
        setattr(ollama, name, value)
    run = ("run", "a fox", "-e", "ollama", "-o", "out", "--models", models, *SMALL)
    for arguments in (("enhance", "a fox", "-e", "ollama"), run):
        ended = imagine(*arguments)
        assert (ended.code, ended.out) == (1, "")
        last = ended.err.splitlines()[-1]
        assert last.startswith("Error: enhancer 'ollama': ")
        assert words in last
    assert list(work.iterdir()) == []
    assert fake.loader.models == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "the prompt is empty"),
        ((" ",), "the prompt is empty"),
        (("a fox", "-e", "table", "-m", "gemma:2b"), "--model: means nothing to"),
        (("a fox", "-e", "table", "-a", "here"), "--address: means nothing to"),
        (("a fox", "--seed", "x"), "--seed"),
    ],
)
def test_wrong_use_is_exit_code_2(
    imagine: Imagine, no_ollama: str, arguments: tuple[str, ...], complaint: str
) -> None:
    ended = imagine("enhance", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err


def test_an_unknown_enhancer_is_named_with_the_nearest(imagine: Imagine) -> None:
    ended = imagine("enhance", "a fox", "-e", "tables")
    assert (ended.code, ended.out) == (1, "")
    assert "did you mean 'table'?" in ended.err


def test_the_list_shows_each_enhancer_and_what_is_wrong_with_it(
    imagine: Imagine, no_ollama: str
) -> None:
    header, ollama, table = imagine("enhance", "--list").out.splitlines()
    assert header.split() == ["NAME", "LABEL", "PLUGIN", "PROBLEM"]
    assert ollama.startswith("ollama")
    assert "no Ollama answers" in ollama
    assert table.split() == ["table", "Table", "of", "styles", "imagine-enhancer-table"]


def test_the_list_looks_at_the_address_that_is_given(imagine: Imagine, no_ollama: str) -> None:
    with running() as elsewhere:
        found = json.loads(imagine("enhance", "--list", "--json", "-a", elsewhere.url).out)
    assert [(each["name"], each["problem"]) for each in found] == [
        ("ollama", None),
        ("table", None),
    ]


def test_ctrl_c_hangs_up_on_the_model(work: Path, ollama: FakeOllama) -> None:
    ollama.stops_after = 6
    environment = {**os.environ, "OLLAMA_HOST": ollama.url}
    with subprocess.Popen(
        command("enhance", "a fox", "-s"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"a"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == b"Interrupted"
    assert ollama.abandoned.wait(30)


# ---------------------------------------------------------------------------- imagine run --enhance


def test_run_draws_the_better_prompt_and_notes_both(
    imagine: Imagine, models: str, work: Path, ollama: FakeOllama
) -> None:
    ended = imagine(
        "run", "a", "fox", "--enhance", "--meta", "-o", "out", "--models", models, *SMALL
    )
    assert (ended.code, ended.out) == (0, "out.png\n")
    assert ended.err.splitlines()[:2] == ["enhancing with ollama", f"prompt: {BETTER}"]
    for name in ("out.png", "out.json"):
        meta = read_meta(work / name)
        assert (meta["prompt"], meta["original_prompt"]) == (BETTER, "a fox")
        assert meta["neg"] == "ugly, deformed, blurry, low quality"
    assert json.loads(imagine("info", "out.png").out)["original_prompt"] == "a fox"


def test_run_seeds_the_enhancement_with_the_seed_of_the_picture(
    imagine: Imagine, models: str, work: Path, no_ollama: str
) -> None:
    for name in ("one", "two"):
        flags = ("-e", "table", "--seed", "5", "-o", name, "--models", models)
        assert imagine("run", "a fox", *flags, *SMALL).code == 0
    assert read_meta(work / "one.png")["prompt"] == read_meta(work / "two.png")["prompt"]
    better = imagine("enhance", "a fox", "--seed", "5").out.strip()
    assert read_meta(work / "one.png")["prompt"] == better


def test_run_draws_one_seed_for_the_prompt_and_the_picture(
    imagine: Imagine, models: str, work: Path, no_ollama: str
) -> None:
    assert imagine("run", "a fox", "-e", "table", "-o", "a", "--models", models, *SMALL).code == 0
    meta = read_meta(work / "a.png")
    better = imagine("enhance", "a fox", "--seed", meta["seed"]).out.strip()
    assert meta["prompt"] == better


def test_run_on_a_server_notes_both_prompts_too(
    imagine: Imagine, server: str, work: Path, no_ollama: str
) -> None:
    from programs import KEY

    flags = ("--enhance", "-a", server, "--api-key", KEY, "-o", "out", "--quiet")
    ended = imagine("run", "a fox", *flags, *SMALL)
    assert (ended.code, ended.err) == (0, "")
    meta = read_meta(work / "out.png")
    assert meta["original_prompt"] == "a fox"
    assert meta["prompt"].startswith("a fox, ")


def test_run_stops_before_drawing_when_the_enhancer_fails(
    imagine: Imagine, models: str, work: Path, no_ollama: str, fake: FakePlugin
) -> None:
    ended = imagine("run", "a fox", "-e", "ollama", "-o", "out", "--models", models, *SMALL)
    assert (ended.code, ended.out) == (1, "")
    assert "no Ollama answers" in ended.err.splitlines()[-1]
    assert list(work.iterdir()) == []
    assert fake.loader.models == []


def test_without_enhance_nothing_is_noted(
    imagine: Imagine, models: str, work: Path, ollama: FakeOllama
) -> None:
    assert imagine("run", "a fox", "-o", "out", "--models", models, *SMALL).code == 0
    assert "original_prompt" not in read_meta(work / "out.png")
    assert ollama.requests == []
