"""`imagine list`: all models or what changes them, and what is wrong with some."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagine_core import hookimpl
from imagine_core.cli import plugins_of
from imagine_core.settings import Settings, default_models_folder
from imagine_plugins.commands.shared.options import (
    JSON_OPTION,
    SERVER_OPTIONS,
    kind_option,
    models_option,
)
from imagine_plugins.commands.shared.output import file_size, note, print_json, print_table
from imagine_plugins.commands.shared.source import ask_for_details, choose_by_flags

if TYPE_CHECKING:
    from imagine_core.plugins import Plugins

Model = dict[str, Any]


def _list(
    *, kind: str, address: str | None, api_key: str | None, models: str | None, as_json: bool
) -> None:
    """List the models of an Imagine server or, where none runs, of the local models folder.

    Or what changes models (LoRAs, embeddings, VAEs), with --kind.
    """
    where = choose_by_flags(address=address, api_key=api_key, flags=["models"])
    if where.remote:
        found = ask_for_details(where, "models", kind=kind)
    else:
        folder = default_models_folder() if models is None else Path(models).expanduser()
        found = _local(folder, kind, plugins_of(click.get_current_context()))
    if as_json:
        print_json(found)
    else:
        rows = [
            (
                model["name"],
                model.get("family") or "-",
                file_size(model["size"]) if "size" in model else "-",
                model.get("problem") or "",
            )
            for model in found
        ]
        print_table(("NAME", "FAMILY", "SIZE", "PROBLEM"), rows)


def _local(folder: Path, kind: str, plugins: Plugins) -> list[Model]:
    catalogue = plugins.catalogue(Settings(models=folder))
    if (problem := catalogue.problem(kind)) is not None:
        note(f"Warning: {problem}")
    return [
        {"name": info.name, "family": info.family, "size": info.size, "problem": info.problem}
        for info in catalogue.models(kind)
    ]


list_models = click.Command(
    "list",
    callback=_list,
    help=_list.__doc__,
    short_help="List the models.",
    params=[
        kind_option("model", "model"),
        *SERVER_OPTIONS,
        models_option("Ask no server."),
        JSON_OPTION,
    ],
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine list`."""
    register(list_models)
