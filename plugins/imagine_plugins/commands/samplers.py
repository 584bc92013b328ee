"""`imagine samplers`: all samplers, with their schedules and their plugin."""

from __future__ import annotations

from collections.abc import Callable

import click

from imagine_core import hookimpl
from imagine_core.cli import plugins_of
from imagine_plugins.commands.shared.options import JSON_OPTION, SERVER_OPTIONS
from imagine_plugins.commands.shared.output import print_json, print_table
from imagine_plugins.commands.shared.source import ask_for_details, choose


def _samplers(*, address: str | None, api_key: str | None, as_json: bool) -> None:
    """List the samplers of an Imagine server or, where none runs, of this installation."""
    where = choose(address=address, api_key=api_key, here=False)
    if where.remote:
        found = ask_for_details(where, "samplers")
    else:
        found = plugins_of(click.get_current_context()).sampler_details()
    if as_json:
        print_json(found)
        return
    rows = [
        (
            sampler["name"],
            sampler.get("label") or "-",
            str(sampler.get("evaluations", "-")),
            _yes_or_no(sampler.get("stochastic")),
            sampler.get("plugin") or "-",
            ", ".join(sampler.get("schedules") or ()) or "-",
        )
        for sampler in found
    ]
    print_table(("NAME", "LABEL", "EVALUATIONS", "STOCHASTIC", "PLUGIN", "SCHEDULES"), rows)


def _yes_or_no(value: object) -> str:
    return "-" if value is None else "yes" if value else "no"


samplers = click.Command(
    "samplers",
    callback=_samplers,
    help=_samplers.__doc__,
    short_help="List the samplers.",
    params=[*SERVER_OPTIONS, JSON_OPTION],
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine samplers`."""
    register(samplers)
