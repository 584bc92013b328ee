from __future__ import annotations

import cli_reference


def test_the_reference_shows_every_command() -> None:
    assert cli_reference.shown(cli_reference.PAGE.read_text("utf-8")) == set(cli_reference.helps())


def test_the_reference_says_what_help_says() -> None:
    page = cli_reference.PAGE.read_text("utf-8")
    assert cli_reference.renewed(page) == page, "run python tests/cli_reference.py"
