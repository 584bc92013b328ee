"""Options that several commands share."""

from __future__ import annotations

import click

from imagine_core.cli import offline_option

OFFLINE_OPTION = offline_option()

SERVER_OPTIONS = [
    click.Option(
        ["-a", "--address"],
        metavar="HOST:PORT",
        help="Server to ask. [default: 127.0.0.1:5000 if one runs there, else this process]",
    ),
    click.Option(
        ["--api-key"],
        metavar="KEY",
        envvar="IMAGINE_API_KEY",
        show_envvar=True,
        help="Key of the server.",
    ),
    OFFLINE_OPTION,
]

MODELS_HELP = "Folder of the models. [default: ~/.imagine/models]"

LOCAL_OPTIONS = [
    click.Option(["--models"], metavar="FOLDER", help=f"Use no server. {MODELS_HELP}"),
    click.Option(
        ["--device"], metavar="NAME", help="Use no server, and compute on this. [default: auto]"
    ),
    click.Option(
        ["--full_prec", "--full-prec"], is_flag=True, help="Use no server, and float32 throughout."
    ),
]

JSON_OPTION = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON.")
