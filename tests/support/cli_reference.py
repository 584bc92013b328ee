"""Writes the `--help` texts into docs/cli.md: `python tests/support/cli_reference.py`."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

import click

from imagine_core.cli import Program, build_cli
from imagine_core.plugins import GROUP, build_plugins
from imagine_core.version import DISTRIBUTION

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
HELP = re.compile(r"(?ms)(<!-- (imagine[ \w]*) --help -->\n```text\n).*?(?=^```$)")
WIDTH = 88


def program() -> Program:
    """The program with our own plugins only."""
    points = entry_points(group=GROUP)
    ours = [point for point in points if point.dist and point.dist.name == DISTRIBUTION]
    return build_cli(lambda: build_plugins(found=ours))


def helps() -> dict[str, str]:
    """The `--help` texts by command line."""
    group = program()
    root = click.Context(group, info_name="imagine", max_content_width=WIDTH, terminal_width=WIDTH)
    texts = {"imagine": group.get_help(root)}
    for name in group.list_commands(root):
        command = group.get_command(root, name)
        assert command is not None
        context = command.context_class(
            command, parent=root, info_name=name, **command.context_settings
        )
        texts[f"imagine {name}"] = command.get_help(context)
    return texts


def renewed(page: str) -> str:
    """`page` with current help texts."""
    texts = helps()
    return HELP.sub(lambda match: f"{match[1]}{texts[match[2]]}\n", page)


def shown(page: str) -> set[str]:
    """The command lines with help in `page`."""
    return {match[2] for match in HELP.finditer(page)}


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text("utf-8")), "utf-8")
