"""`imagine rm`: delete models, and what changes them, from the models folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagine_core import hookimpl
from imagine_core.cli import one_line, plugins_of
from imagine_core.errors import SettingsError
from imagine_core.models.catalogue import Catalogue
from imagine_core.models.folders import folder_of
from imagine_core.models.stamps import sidecar_of
from imagine_core.settings import Settings, default_models_folder
from imagine_plugins.commands.shared.options import kind_option, models_option
from imagine_plugins.commands.shared.output import file_size, note

if TYPE_CHECKING:
    from imagine_core.interfaces import ModelInfo


def remove(*, names: tuple[str, ...], kind: str | None, yes: bool, models: str | None) -> None:
    """Delete models, with the JSON files beside them. A running server keeps what it has loaded.

    Or what changes them (LoRAs, embeddings, VAEs); where several have a name, the model is deleted
    unless --kind says otherwise.
    """
    folder = default_models_folder() if models is None else Path(models).expanduser()
    plugins = plugins_of(click.get_current_context())
    catalogue = plugins.catalogue(Settings(models=folder))
    found = {info.path: info for info in (catalogue.find(name, kind) for name in names)}.values()
    for info in found:
        if folder_of(folder, info.kind) not in info.path.parents:
            raise SettingsError(f"{info.name!r} came with a plugin and cannot be removed")
    for info in found:
        what = f"{info.name} ({info.family}, {file_size(info.size)})"
        if yes or click.confirm(f"Delete {one_line(what)} from {info.path.parent}?", err=True):
            delete(info, catalogue)
            note(f"deleted {what}")
        else:
            note(f"kept {info.name}")


def delete(info: ModelInfo, catalogue: Catalogue) -> None:
    """Delete the file or folder of a model; of a link, the link alone.

    Its sidecar goes as well, unless it is another's too: a pickle and its conversion share one.
    """
    path = info.path
    beside = sidecar_of(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    shared = any(sidecar_of(other.path) == beside for other in catalogue.models(info.kind))
    if beside.is_file() and not shared:
        beside.unlink()


command = click.Command(
    "rm",
    callback=remove,
    help=remove.__doc__,
    short_help="Delete models or what changes them.",
    params=[
        click.Argument(["names"], nargs=-1, required=True),
        kind_option(None, "any, a model first"),
        click.Option(["-y", "--yes"], is_flag=True, allow_from_autoenv=False, help="Do not ask."),
        models_option(),
    ],
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine rm`."""
    register(command)
