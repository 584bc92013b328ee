"""Fixtures for the commands: the program in this process, and a server in another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import fake_imagine
from imagine_core.cli import main
from imagine_core.testing import FakePlugin
from imagine_plugins.commands.shared import source
from programs import Ended, Imagine, serving


@pytest.fixture
def models(tmp_path: Path) -> str:
    """A models folder with one model."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "tiny.fake").touch()
    return str(folder)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def imagine(
    fake: FakePlugin,
    work: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Imagine:
    """Runs the program in this process, where no server listens and no key is set."""
    monkeypatch.setattr(source, "server_runs_here", lambda: False)
    monkeypatch.delenv("IMAGINE_API_KEY", raising=False)

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        code = main([str(each) for each in arguments], program=fake_imagine.program(fake))
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with one model; needs `KEY`."""
    with serving(tmp_path_factory.mktemp("served"), step=0.02) as (address, _):
        yield address
