"""`imagine upscalers`: all upscalers, and what is wrong with some."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from imagine_core import hookimpl
from imagine_core.cli import plugins_of
from imagine_core.listing import upscaler_details
from imagine_core.settings import Settings, default_models_folder
from imagine_plugins.commands.shared.options import JSON_OPTION, SERVER_OPTIONS, models_option
from imagine_plugins.commands.shared.output import note, print_json, print_table
from imagine_plugins.commands.shared.source import ask_for_details, choose_by_flags


def _upscalers(
    *, address: str | None, api_key: str | None, models: str | None, as_json: bool
) -> None:
    """List the upscalers of an Imagine server or, where none runs, of this installation.

    Files among them lie in the folder upscale_models inside the models folder.
    """
    where = choose_by_flags(address=address, api_key=api_key, flags=["models"])
    if where.remote:
        found = ask_for_details(where, "upscalers")
    else:
        plugins = plugins_of(click.get_current_context())
        folder = default_models_folder() if models is None else Path(models).expanduser()
        catalogue = plugins.catalogue(Settings(models=folder))
        if (problem := catalogue.problem("upscaler")) is not None:
            note(f"Warning: {problem}")
        found = upscaler_details(plugins, catalogue)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            upscaler["name"],
            _factor(upscaler),
            upscaler.get("architecture") or "-",
            upscaler.get("plugin") or "-",
            upscaler.get("problem") or "",
        )
        for upscaler in found
    ]
    print_table(("NAME", "FACTOR", "ARCHITECTURE", "PLUGIN", "PROBLEM"), rows)


def _factor(upscaler: dict[str, object]) -> str:
    """The factor of one application; those that need no file have any."""
    if upscaler.get("factor") is None:
        return "any" if upscaler.get("problem") is None else "-"
    return f"{upscaler['factor']}x"


upscalers = click.Command(
    "upscalers",
    callback=_upscalers,
    help=_upscalers.__doc__,
    short_help="List the upscalers.",
    params=[*SERVER_OPTIONS, models_option("Ask no server."), JSON_OPTION],
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine upscalers`."""
    register(upscalers)
