"""`imagine convert`: a picture to JSON with its metadata, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from imagine_core import hookimpl
from imagine_core.errors import InvalidFile
from imagine_core.pictures.files import write_file
from imagine_core.pictures.metadata import document_bytes, read_picture
from imagine_plugins.commands.shared.output import is_stdout, write_stdout


@click.command(short_help="Convert a picture to JSON with its metadata, and back.")
@click.argument("file")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="File to write, or - for standard output. [default: beside FILE]",
)
@click.option(
    "-f",
    "--force",
    is_flag=True,
    allow_from_autoenv=False,
    help="Replace a file that is there already.",
)
def convert(file: str, output: str | None, *, force: bool) -> None:
    """Write the JSON of a picture, or the PNG of a JSON, with the same metadata and picture.

    FILE may be a PNG, a JSON, or a JPEG or WebP of another tool, whose picture becomes a PNG;
    its content tells which. The name of the new file is printed.
    """
    source = Path(file)
    picture = read_picture(source)
    if picture.source == "picture":
        suffix, data = ".json", document_bytes(picture.meta, picture.png)
    else:
        suffix, data = ".png", picture.png
    if is_stdout(output):
        write_stdout(data)
        return
    target = source.with_suffix(suffix) if output is None else Path(output)
    if target == source:
        raise InvalidFile(f"{source} would replace itself; -o names another file")
    try:
        write_file(target, data, replace=force)
    except FileExistsError:
        raise InvalidFile(f"{target} exists already; --force replaces it") from None
    click.echo(target)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine convert`."""
    register(convert)
