"""Fixtures for the tests of pulling: faulty servers, a model and its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoints import TINY_SD1, write_checkpoint
from hub_server import FileServer, serving


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server of files."""
    with serving() as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[FileServer]:
    """Another one."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small checkpoint for our loaders."""
    path = tmp_path_factory.mktemp("made") / "tiny.safetensors"
    return write_checkpoint(path, TINY_SD1).read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The models folder, not yet made."""
    return tmp_path / "models"
