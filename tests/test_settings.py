"""The settings file and the variables, through the program that reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest

from imagine_core import hookimpl, network
from imagine_core.cli import build_cli, main
from imagine_core.errors import SettingsError
from imagine_core.plugins import GROUP, build_plugins
from imagine_core.settings.file import (
    VARIABLE,
    config_file,
    configuration_of,
    read_configuration,
)
from imagine_core.settings.options import OURS, shared

Capture = pytest.CaptureFixture[str]


class Several(click.ParamType[str]):
    """Some words with commas between them."""

    name = "words"
    several = True


class Stranger:
    """A plugin with a command, and a group with another in it."""

    def __init__(self) -> None:
        self.given: dict[str, object] = {}
        keep = self.given.update
        options = [
            shared(click.Option(["-w", "--power-watts"], type=click.IntRange(1, 100), default=7)),
            click.Option(["--full_prec", "--full-prec"], is_flag=True),
            click.Option(["--each"], multiple=True),
            click.Option(["--names"], type=Several(), default=""),
            click.Option(["--speed"], type=float),
            click.Option(["--yes"], is_flag=True, allow_from_autoenv=False),
            shared(click.Option(["--wall-key"], default="")),
        ]
        inner = click.Command(
            "paint",
            callback=lambda **given: keep(given),
            params=[click.Option(["--coats"], type=int, default=1), options[0]],
        )
        self.commands = [
            click.Command("draw-on", callback=lambda **given: keep(given), params=[*options]),
            click.Group("wall", commands=[inner]),
        ]

    @hookimpl
    def register_commands(self, register: Callable[[click.Command], None]) -> None:
        for command in self.commands:
            register(command)


class Runs:
    """Runs the stranger's commands with a settings file."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = file
        self.broken: list[EntryPoint] = []
        monkeypatch.setenv(VARIABLE, str(file))

    def __call__(self, text: str, *arguments: str) -> dict[str, object]:
        """What the command was given."""
        code, stranger = self.run(text, *arguments)
        assert code == 0
        return stranger.given

    def fail(self, text: str, *arguments: str) -> None:
        code, stranger = self.run(text, *arguments)
        assert (code, stranger.given) == (2, {})

    def run(self, text: str, *arguments: str) -> tuple[int, Stranger]:
        self.file.write_text(text, "utf-8")
        stranger = Stranger()
        plugins = build_plugins(found=self.broken, extra=[("stranger", stranger)])
        return main(arguments, program=build_cli(lambda: plugins)), stranger


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(tmp_path / "some.toml", monkeypatch)


# ---------------------------------------------------------------------------------- precedence


def test_a_flag_wins_over_a_variable_that_over_the_file_and_that_over_the_default(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = "power-watts = 20"
    assert runs("", "draw-on")["power_watts"] == 7
    assert runs(file, "draw-on")["power_watts"] == 20
    monkeypatch.setenv("IMAGINE_POWER_WATTS", "30")
    assert runs(file, "draw-on")["power_watts"] == 30
    assert runs(file, "draw-on", "-w", "40")["power_watts"] == 40


def test_the_table_of_a_command_wins_over_the_top_for_that_command_alone(runs: Runs) -> None:
    file = "power-watts = 20\n[draw-on]\npower-watts = 21"
    assert runs(file, "draw-on")["power_watts"] == 21
    assert runs(file, "wall", "paint")["power_watts"] == 20


def test_a_command_in_a_group_has_a_table_in_a_table(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = "[wall.paint]\ncoats = 3"
    assert runs(file, "wall", "paint")["coats"] == 3
    monkeypatch.setenv("IMAGINE_WALL_PAINT_COATS", "4")
    assert runs(file, "wall", "paint")["coats"] == 4


def test_an_option_that_is_not_shared_has_a_variable_with_its_commands_name(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGINE_DRAW_ON_SPEED", "2.5")
    assert runs("", "draw-on")["speed"] == 2.5


def test_an_empty_variable_says_nothing(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGINE_POWER_WATTS", "")
    assert runs("power-watts = 20", "draw-on")["power_watts"] == 20


# -------------------------------------------------------------------------------------- values


def test_keys_may_be_written_with_either_line(runs: Runs) -> None:
    for key in ("power_watts", "power-watts"):
        assert runs(f"{key} = 5", "draw-on")["power_watts"] == 5
    for key in ("full_prec", "full-prec"):
        assert runs(f"[draw_on]\n{key} = true", "draw-on")["full_prec"] is True


def test_a_key_in_both_spellings_is_refused(runs: Runs, capsys: Capture) -> None:
    runs.fail("power_watts = 5\npower-watts = 6", "draw-on")
    assert f"Error: {runs.file}: 'power-watts' is there twice" in capsys.readouterr().err


def test_values_of_every_kind_are_read_as_the_flag_would_read_them(runs: Runs) -> None:
    text = '[draw-on]\neach = ["a", "b"]\nnames = ["c", "d"]\nspeed = 1\nfull_prec = false'
    given = runs(text, "draw-on")
    assert (given["each"], given["names"], given["speed"]) == (("a", "b"), "c,d", 1.0)
    assert given["full_prec"] is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("power-watts = true", "'true' is not a valid integer range"),
        ("power-watts = 5.5", "'5.5' is not a valid integer range"),
        ("power-watts = 500", "500 is not in the range 1<=x<=100"),
    ],
)
def test_a_bad_value_names_its_flag_its_key_its_file_and_what_is_allowed(
    runs: Runs, capsys: Capture, text: str, said: str
) -> None:
    runs.fail(text, "draw-on")
    line = capsys.readouterr().err.splitlines()[-1]
    flags = "'-w' / '--power-watts'"
    assert line == f"Error: Invalid value for {flags}: {said} (from power-watts in {runs.file})"


def test_a_bad_value_names_its_variable(
    runs: Runs, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGINE_DRAW_ON_SPEED", "fast")
    runs.fail("", "draw-on")
    said = capsys.readouterr().err
    assert "Invalid value for '--speed': 'fast' is not a valid float" in said
    assert "(from IMAGINE_DRAW_ON_SPEED)" in said


def test_a_bad_value_on_the_command_line_blames_nobody_else(runs: Runs, capsys: Capture) -> None:
    runs.fail("power-watts = 20", "draw-on", "-w", "x")
    said = capsys.readouterr().err
    assert "(from" not in said
    assert "env var" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("power-watts = [1]", "'power-watts' must be a text, a number, true or false"),
        ("power-watts = 1979-05-27", "'power-watts' must be a text, a number, true or false"),
        (
            "[draw-on]\neach = [{a = 1}]",
            "'draw-on.each' must be a text, a number, true or false, or",
        ),
        (
            "[draw-on]\nnames = [[1]]",
            "'draw-on.names' must be a text, a number, true or false, or a",
        ),
        ('wall-key = "a\\u0000b"', "'wall-key' must not hold a null character"),
    ],
)
def test_a_value_that_no_flag_could_have_is_refused(
    runs: Runs, capsys: Capture, text: str, said: str
) -> None:
    runs.fail(text, "draw-on")
    assert f"{runs.file}: {said}" in capsys.readouterr().err


def test_a_secret_of_the_file_is_not_in_the_help(runs: Runs, capsys: Capture) -> None:
    runs.file.write_text('wall-key = "hush"\npower-watts = 20')
    command = next(each for each in Stranger().commands if each.name == "draw-on")
    command.context_settings["show_default"] = True
    plugins = build_plugins(found=[], extra=[("one", Registers(command))])
    assert main(["draw-on", "--help"], program=build_cli(lambda: plugins)) == 0
    shown = capsys.readouterr().out
    assert "default: 20" in shown
    assert "hush" not in shown


class Registers:
    def __init__(self, command: click.Command) -> None:
        self.command = command

    @hookimpl
    def register_commands(self, register: Callable[[click.Command], None]) -> None:
        register(self.command)


# -------------------------------------------------------------------------------- unknown names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("power-wats = 5", "unknown key 'power_wats'; did you mean 'power-watts'"),
        ("[draw-on]\nsped = 5", "unknown key 'draw_on.sped'; did you mean 'draw-on.speed'"),
        ("speed = 5", "'speed' cannot be set for all commands; did you mean 'draw-on.speed'"),
        ("[draw-on]\nyes = true", "unknown key 'draw_on.yes'"),
        ("[wal]\nx = 1", "unknown key 'wal.x'"),
        ("draw-on = 1", "unknown key 'draw_on'"),
    ],
)
def test_an_unknown_key_names_itself_its_file_and_the_nearest(
    runs: Runs, capsys: Capture, text: str, said: str
) -> None:
    runs.fail(text, "draw-on")
    assert capsys.readouterr().err.startswith(f"Error: {runs.file}: {said}")


def test_the_table_of_a_plugin_that_failed_breaks_nobody_else(runs: Runs, capsys: Capture) -> None:
    runs.broken = [EntryPoint("broken", "no_such_module", GROUP)]
    assert runs("[its-command]\nx = 1", "draw-on")["power_watts"] == 7
    runs.fail("power-wats = 5", "draw-on")
    runs.fail("[draw-on]\nsped = 5", "draw-on")


def test_an_unknown_variable_is_one_line_with_the_nearest(
    runs: Runs, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGINE_POWER_WATS", "secret value")
    assert runs("", "draw-on")["power_watts"] == 7
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: unknown variable 'IMAGINE_POWER_WATS'; did you mean ")
    assert "'IMAGINE_POWER_WATTS'" in line
    assert "secret value" not in line


def test_every_variable_that_something_reads_is_known(
    runs: Runs, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*OURS - {VARIABLE}, "IMAGINE_WALL_PAINT_COATS"):
        monkeypatch.setenv(name, "1")
    runs("", "draw-on")
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------ the file


def test_a_file_that_is_no_toml_says_where(runs: Runs, capsys: Capture) -> None:
    runs.fail("power-watts = 5\n\noops\n", "draw-on")
    said = capsys.readouterr().err
    assert said.startswith(f"Error: {runs.file}: ")
    assert "line 3" in said


def test_the_program_itself_can_be_asked_for_help_whatever_the_file_says(
    runs: Runs, capsys: Capture
) -> None:
    for arguments in (["--help"], ["--version"]):
        assert runs.run("oops", *arguments)[0] == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", ["missing", "folder", "binary"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "config.toml"
    if kind == "folder":
        file.mkdir()
    elif kind == "binary":
        file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=str(file)):
        read_configuration({VARIABLE: str(file)})


@pytest.mark.parametrize(
    ("encoding", "problem"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-16", "it is UTF-16 text; save it as UTF-8"),
        ("utf-16-be", "it is UTF-16 text; save it as UTF-8"),
        ("cp1252", "it is no UTF-8 text; save it as UTF-8"),
    ],
)
def test_a_file_is_read_as_editors_on_windows_save_it_or_refused_in_words(
    tmp_path: Path, encoding: str, problem: str | None
) -> None:
    file = tmp_path / "some.toml"
    file.write_bytes('models = "D:/Bäume"\r\n'.encode(encoding))
    environ = {VARIABLE: str(file)}
    if problem is None:
        assert read_configuration(environ).table == {"models": "D:/Bäume"}
        return
    with pytest.raises(SettingsError) as caught:
        read_configuration(environ)
    assert caught.value.message == f"{file} cannot be read: {problem}"


def test_ascii_in_utf_16_without_a_mark_is_told_apart_too(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_bytes("port = 8000\n".encode("utf-16-le"))
    with pytest.raises(SettingsError, match="UTF-16"):
        read_configuration({VARIABLE: str(file)})


def test_there_need_be_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_file({}).is_relative_to(tmp_path)
    assert config_file({}).name == "config.toml"
    assert read_configuration({}).table == {}


def test_a_command_outside_the_program_is_told_so() -> None:
    with pytest.raises(RuntimeError, match="outside the `imagine` program"):
        configuration_of(click.Context(click.Command("alone")))


def test_the_file_is_only_parsed_where_there_is_one(tmp_path: Path) -> None:
    script = (
        "import sys; from imagine_core.cli import main; main(['info', '--help']);"
        "print('tomllib' in sys.modules)"
    )
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    del environment[VARIABLE]
    for expected in ("False", "True"):
        command = [sys.executable, "-c", script]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert ended.stdout.splitlines()[-1] == expected
        environment[VARIABLE] = os.devnull


# ------------------------------------------------------------------- the program's own options


@pytest.mark.parametrize(
    ("text", "variable", "forbidden"),
    [
        ("offline = true", "", True),
        ("offline = false", "", False),
        ("offline = true", "0", False),
        ("offline = false", "1", True),
    ],
)
def test_offline_may_stand_in_the_file(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, *, text: str, variable: str, forbidden: bool
) -> None:
    monkeypatch.setenv(network.VARIABLE, variable)
    runs(text, "draw-on")
    assert network.offline() is forbidden


def test_a_bad_value_for_the_program_itself_names_the_file(
    runs: Runs, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(network.VARIABLE, "")
    runs.fail('offline = "maybe"', "draw-on")
    said = capsys.readouterr().err
    assert "Invalid value for '--offline': 'maybe' is not a valid boolean" in said
    assert f"(from offline in {runs.file})" in said
