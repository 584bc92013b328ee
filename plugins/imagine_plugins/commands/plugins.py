"""`imagine plugins`: the plugins, what each registers, and why one failed to load."""

from __future__ import annotations

from collections.abc import Callable

import click

from imagine_core import hookimpl
from imagine_core.cli import plugins_of
from imagine_plugins.commands.shared.options import JSON_OPTION
from imagine_plugins.commands.shared.output import print_json, print_table


def _plugins(*, as_json: bool) -> None:
    """Show the plugins: what each brings, and why one could not be loaded."""
    reports = plugins_of(click.get_current_context()).reports()
    if as_json:
        fields = ("name", "distribution", "version", "hooks", "problem")
        print_json([{name: getattr(report, name) for name in fields} for report in reports])
        return
    rows = [
        (
            report.name,
            report.distribution or "-",
            report.version or "-",
            ", ".join(hook.removeprefix("register_") for hook in report.hooks) or "-",
            report.problem or "",
        )
        for report in reports
    ]
    print_table(("NAME", "DISTRIBUTION", "VERSION", "BRINGS", "PROBLEM"), rows)


plugins = click.Command(
    "plugins",
    callback=_plugins,
    help=_plugins.__doc__,
    short_help="Show the plugins, and what is wrong with them.",
    params=[JSON_OPTION],
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine plugins`."""
    register(plugins)
