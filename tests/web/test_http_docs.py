"""docs/http.md is true: its examples run with the shown answers, and it is complete."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from calls import app_of, live
from imagine_core.engine import Engine
from imagine_core.service import Service
from imagine_core.settings import ServerSettings
from imagine_core.testing import build_test_engine
from imagine_core.web.app import STATUS
from imagine_plugins.dialects.native.routes import native_routes

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
EXAMPLE = re.compile(r"^```bash\n(.*?)^```\n(?:\n```json\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
EXAMPLES = [match.groups() for match in EXAMPLE.finditer(PAGE)]
BASH = shutil.which("bash") or "bash"
MISSING = [tool for tool in ("bash", "curl", "jq", "base64") if shutil.which(tool) is None]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with the model that the page speaks of."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "dreamshaper_8.fake").write_bytes(b"fake")
    engine = build_test_engine(folder)
    yield engine
    engine.close(grace=0)


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[str]:
    """Its address."""
    with live(app_of(engine), on_stop=partial(engine.close, grace=0)) as url:
        yield url


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples are typed; later ones use the files of earlier ones."""
    return tmp_path_factory.mktemp("examples")


@pytest.mark.skipif(bool(MISSING), reason=f"this machine has no {', '.join(MISSING)}")
@pytest.mark.parametrize(("command", "shown"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_does_what_the_page_says(
    command: str, shown: str | None, server: str, folder: Path
) -> None:
    run = subprocess.run(
        [BASH, "-euo", "pipefail", "-c", command.replace("http://localhost:5000", server)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    if shown is not None:
        looks_like(json.loads(run.stdout), json.loads(shown))
    for line in run.stdout.splitlines():
        assert ("error" in json.loads(line)) == ("error" in (shown or ""))


def looks_like(answer: Any, shown: Any) -> None:
    """Whether an answer has the keys and the types that the page shows."""
    if isinstance(shown, dict):
        assert set(shown) <= set(answer), set(shown) - set(answer)
        if "pixels" not in shown:  # the limits are shown once in full
            assert set(answer) == set(shown)
        for key in shown:
            looks_like(answer[key], shown[key])
    elif isinstance(shown, list) and shown:
        looks_like(answer[0], shown[0])
    elif shown is not None and answer is not None:
        assert type(answer) is type(shown)


def test_there_are_examples_and_they_made_pictures(folder: Path) -> None:
    assert len(EXAMPLES) >= 12
    if not MISSING and any(folder.iterdir()):
        assert (folder / "lighthouse.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / "night.png").read_bytes().startswith(b"\x89PNG")


def test_every_route_has_an_example(engine: Engine) -> None:
    service = Service(engine=engine, plugins=engine.plugins, settings=ServerSettings())
    commands = "".join(command for command, _ in EXAMPLES)
    for route in native_routes(service):
        path = getattr(route, "path", "").partition("{")[0]
        assert f"localhost:5000{path}" in commands


def test_every_error_is_in_the_table_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.+?) \|", PAGE, re.MULTILINE)
    table = {name: int(status) for status, names in rows for name in re.findall(r"`(\w+)`", names)}
    for error, status in STATUS.items():
        assert table.get(error.type) == status, error.type
