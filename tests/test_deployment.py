"""The files in packaging/ match the pages about them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from calls import app_of, live
from imagine_core.cli import build_cli, main
from imagine_core.engine import Engine
from imagine_core.plugins import build_plugins
from imagine_core.settings.file import VARIABLE
from imagine_core.settings.options import unknown_variables
from imagine_plugins.commands import service

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "packaging" / "Dockerfile").read_text("utf-8")
PAGE = (ROOT / "docs" / "deployment.md").read_text("utf-8")


def test_the_container_runs_as_nobody_in_particular_and_keeps_models_apart() -> None:
    lines = DOCKERFILE.splitlines()
    last_stage = lines[max(n for n, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert "USER 10001:10001" in last_stage
    assert "VOLUME /models" in last_stage
    assert "IMAGINE_MODELS=/models" in DOCKERFILE


def test_the_health_check_is_true(engine: Engine) -> None:
    found = re.search(r"HEALTHCHECK .*\\\n\s+CMD (\[.*\])\n", DOCKERFILE)
    assert found is not None
    _, *arguments = json.loads(found[1])
    command = [sys.executable, *arguments]
    with live(app_of(engine)) as url:
        port = str(urlsplit(url).port)
        well = subprocess.run(command, env={"IMAGINE_PORT": port}, check=False)
    gone = subprocess.run(
        command, env={"IMAGINE_PORT": port}, stderr=subprocess.DEVNULL, check=False
    )
    assert (well.returncode, gone.returncode) == (0, 1)


@pytest.mark.parametrize("text", [DOCKERFILE, PAGE, (ROOT / "docs" / "cli.md").read_text("utf-8")])
def test_every_variable_that_is_written_about_is_one(text: str) -> None:
    commands = {str(command.name): command for command in build_plugins().commands}
    named = dict.fromkeys(re.findall(r"\bIMAGINE_[A-Z_]*[A-Z]\b", text), "1")
    assert named
    assert unknown_variables(commands, named) == []


def test_the_unit_by_hand_has_options_that_serve_knows() -> None:
    found = re.search(r"^ExecStart=/usr/local/bin/imagine serve (.*)$", PAGE, re.MULTILINE)
    assert found is not None
    service.check_options(found[1].split())


def test_the_settings_in_the_documents_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    file = tmp_path / "config.toml"
    file.write_text(example)
    monkeypatch.setenv(VARIABLE, str(file))
    assert main(["config"], program=build_cli()) == 0
    shown = capsys.readouterr().out
    assert f"serve.port in {file}" in shown
    assert f"run.sampler in {file}" in shown
