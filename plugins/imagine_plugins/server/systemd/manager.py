"""Asks systemd, through systemctl."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

from imagine_core.errors import ImagineError
from imagine_plugins.server.systemd.unit import MARK, NAME, Unit

SHOWN = ("LoadState", "ActiveState", "SubState", "StatusText", "MainPID", "UnitFileState")


class Manager:
    """The service manager of one user, or of the system.

    Args:
        scope: One of them.

    Raises:
        ImagineError: This machine has no systemctl.
    """

    def __init__(self, scope: Literal["user", "system"]) -> None:
        program = shutil.which("systemctl")
        if program is None:
            raise ImagineError(
                "systemctl was not found, so this machine does not run systemd; "
                "'imagine service install --print' prints the unit"
            )
        self._program, self._scope = program, scope

    def check(self) -> None:
        """Check that the manager runs.

        Raises:
            ImagineError: It does not, as in most containers.
        """
        self._call("show", "--property=Version")

    def install(self, unit: Unit, *, replace: bool = False) -> Path:
        """Write, enable and start the unit; returns its file.

        Raises:
            ImagineError: systemd's error; or another's unit has the name.
        """
        path = unit_file(self._scope)
        if not replace:
            self._check_ours(path)
        self.check()
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(unit.text(), "utf-8")
        new.replace(path)
        self._call("daemon-reload")
        self._call("enable", NAME)
        self._call("restart", NAME)
        return path

    def uninstall(self, *, foreign: bool = False) -> Path:
        """Stop the service and remove its unit, whose file is returned.

        Raises:
            ImagineError: There is none, or it is not ours.
        """
        path = unit_file(self._scope)
        if not path.exists():
            raise ImagineError(f"no service is installed: there is no {path}")
        if not foreign:
            self._check_ours(path)
        self._call("disable", "--now", NAME)
        path.unlink()
        self._call("daemon-reload")
        return path

    def status(self) -> dict[str, str]:
        """The properties of the service, under the names that systemd gives them."""
        said = self._call("show", NAME, f"--property={','.join(SHOWN)}")
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)

    def _check_ours(self, path: Path) -> None:
        if path.exists() and MARK not in path.read_text("utf-8", "replace"):
            raise ImagineError(
                f"{path} was written by somebody else; --force takes it all the same"
            )

    def _call(self, *arguments: str) -> str:
        import subprocess  # here, because `imagine --help` loads this module

        scope = ("--user",) if self._scope == "user" else ()
        done = subprocess.run(  # noqa: S603 - systemctl, with arguments of ours alone
            [self._program, *scope, "--no-pager", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            words = " ".join(("systemctl", *scope, *arguments))
            said = done.stderr.strip() or f"it ended with code {done.returncode}"
            raise ImagineError(f"'{words}' failed: {said}{_hint(said)}")
        return done.stdout


def _hint(said: str) -> str:
    absent = "not been booted with systemd" in said or "connect to bus" in said
    return " (there is no systemd here to ask, as in most containers)" if absent else ""


def unit_file(scope: Literal["user", "system"]) -> Path:
    """The path of the installed unit."""
    if scope == "system":
        return Path("/etc/systemd/system") / NAME
    return _user_settings() / "systemd" / "user" / NAME


def environment_file(scope: Literal["user", "system"]) -> Path:
    """The file from which the unit reads variables: %E/imagine/environment in systemd's words."""
    folder = Path("/etc") if scope == "system" else _user_settings()
    return folder / "imagine" / "environment"


def _user_settings() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
