"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagine_core.engine import Engine
from imagine_core.testing import FakePlugin, build_test_engine


@pytest.fixture
def fake() -> FakePlugin:
    """The plugin behind `engine`: its loader, and through it every model that was loaded."""
    return FakePlugin()


@pytest.fixture
def engine(tmp_path: Path, fake: FakePlugin) -> Iterator[Engine]:
    """An engine with one fake model, closed after the test."""
    engine = build_test_engine(tmp_path / "models", fake)
    yield engine
    engine.close(grace=0)
