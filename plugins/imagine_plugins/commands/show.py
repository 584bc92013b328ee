"""`imagine show`: all facts about one model, or what changes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from imagine_core import hookimpl
from imagine_core.cli import one_line, plugins_of
from imagine_core.settings import Settings, default_models_folder
from imagine_plugins.commands.shared.options import (
    JSON_OPTION,
    SERVER_OPTIONS,
    kind_option,
    models_option,
)
from imagine_plugins.commands.shared.output import file_size, print_json
from imagine_plugins.commands.shared.source import ask, choose_by_flags

Model = dict[str, Any]

LABELS = {"triggers": "trigger words", "tags": "training tags", "left_out": "left out"} | {
    "short_hash": "short hash"
}


def show(  # noqa: PLR0913 - the options of the command
    *,
    name: str,
    kind: str | None,
    address: str | None,
    api_key: str | None,
    models: str | None,
    as_json: bool,
) -> None:
    """Show what an Imagine server or, where none runs, the local models folder knows of a model.

    Or of what changes one (a LoRA, an embedding, a VAE); where several have the name, the model is
    shown unless --kind says otherwise.
    """
    where = choose_by_flags(address=address, api_key=api_key, flags=["models"])
    if where.remote:
        found = ask(where.client().model(name, kind))
    else:
        found = _local(name, kind, default_models_folder() if models is None else Path(models))
    if as_json:
        print_json(found)
        return
    for label, text in _lines(found):
        click.echo(f"{label:<18}{one_line(text)}")


def _local(name: str, kind: str | None, folder: Path) -> Model:
    from imagine_core.models.hashing import file_hash

    plugins = plugins_of(click.get_current_context())
    info = plugins.catalogue(Settings(models=folder.expanduser())).find(name, kind)
    known = asdict(info)
    return {
        **{key: known[key] for key in known if key not in ("path", "loader")},
        "recommended_size": info.recommended_size if info.kind == "model" else None,
        "format": info.loader,
        "hash": file_hash(info.path),
    }


def _lines(model: Model) -> Iterator[tuple[str, str]]:
    """The facts about a model or what changes one, a label and a value each."""
    yield "name", str(model.get("name"))
    yield "family", str(model.get("family"))
    if model.get("problem"):
        yield "problem", str(model["problem"])
    if model.get("parameters"):
        yield "parameters", f"{model['parameters'] / 1e6:,.1f} million"
    for key in ("dtype", "format", "hash"):
        if model.get(key):
            yield key, str(model[key])
    if model.get("size"):
        yield "size", file_size(model["size"])
    if model.get("recommended_size") and not model.get("problem"):
        yield "recommended size", "x".join(map(str, model["recommended_size"]))
    if model.get("clip_layers"):
        yield "clip layers", str(model["clip_layers"])
    yield from _details(model)


def _details(model: Model) -> Iterator[tuple[str, str]]:
    """What a file that changes models is for and holds, and what any file says of itself."""
    if model.get("kind", "model") != "model":
        yield "kind", str(model["kind"])
        other = "none" if model.get("problem") else "sizes of their own"
        yield "for models of", ", ".join(map(str, model.get("fits") or [other]))
    details: Model = model.get("details") or {}
    for key, value in details.items():
        many = isinstance(value, list | tuple)
        yield LABELS.get(key, key), ", ".join(map(str, value)) if many else str(value)
    for key, text in sorted(dict(model.get("metadata") or {}).items()):
        yield key.replace("_", " "), str(text)


command = click.Command(
    "show",
    callback=show,
    help=show.__doc__,
    short_help="Show what is known of a model or what changes one.",
    params=[
        click.Argument(["name"]),
        kind_option(None, "any, a model first"),
        *SERVER_OPTIONS,
        models_option("Ask no server."),
        JSON_OPTION,
    ],
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine show`."""
    register(command)
