"""`imagine service`: run `imagine serve` permanently, with systemd."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import click
from click.core import ParameterSource

from imagine_core import hookimpl
from imagine_core.cli import FAILED
from imagine_core.errors import ImagineError, SettingsError
from imagine_plugins.commands import serve
from imagine_plugins.commands.shared.output import note
from imagine_plugins.server.systemd.manager import Manager, environment_file, unit_file
from imagine_plugins.server.systemd.unit import NAME, Unit

Scope = Literal["user", "system"]

SYSTEM = click.Option(
    ["--system", "scope"],
    flag_value="system",
    type=click.Choice(["user", "system"]),
    default="user",
    allow_from_autoenv=False,
    help="The system's service, which runs with nobody logged in; needs root.",
)
FORCE = click.Option(
    ["--force"],
    is_flag=True,
    allow_from_autoenv=False,
    help="Even if somebody else wrote the unit.",
)


def _install(
    *, options: tuple[str, ...], scope: Scope, run_as: str | None, force: bool, show: bool
) -> None:
    """Start 'imagine serve' now and whenever you log in, or with --system at every boot.

    OPTIONS are those of serve, after two dashes: imagine service install -- -p 6000
    """
    if run_as is not None and scope == "user":
        raise click.UsageError("--run-as is for --system: a user's service runs as that user")
    check_options(options, scope)
    unit = Unit(
        command=[*program(), "serve", *options],
        scope=scope,
        account=(run_as or invoker()) if scope == "system" else None,
    )
    if scope == "system" and unit.account is None:
        _check_reachable(Path(unit.command[0]))
    if show:
        click.echo(unit.text(), nl=False)
        return
    path = _manager(scope, "install").install(unit, replace=force)
    note(f"installed {path}; the service runs")
    if scope == "user":
        note("it ends when you log out, unless you allow it to stay: loginctl enable-linger")


def _uninstall(*, scope: Scope, force: bool) -> None:
    """Stop the service, and remove it."""
    path = _manager(scope, "uninstall").uninstall(foreign=force)
    note(f"removed {path}")


def _status(*, scope: Scope) -> int:
    """Show whether the service runs; fails if it does not."""
    known = Manager(scope).status()
    if known.get("LoadState") == "not-found":
        raise ImagineError(f"no service is installed: there is no {unit_file(scope)}")
    pid = known.get("MainPID", "0")
    lines = {
        "service": NAME,
        "unit": str(unit_file(scope)),
        "state": f"{known.get('ActiveState', 'unknown')} ({known.get('SubState', 'unknown')})",
        "at start": known.get("UnitFileState") or "unknown",
        "process": "-" if pid == "0" else pid,
        "says": known.get("StatusText") or "-",
    }
    for label, text in lines.items():
        click.echo(f"{label:<10}{text}")
    return 0 if known.get("ActiveState") == "active" else FAILED


def check_options(options: Sequence[str], scope: Scope = "user") -> None:
    """Refuse options that `imagine serve` would refuse, or that a unit should not hold.

    Raises:
        UsageError: One is not known, or has a value that cannot be.
        SettingsError: One would not do in a service.
    """
    with serve.command.make_context("imagine serve", list(options)) as context:
        given = {
            name: value
            for name, value in context.params.items()
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        }
    if "api_key" in given:
        raise SettingsError(
            "every user of this machine can read the options of a service: write "
            f"IMAGINE_API_KEY=... into {environment_file(scope)} instead, see docs/deployment.md"
        )
    models = given.get("models")
    if models is not None and not models.expanduser().is_absolute():
        raise SettingsError(
            f"a service has a working folder of its own: say --models {models.absolute()}"
        )


def program() -> list[str]:
    """The command that starts this program again: its file, or Python and the module."""
    single = os.environ.get("IMAGINE_EXECUTABLE")  # the launcher's file, not the copy it unpacked
    started = single or shutil.which(sys.argv[0])
    if started is not None and Path(started).name.startswith("imagine"):
        return [os.path.abspath(started)]  # noqa: PTH100 - a link may outlive its target
    return [sys.executable, "-m", "imagine_core"]


def invoker() -> str | None:
    """The account that called sudo to install the system's service."""
    name = os.environ.get("SUDO_USER")
    return None if name == "root" else name or None


def _check_reachable(path: Path) -> None:
    """Refuse a program in a home that the service's own account cannot enter."""
    for folder in path.parents:
        if not folder.stat().st_mode & stat.S_IXOTH:
            raise SettingsError(
                f"the service's own account could not enter {folder}, where this program is; "
                "--run-as NAME takes an account that can"
            )


def _manager(scope: Scope, verb: str) -> Manager:
    manager = Manager(scope)
    if scope == "system" and os.geteuid() != 0:
        raise ImagineError(f"--system needs root: sudo imagine service {verb} --system")
    return manager


class _Install(click.Command):
    """Explains that options of serve go behind two dashes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments as every command does."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            flag = error.option_name
            if any(flag in (*each.opts, *each.secondary_opts) for each in serve.command.params):
                message = f"{flag} is an option of serve: {ctx.command_path} -- {flag} ..."
                raise click.UsageError(message, ctx) from None
            raise


def _command(name: str, callback: Callable[..., object], *params: click.Parameter) -> click.Command:
    kind = _Install if callback is _install else click.Command
    return kind(name, callback=callback, help=callback.__doc__, params=[*params, SYSTEM])


service = click.Group(
    "service",
    help="Leave the server running, as a service of systemd.",
    short_help="Leave the server running, with systemd.",
    commands=[
        _command(
            "install",
            _install,
            click.Argument(["options"], nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS]"),
            click.Option(
                ["--run-as"],
                metavar="NAME",
                allow_from_autoenv=False,
                help="Account of the system's service. "
                "[default: who calls sudo, else one of its own]",
            ),
            click.Option(
                ["--print", "show"],
                is_flag=True,
                allow_from_autoenv=False,
                help="Print the unit, and install nothing.",
            ),
            FORCE,
        ),
        _command("uninstall", _uninstall, FORCE),
        _command("status", _status),
    ],
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine service`."""
    register(service)
