"""`imagine stop`: unload a model of a server."""

from __future__ import annotations

from collections.abc import Callable

import click

from imagine_core import hookimpl
from imagine_plugins.commands.shared.options import SERVER_OPTIONS
from imagine_plugins.commands.shared.output import note
from imagine_plugins.commands.shared.source import ask, server_of

SAID = {
    "unloaded": "was unloaded",
    "when idle": "will be unloaded when the pictures in progress are done",
    "not loaded": "was not loaded",
}


def stop(*, name: str, address: str | None, api_key: str | None) -> None:
    """Unload a model of an Imagine server, at once or when the pictures in progress are done."""
    answer = ask(server_of(address=address, api_key=api_key).client().stop(name))
    status = str(answer.get("status"))
    note(f"{name} {SAID.get(status, status)}")


command = click.Command(
    "stop",
    callback=stop,
    help=stop.__doc__,
    short_help="Unload a model.",
    params=[click.Argument(["name"]), *SERVER_OPTIONS],
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine stop`."""
    register(command)
