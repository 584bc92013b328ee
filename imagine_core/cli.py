"""The `imagine` program: the commands of plugins, and the one place that reports errors."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TextIO

import click

from imagine_core import interrupts, network
from imagine_core.errors import ImagineError, RequestError, SettingsError, UnknownName
from imagine_core.plugins import Plugins, plugins_from_environment
from imagine_core.settings.file import configure, explained
from imagine_core.settings.options import PREFIX, shared, unknown_variables

if TYPE_CHECKING:
    from click import Command, Context

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "offline_option",
    "one_line",
    "plugins_of",
]

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DIFFUSERS_NO_ADVISORY_WARNINGS": "1",
}
"""Variables that libraries read on import: Imagine never goes online by itself."""

FAILED, USAGE, INTERRUPTED = 1, 2, interrupts.INTERRUPTED
INCOMPLETE = "Not every plugin could be loaded; 'imagine plugins' says why."
_USAGE_ERRORS = (click.UsageError, RequestError, SettingsError)


class Program(click.Group):
    """A group of the commands that plugins registered; it loads plugins on first use.

    Args:
        load: Builds the plugin manager.
    """

    def __init__(self, load: Callable[[], Plugins]) -> None:
        super().__init__(
            name="imagine",
            help="Make pictures with Stable Diffusion, here or on an Imagine server.",
            context_settings={"auto_envvar_prefix": PREFIX},
            params=[
                click.Option(
                    ["--version"],
                    is_flag=True,
                    is_eager=True,
                    expose_value=False,
                    allow_from_autoenv=False,
                    callback=_print_version,
                    help="Show the version and exit.",
                ),
                offline_option(),
            ],
        )
        self._load = load

    @cached_property
    def plugins(self) -> Plugins:
        """The plugins of this run."""
        return self._load()

    def list_commands(self, ctx: Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of all commands."""
        return sorted(str(command.name) for command in self.plugins.commands)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:  # noqa: ARG002
        """The command called `cmd_name`."""
        return self._get(cmd_name)

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, Command | None, list[str]]:
        """Find the command; if it is unknown and a plugin failed to load, say so."""
        name = args[0]
        if name.startswith("-") or self._get(name) is not None:
            interrupts.raise_again()  # from here on there may be something to clean up
            return super().resolve_command(ctx, args)
        message = str(UnknownName("command", name, known=self.list_commands(ctx)))
        if not self._all_plugins_loaded():
            message += f"\n{INCOMPLETE}"
        raise click.UsageError(message, ctx)

    def invoke(self, ctx: Context) -> object:
        """Run a command, with the plugins and the settings in its context."""
        ctx.obj = self.plugins
        found = {str(command.name): command for command in self.plugins.commands}
        for unknown in unknown_variables(found):
            _say(f"warning: {unknown}")
        try:
            configure(ctx, found, complete=self._all_plugins_loaded)
            return super().invoke(ctx)
        except click.BadParameter as error:
            raise explained(error) from None
        except UnknownName:
            if not self._all_plugins_loaded():
                _say(INCOMPLETE)
            raise

    def _all_plugins_loaded(self) -> bool:
        return not any(report.problem for report in self.plugins.reports())

    def _get(self, name: str) -> Command | None:
        return next((each for each in self.plugins.commands if each.name == name), None)


def offline_option() -> click.Option:
    """The flag `--offline`, for every command that could go online."""
    option = click.Option(
        ["--offline"],
        is_flag=True,
        expose_value=False,
        show_default=False,
        callback=_stay_offline,
        help="Connect to nothing but this machine.",
    )
    return shared(option)


def plugins_of(context: Context) -> Plugins:
    """The plugins of the program that a command runs in."""
    plugins = context.find_object(Plugins)
    if plugins is None:
        raise RuntimeError("this command runs outside the `imagine` program")
    return plugins


def build_cli(load: Callable[[], Plugins] = plugins_from_environment) -> Program:
    """The `imagine` program over the plugins that `load` builds."""
    return Program(load)


def main(arguments: Sequence[str] | None = None, *, program: Program | None = None) -> int:
    """Run the program and return its exit code.

    0 is done, 1 failed, 2 used wrongly, 130 interrupted.
    """
    os.environ.update(OFFLINE)
    if network.offline():
        network.guard()
    _allow_any_file_name(sys.stdout)
    try:
        status = (program or build_cli()).main(
            arguments, prog_name="imagine", standalone_mode=False
        )
        sys.stdout.flush()
    except BaseException as error:
        return _report(error)
    return status if isinstance(status, int) else 0


def one_line(text: str) -> str:
    """`text` in one line, with spaces for all that could move the cursor or colour the terminal.

    Names, prompts and messages come from untrusted files and servers.
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _report(error: BaseException) -> int:
    """Print `error` to stderr, and return the exit code."""
    match error:
        case SystemExit(code=int() | None as code):
            return code or 0
        case KeyboardInterrupt() | click.Abort():
            interrupts.hush()
            _say("Interrupted")
            return INTERRUPTED
        case BrokenPipeError():  # the reader of stdout has closed it
            _mute(sys.stdout)
            return FAILED
        case click.ClickException():
            error.show()
        case ImagineError():
            _say(f"Error: {error.message}")
        case OSError():
            _mute(sys.stdout)
            _say(f"Error: {_os_error(error)}")
        case _ if isinstance(error.__context__, KeyboardInterrupt):
            # Closing what Ctrl-C left half made raises too: an event loop, for example.
            return _report(error.__context__)
        case _:
            _trace(error)
            _say(f"Error: unexpected {type(error).__name__}: {error}")
    return USAGE if isinstance(error, _USAGE_ERRORS) else FAILED


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        click.echo(one_line(line), err=True)


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{error.filename}: {reason}"


def _trace(error: BaseException) -> None:
    """Print the traceback of a bug if IMAGINE_DEBUG is set."""
    if os.environ.get("IMAGINE_DEBUG"):
        import traceback

        traceback.print_exception(error)


def _mute(stream: TextIO) -> None:
    """Flush `stream`, or else redirect it, so that Python does not fail on it at exit."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _allow_any_file_name(stream: TextIO) -> None:
    """Let `stream` write file names that are not Unicode, since scripts read them there."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="surrogateescape")


def _stay_offline(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value:
        network.forbid()


def _print_version(context: Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value:
        from imagine_core.version import version

        click.echo(f"imagine {version()}")
        context.exit()
