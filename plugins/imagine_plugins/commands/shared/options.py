"""Options that several commands share."""

from __future__ import annotations

import click
from click.core import ParameterSource

from imagine_core.cli import offline_option
from imagine_core.models.folders import KINDS
from imagine_core.settings.options import shared
from imagine_plugins.commands.shared.values import Key

OFFLINE_OPTION = offline_option()

SERVER_OPTIONS = [
    shared(
        click.Option(
            ["-a", "--address"],
            metavar="HOST:PORT",
            help="Server to ask.",
            show_default="127.0.0.1:5000 if one runs there, else this process",
        )
    ),
    shared(
        click.Option(["--api-key"], type=Key(), metavar="KEY", help="Key of the server."),
    ),
    OFFLINE_OPTION,
]


def models_option(help_text: str = "", *, short: bool = True) -> click.Option:
    """The option that names the folder of the models."""
    return shared(
        click.Option(
            ["-m", "--models"] if short else ["--models"],
            metavar="FOLDER",
            help=f"{help_text} Folder of the models.".strip(),
            show_default="~/.imagine/models",
        )
    )


LOCAL_OPTIONS = [
    models_option("Use no server.", short=False),
    shared(
        click.Option(
            ["--device"],
            metavar="NAME",
            help="Use no server, and compute on this.",
            show_default="auto",
        )
    ),
    shared(
        click.Option(
            ["--full_prec", "--full-prec"],
            is_flag=True,
            help="Use no server, and float32 throughout.",
        )
    ),
]


def kind_option(default: str | None, show_default: str) -> click.Option:
    """The option that says of which kind a file is."""
    return click.Option(
        ["--kind"],
        type=click.Choice(list(KINDS)),
        default=default,
        allow_from_autoenv=False,
        help="Its kind." if default is None else "Which kind.",
        show_default=show_default,
    )


JSON_OPTION = click.Option(
    ["--json", "as_json"], is_flag=True, allow_from_autoenv=False, help="Print JSON."
)


def on_command_line(*names: str) -> bool:
    """True if one of the options `names` was given on the command line, not by the settings."""
    context = click.get_current_context()
    sources = [context.get_parameter_source(name) for name in names]
    return ParameterSource.COMMANDLINE in sources
