"""What the tests of the engine share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gates import Gate
from imagine_core.engine import Engine
from imagine_core.settings import Settings
from imagine_core.testing import FakePlugin, build_test_engine


@pytest.fixture
def roomy(tmp_path: Path, fake: FakePlugin) -> Iterator[Engine]:
    """An engine whose forwards take sixteen rows, with nothing to measure first."""
    folder = tmp_path / "models"
    engine = build_test_engine(folder, fake, settings=Settings(models=folder, max_rows=16))
    yield engine
    engine.close(grace=0)


@pytest.fixture
def gate(fake: FakePlugin) -> Iterator[Gate]:
    """Before each step of the fake model."""
    fake.loader.before = gate = Gate()
    yield gate
    gate.open()
