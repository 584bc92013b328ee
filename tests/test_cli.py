from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest

from imagine_core import hookimpl, version
from imagine_core.cli import OFFLINE, build_cli, main, one_line, plugins_of
from imagine_core.errors import (
    Busy,
    FieldError,
    ImagineError,
    InvalidFile,
    RequestError,
    SettingsError,
    UnknownName,
)
from imagine_core.plugins import GROUP, Plugins, build_plugins

Capture = pytest.CaptureFixture[str]


class Brings:
    """A plugin that registers `commands`."""

    def __init__(self, *commands: object) -> None:
        self.commands = commands

    @hookimpl
    def register_commands(self, register: Callable[[object], None]) -> None:
        for command in self.commands:
            register(command)


def imagine(*arguments: str, plugins: Plugins | None = None) -> int:
    return main(arguments, program=build_cli(lambda: plugins or build_plugins()))


def raising(error: BaseException) -> Plugins:
    @click.command("fail")
    def fail() -> None:
        raise error

    return build_plugins(found=[], extra=[("failing", Brings(fail))])


@click.command("hello", help="Greet.")
@click.pass_context
def hello(context: click.Context) -> None:
    names = [report.name for report in plugins_of(context).reports()]
    click.echo(f"hello from {', '.join(names)}")


# -------------------------------------------------------------------------------- composition


def test_help_lists_the_commands_of_every_plugin(capsys: Capture) -> None:
    assert imagine("--help") == 0
    shown = capsys.readouterr().out
    for name in ("convert", "info", "list", "plugins", "run", "samplers", "serve"):
        assert f"\n  {name} " in shown


def test_a_command_is_handed_the_plugins_of_its_program(capsys: Capture) -> None:
    plugins = build_plugins(found=[], extra=[("greeter", Brings(hello)), ("other", Brings())])
    assert imagine("hello", plugins=plugins) == 0
    assert capsys.readouterr().out == "hello from greeter, other\n"


def test_a_command_outside_the_program_is_told_so() -> None:
    with pytest.raises(RuntimeError, match="outside the `imagine` program"):
        plugins_of(click.Context(hello))


def test_a_broken_plugin_breaks_no_command_of_another(capsys: Capture) -> None:
    missing = EntryPoint("broken", "no_such_module", GROUP)
    plugins = build_plugins(
        found=[missing],
        extra=[("greeter", Brings(hello)), ("raising", Brings(5)), ("odd", Brings(Odd()))],
    )
    assert imagine("--help", plugins=plugins) == 0
    shown = capsys.readouterr().out
    assert "hello" in shown
    assert "odd" not in shown
    assert imagine("hello", plugins=plugins) == 0
    assert imagine("odd", plugins=plugins) == 2


class Odd:
    """Has a name, but is no command."""

    name = "odd"


def test_an_unknown_command_is_answered_with_the_nearest_and_with_what_failed(
    capsys: Capture,
) -> None:
    missing = EntryPoint("broken", "no_such_module", GROUP)
    plugins = build_plugins(found=[missing], extra=[("greeter", Brings(hello))])
    assert imagine("helo", plugins=plugins) == 2
    error = capsys.readouterr().err
    assert "unknown command 'helo'; did you mean 'hello'?" in error
    assert "'imagine plugins' says why" in error


def test_an_unknown_name_is_answered_with_what_failed(capsys: Capture) -> None:
    @click.command("draw")
    def draw() -> None:
        raise UnknownName("sampler", "mid", known=["euler"])

    missing = EntryPoint("broken", "no_such_module", GROUP)
    for found, said in (([], False), ([missing], True)):
        plugins = build_plugins(found=found, extra=[("drawer", Brings(draw))])
        assert imagine("draw", plugins=plugins) == 1
        error = capsys.readouterr().err
        assert ("'imagine plugins' says why" in error) is said
        assert error.endswith("Error: unknown sampler 'mid'; known: euler\n")


def test_no_plugin_is_loaded_to_show_the_version(capsys: Capture) -> None:
    def load() -> Plugins:
        raise AssertionError

    assert main(["--version"], program=build_cli(load)) == 0
    assert capsys.readouterr().out.startswith("imagine ")


def test_a_source_tree_that_nobody_installed_has_a_version_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(version, "DISTRIBUTION", "no-such-distribution")
    assert version.version() == "0+unknown"


def test_only_help_is_help(capsys: Capture) -> None:
    assert imagine("-h") == 2
    assert imagine("run", "-h", "512") == 2
    error = capsys.readouterr().err
    assert "No such option" in error
    assert "Missing argument 'PROMPT...'" in error


def test_no_library_of_the_process_goes_online(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    assert imagine("--version") == 0
    assert os.environ["HF_HUB_OFFLINE"] == "1"


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ImagineError("no such thing"), 1, "Error: no such thing"),
        (InvalidFile("a.png: it is\nbroken \x1b[31m"), 1, "Error: a.png: it is broken [31m"),
        (Busy("the queue is full"), 1, "Error: the queue is full"),
        (SettingsError("no device"), 2, "Error: no device"),
        (RequestError([FieldError("--steps", "too many")]), 2, "Error: --steps: too many"),
        (OSError(errno.ENOSPC, "No space left", "a.png"), 1, "Error: a.png: No space left"),
        (OSError("odd"), 1, "Error: odd"),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (ValueError("a bug"), 1, "Error: unexpected ValueError: a bug"),
        (BrokenPipeError(), 1, ""),
        (SystemExit(3), 3, ""),
        (SystemExit(), 0, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_is_one_line_and_an_exit_code(
    capsys: Capture, error: BaseException, code: int, line: str
) -> None:
    assert imagine("fail", plugins=raising(error)) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.strip() == line


def test_what_fails_in_the_wake_of_ctrl_c_is_ctrl_c(capsys: Capture) -> None:
    error = AttributeError("half made")
    error.__context__ = KeyboardInterrupt()
    assert imagine("fail", plugins=raising(error)) == 130
    assert capsys.readouterr().err.strip() == "Interrupted"


def test_the_trace_of_a_bug_is_there_for_who_asks(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGINE_DEBUG", "1")
    assert imagine("fail", plugins=raising(ValueError("a bug"))) == 1
    assert "Traceback" in capsys.readouterr().err


def test_wrong_usage_says_where_help_is(capsys: Capture) -> None:
    assert imagine("list", "--nonsense") == 2
    assert "Try 'imagine list --help'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "line"),
    [("a\tb\r\nc", "a b c"), ("\x1b[2Jcat", "[2Jcat"), ("\u202ecat\u200b", "cat"), ("кот", "кот")],
)
def test_text_of_strangers_cannot_steer_the_terminal(text: str, line: str) -> None:
    assert one_line(text) == line


def run(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imagine_core", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


def test_a_reader_that_has_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = run("plugins", stdout=writing)
    os.close(writing)
    assert ended.stderr == ""
    assert ended.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        ended = run("plugins", stdout=full.fileno())
    assert ended.stderr == "Error: No space left on device\n"
    assert ended.returncode == 1


# ----------------------------------------------------------------------------------- lightness

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "scipy", "numpy"}
IMPORTED = """
import json, sys
from imagine_core.cli import main
for arguments in json.loads(sys.argv[1]):
    assert main(arguments) == 0, arguments
print("modules:", *sorted(name for name in sys.modules if "." not in name))
"""


def modules_of(*runs: list[str]) -> set[str]:
    """The top-level modules that some runs of the program import."""
    command = [sys.executable, "-c", IMPORTED, json.dumps(runs)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(ended.stdout.rpartition("modules:")[2].split())


def test_help_imports_nothing_heavy() -> None:
    commands = ["run", "serve", "list", "samplers", "info", "convert", "plugins"]
    commands += ["pull", "rm", "show", "ps", "stop"]
    modules = modules_of(["--help"], *([command, "--help"] for command in commands))
    assert not modules & (HEAVY | {"httpx", "PIL", "uvicorn", "starlette", "asyncio"})


def test_lists_info_and_convert_import_nothing_heavy(tmp_path: Path) -> None:
    from PIL import Image

    from imagine_core.pictures.metadata import png_bytes

    folder = str(tmp_path)
    (tmp_path / "lora.safetensors").touch()
    path = str(tmp_path / "cat.png")
    Path(path).write_bytes(png_bytes(Image.new("RGB", (8, 8)), {"prompt": "cat"}))
    modules = modules_of(
        ["list", "--models", folder],
        ["show", "lora", "--models", folder],
        ["rm", "lora", "--yes", "--models", folder],
        ["plugins"],
        ["info", path],
        ["convert", path],
    )
    assert not modules & (HEAVY | {"httpx", "PIL", "uvicorn", "starlette", "asyncio"})
