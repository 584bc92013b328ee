"""Fixtures for the tests of pulling: servers with faults, a model, and whoever watches."""

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
    """A small checkpoint that our loaders take."""
    path = tmp_path_factory.mktemp("made") / "tiny.safetensors"
    return write_checkpoint(path, TINY_SD1).read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where models go; not there yet."""
    return tmp_path / "models"
