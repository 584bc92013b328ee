"""`imagine info`: print what a picture was made from."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from imagine_core import hookimpl
from imagine_core.pictures.metadata import read_meta
from imagine_plugins.commands.shared.output import print_json


@click.command(short_help="Print what a picture was made from.")
@click.argument("file")
def info(file: str) -> None:
    """Print the metadata of a picture as JSON.

    FILE is a PNG, or a JSON file that 'imagine run --meta' wrote. On a terminal, an input picture
    among the metadata is shortened.
    """
    meta = read_meta(Path(file))
    print_json(_shortened(meta) if sys.stdout.isatty() else meta)


def _shortened(meta: dict[str, Any]) -> dict[str, Any]:
    image = meta.get("img")
    if not isinstance(image, str):
        return meta
    return meta | {"img": f"({len(image):,} characters of base64)"}


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine info`."""
    register(info)
