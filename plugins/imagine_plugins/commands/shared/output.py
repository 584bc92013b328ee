"""Prints what commands report: tables, JSON, and notes on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from imagine_core.cli import one_line
from imagine_core.pictures.metadata import json_text


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print `rows` under `header` in columns; the last one has any width."""
    lines = [[one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def print_json(value: object) -> None:
    """Print `value` as JSON."""
    click.echo(json_text(value, encoding=sys.stdout.encoding or "ascii"))


def is_stdout(output: str | None) -> bool:
    """True if the `-o` of a command means standard output.

    Raises:
        click.UsageError: Standard output is a terminal, which cannot show a picture.
    """
    # /dev/stdout may lead to a regular file, which a rename over its name would replace.
    if output not in {"-", "/dev/stdout"}:
        return False
    if sys.stdout.isatty():
        raise click.UsageError(f"-o {output} writes the picture itself; send it to a file or pipe")
    return True


def write_stdout(data: bytes) -> None:
    """Write all bytes to standard output."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def note(text: str) -> None:
    """Print a note, not an error, to stderr."""
    click.echo(one_line(text), err=True)


def file_size(size: int) -> str:
    """A number of bytes for people, in the decimal units that file managers and shops use."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
