"""Options that several commands share."""

from __future__ import annotations

import math

import click

from imagine_core.cli import offline_option


class Finite(click.ParamType[float]):
    """A number that is neither infinite nor none at all."""

    name = "float"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number in `value`."""
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{str(value)!r} is no finite number", param, ctx)
        return number


class Key(click.ParamType[str]):
    """An API key: something that fits into a header."""

    name = "text"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """The key, without the line break that files end in."""
        key = str(value).strip()
        if not key or not key.isprintable():
            self.fail("a key must not be empty, nor hold a line break", param, ctx)
        return key


OFFLINE_OPTION = offline_option()

SERVER_OPTIONS = [
    click.Option(
        ["-a", "--address"],
        metavar="HOST:PORT",
        help="Server to ask. [default: 127.0.0.1:5000 if one runs there, else this process]",
    ),
    click.Option(
        ["--api-key"],
        type=Key(),
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
