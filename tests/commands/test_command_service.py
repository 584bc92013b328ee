"""`imagine service`: the unit, and the calls to systemctl."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from imagine_core.errors import SettingsError
from imagine_plugins.commands import serve, service
from imagine_plugins.server.systemd import manager
from imagine_plugins.server.systemd.unit import Unit, quoted
from programs import Imagine

ROOT = Path(__file__).parents[2]
PROGRAM = "/usr/local/bin/imagine"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="systemd runs on Linux alone")


class Systemctl:
    """A systemctl that notes what it is asked, and answers as it was told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "answer").touch()
        (folder / "fail").touch()
        program = folder / "systemctl"
        program.write_text(
            f"#!/bin/sh\ncd {shlex.quote(str(folder))}\n"
            'echo "$@" >> calls\n'
            'while read -r word; do case " $* " in *" $word "*) '
            'echo "it has no mind to $word" >&2; exit 1;; esac; done < fail\n'
            "cat answer\n"
        )
        program.chmod(0o755)

    def answer(self, text: str) -> None:
        (self.folder / "answer").write_text(text)

    def fail(self, word: str) -> None:
        """Let it fail where `word` is among its arguments."""
        (self.folder / "fail").write_text(f"{word}\n")

    @property
    def calls(self) -> list[str]:
        """What it was asked, without what is the same every time."""
        path = self.folder / "calls"
        said = path.read_text().splitlines() if path.exists() else []
        return [line.replace("--no-pager ", "") for line in said]


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemctl:
    """The only systemctl on the path."""
    fake = Systemctl(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{fake.folder}:{os.environ['PATH']}")
    monkeypatch.setenv("IMAGINE_EXECUTABLE", PROGRAM)
    monkeypatch.delenv("SUDO_USER", raising=False)
    return fake


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the user's unit."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "systemd" / "user" / "imagine.service"


# ---------------------------------------------------------------------------------- the commands


def test_install_writes_the_unit_and_has_it_run_now_and_later(
    imagine: Imagine, systemctl: Systemctl, unit: Path
) -> None:
    ended = imagine("service", "install", "--", "-p", "6000", "--full_prec")
    assert ended.code == 0, ended.err
    assert f"ExecStart={PROGRAM} serve -p 6000 --full_prec\n" in unit.read_text()
    assert systemctl.calls == [
        "--user show --property=Version",
        "--user daemon-reload",
        "--user enable imagine.service",
        "--user restart imagine.service",
    ]
    assert f"installed {unit}" in ended.err
    assert "loginctl enable-linger" in ended.err
    assert list(unit.parent.iterdir()) == [unit]


def test_install_again_replaces_what_it_wrote(
    imagine: Imagine, systemctl: Systemctl, unit: Path
) -> None:
    imagine("service", "install", "--", "-p", "6000")
    assert imagine("service", "install", "--", "-p", "7000").code == 0
    assert "-p 7000" in unit.read_text()


def test_a_unit_of_somebody_else_is_only_touched_by_force(
    imagine: Imagine, systemctl: Systemctl, unit: Path
) -> None:
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/usr/bin/other\n")
    for verb in ("install", "uninstall"):
        ended = imagine("service", verb)
        assert ended.code == 1
        assert ended.err == (
            f"Error: {unit} was written by somebody else; --force takes it all the same\n"
        )
    assert systemctl.calls == []
    assert imagine("service", "install", "--force").code == 0
    assert PROGRAM in unit.read_text()


def test_uninstall_stops_it_and_leaves_nothing(
    imagine: Imagine, systemctl: Systemctl, unit: Path
) -> None:
    imagine("service", "install")
    before = len(systemctl.calls)
    assert imagine("service", "uninstall").code == 0
    assert systemctl.calls[before:] == [
        "--user disable --now imagine.service",
        "--user daemon-reload",
    ]
    assert not unit.exists()
    ended = imagine("service", "uninstall")
    assert (ended.code, ended.err) == (1, f"Error: no service is installed: there is no {unit}\n")


def test_status_says_what_systemd_and_the_server_say(
    imagine: Imagine, systemctl: Systemctl, unit: Path
) -> None:
    systemctl.answer(
        "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n"
        "StatusText=listening on http://0.0.0.0:5000, device cpu\nMainPID=42\n"
    )
    ended = imagine("service", "status")
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "service   imagine.service",
        f"unit      {unit}",
        "state     active (running)",
        "at start  enabled",
        "process   42",
        "says      listening on http://0.0.0.0:5000, device cpu",
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("LoadState=loaded\nActiveState=failed\nSubState=failed\nMainPID=0\n", "failed (failed)"),
        ("LoadState=not-found\nActiveState=inactive\n", "no service is installed"),
    ],
)
def test_status_fails_where_it_does_not_run(
    imagine: Imagine, systemctl: Systemctl, unit: Path, answer: str, said: str
) -> None:
    systemctl.answer(answer)
    ended = imagine("service", "status")
    assert ended.code == 1
    assert said in ended.out + ended.err


def test_what_systemd_says_of_a_start_that_failed_is_said(
    imagine: Imagine, systemctl: Systemctl, unit: Path
) -> None:
    systemctl.fail("restart")
    ended = imagine("service", "install")
    assert ended.code == 1
    assert ended.err == (
        "Error: 'systemctl --user restart imagine.service' failed: it has no mind to restart\n"
    )


def test_nothing_is_written_where_systemd_does_not_run(
    imagine: Imagine, systemctl: Systemctl, unit: Path
) -> None:
    systemctl.fail("show")
    assert imagine("service", "install").code == 1
    assert not unit.exists()


@pytest.mark.parametrize("verb", ["install", "uninstall", "status"])
def test_a_machine_without_systemctl_is_told_so(
    imagine: Imagine, unit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = imagine("service", verb)
    assert ended.code == 1
    assert ended.err.startswith("Error: systemctl was not found")
    assert not unit.exists()


def test_the_unit_can_be_printed_where_there_is_no_systemd(
    imagine: Imagine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("IMAGINE_EXECUTABLE", PROGRAM)
    ended = imagine("service", "install", "--print", "--", "-p", "6000")
    assert ended.code == 0
    assert ended.out == Unit(command=[PROGRAM, "serve", "-p", "6000"]).text()


# -------------------------------------------------------------------------------------- --system


def test_the_systems_service_needs_root(
    imagine: Imagine, systemctl: Systemctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ended = imagine("service", "install", "--system", "--run-as", "anna")
    assert ended.code == 1
    assert ended.err == "Error: --system needs root: sudo imagine service install --system\n"
    assert systemctl.calls == []


def test_the_systems_service_runs_as_who_calls_sudo_or_as_it_is_told(
    imagine: Imagine, systemctl: Systemctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "etc" / "imagine.service"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(manager, "unit_file", lambda scope: file)
    monkeypatch.setenv("SUDO_USER", "berta")
    assert imagine("service", "install", "--system").code == 0
    assert "\nUser=berta\n" in file.read_text()
    assert systemctl.calls[-1] == "restart imagine.service"
    assert imagine("service", "install", "--system", "--run-as", "anna").code == 0
    assert "\nUser=anna\n" in file.read_text()


def test_an_account_of_its_own_must_be_able_to_enter_where_the_program_is(
    imagine: Imagine, systemctl: Systemctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("IMAGINE_EXECUTABLE", str(home / "imagine"))
    ended = imagine("service", "install", "--system", "--print")
    assert ended.code == 2
    assert f"could not enter {home}" in ended.err
    monkeypatch.setenv("IMAGINE_EXECUTABLE", PROGRAM)
    assert "DynamicUser=yes" in imagine("service", "install", "--system", "--print").out


# --------------------------------------------------------------------------------- the options


def test_options_that_serve_would_refuse_are_refused(
    imagine: Imagine, systemctl: Systemctl, unit: Path
) -> None:
    for options in (["-p", "x"], ["--nonsense"], ["extra"]):
        ended = imagine("service", "install", "--", *options)
        assert ended.code == 2, options
    assert not unit.exists()


@pytest.mark.parametrize("scope", ["user", "system"])
def test_a_key_among_the_options_is_refused_with_the_file_to_put_it_into(
    imagine: Imagine, systemctl: Systemctl, unit: Path, tmp_path: Path, scope: str
) -> None:
    flags = ["--system"] if scope == "system" else []
    ended = imagine("service", "install", *flags, "--", "--api-key", "secret")
    settings = Path("/etc") if scope == "system" else tmp_path / "config"
    assert ended.code == 2
    assert f"write IMAGINE_API_KEY=... into {settings}/imagine/environment instead" in ended.err
    assert "secret" not in ended.err
    assert not unit.exists()


@pytest.mark.parametrize("option", ["-p", "--api-key"])
def test_an_option_of_serve_without_the_dashes_is_told_of_them(
    imagine: Imagine, systemctl: Systemctl, unit: Path, option: str
) -> None:
    ended = imagine("service", "install", option, "6000")
    assert ended.code == 2
    assert f"{option} is an option of serve: imagine service install -- {option}" in ended.err
    assert "did you mean" in imagine("service", "install", "--sytem").err.lower()
    assert not unit.exists()


def test_the_file_of_variables_is_the_one_that_the_unit_names(unit: Path) -> None:
    folders = {"user": Path(os.environ["XDG_CONFIG_HOME"]), "system": Path("/etc")}
    for each in UNITS.values():
        (line,) = re.findall(r"^EnvironmentFile=-(.*)$", each.text(), re.MULTILINE)
        named = line.replace("%E", str(folders[each.scope]))  # as systemd.unit(5) has it
        assert manager.environment_file(each.scope) == Path(named)


def test_only_the_systems_service_runs_as_somebody_else(imagine: Imagine) -> None:
    ended = imagine("service", "install", "--print", "--run-as", "anna")
    assert ended.code == 2
    assert "--run-as is for --system" in ended.err


@pytest.mark.parametrize("name", ["anna\nExecStartPre=/bin/evil", "an na", "%u", ""])
def test_what_is_no_name_of_an_account_gets_into_no_unit(name: str) -> None:
    with pytest.raises(SettingsError, match="is not the name of an account"):
        Unit(command=[PROGRAM, "serve"], scope="system", account=name).text()


def test_a_models_folder_must_be_given_in_full() -> None:
    service.check_options(["--models", "/srv/models"])
    service.check_options(["--models", "~/models"])
    with pytest.raises(SettingsError, match=re.escape(f"--models {Path.cwd() / 'models'}")):
        service.check_options(["--models", "models"])


def test_the_program_is_the_file_that_was_started_or_python_and_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMAGINE_EXECUTABLE", raising=False)
    started = tmp_path / "imagine"
    started.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(started)])
    assert service.program() == [str(started)]
    monkeypatch.setattr(sys, "argv", ["/somewhere/__main__.py"])
    assert service.program() == [sys.executable, "-m", "imagine_core"]


# ------------------------------------------------------------------------------------ the unit


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("6000", "6000"),
        ("/a b", '"/a b"'),
        ("100%", "100%%"),
        ("$HOME", "$$HOME"),
        ('say "x"', '"say \\"x\\""'),
        ("a\\b", '"a\\\\b"'),
        ("", '""'),
        (";", '";"'),
        ("дом", "дом"),
    ],
)
def test_a_word_stays_one_argument_whatever_is_in_it(word: str, line: str) -> None:
    assert quoted(word) == line


def test_a_line_break_cannot_add_lines_to_the_unit() -> None:
    with pytest.raises(SettingsError):
        quoted("a\nExecStartPre=/bin/evil")


UNITS = {
    "imagine.service": Unit(command=[PROGRAM, "serve"], scope="system"),
    "user/imagine.service": Unit(command=[PROGRAM, "serve"]),
}


@pytest.mark.parametrize("name", UNITS)
def test_the_units_in_packaging_are_what_install_writes(name: str) -> None:
    assert (ROOT / "packaging" / "systemd" / name).read_text("utf-8") == UNITS[name].text()


README = """\
[Unit]
Description=Imagine: Stable Diffusion Image Generation Server
After=network.target syslog.target

[Service]
User=root
ExecStart={program} serve -d cuda --full_prec --models /home/your_username/.imagine/models
Restart=on-failure
RestartSec=5s
StandardOutput=journal
StandardError=journal
Type=simple

[Install]
WantedBy=multi-user.target
"""


def test_the_options_of_a_unit_written_by_hand_are_those_of_serve() -> None:
    line = next(line for line in README.splitlines() if line.startswith("ExecStart="))
    words = line.split()[2:]
    service.check_options(words)
    with serve.command.make_context("serve", words) as context:
        assert context.params["full_precision"]


@pytest.mark.parametrize("kind", ["user", "system", "dynamic", "by hand"])
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, kind: str) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze: apt install systemd")
    command = [sys.executable, "serve", "--models", "/a b", "-p", "6000", "--hosts", "100%"]
    text = {
        "user": Unit(command=command).text(),
        "system": Unit(command=command, scope="system", account="root").text(),
        "dynamic": Unit(command=command, scope="system").text(),
        "by hand": README.format(program=sys.executable),
    }[kind]
    path = tmp_path / "imagine.service"
    path.write_text(text)
    done = subprocess.run(
        [analyze, "verify", *(["--user"] if kind == "user" else []), str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    ours = [line for line in done.stderr.splitlines() if "imagine.service" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


def test_the_unit_leaves_the_devices_alone() -> None:
    """What takes a GPU away; ProtectClock= does by the list of devices that it brings."""
    for unit in UNITS.values():
        directives = {line.partition("=")[0] for line in unit.text().splitlines()}
        assert directives.isdisjoint(
            {"PrivateDevices", "ProtectClock", "DevicePolicy", "DeviceAllow"}
        )
        assert {"NoNewPrivileges", "ProtectSystem", "PrivateTmp"} <= directives


def test_every_command_of_the_group_has_help(imagine: Imagine) -> None:
    assert isinstance(service.service, click.Group)
    for name in service.service.commands:
        ended = imagine("service", name, "--help")
        assert ended.code == 0
        assert "--system" in ended.out
