"""Loading and unloading models leaks no memory."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints import SD1, TINY_SD1, Layout, write_checkpoint
from imagine_core import GenerationRequest
from imagine_core.engine import Engine, build_engine
from imagine_core.plugins import build_plugins
from imagine_core.settings import Settings
from imagine_core.testing import draw_one

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="not Linux")

SWITCHES, WARM_UP = 20, 4
REQUEST = GenerationRequest(
    prompt="a red house", width=64, height=64, steps=1, guidance_scale=1, seed=1, sampler="euler"
)


def resident() -> int:
    """Bytes of this process's memory that are there."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def switching(folder: Path, layout: Layout, *, dtype: str) -> Engine:
    """An engine that has room for one of two models."""
    for name in ("a", "b"):
        write_checkpoint(folder / f"{name}.safetensors", layout, dtype=dtype)
    settings = Settings(models=folder, device="cpu", full_precision=True, keep_alive=-1)
    engine = build_engine(settings, build_plugins())
    device = engine.plugins.devices.get("cpu")

    def free_memory() -> int:
        loaded = engine.status().loaded
        return 10**12 if not loaded else 0

    device.free_memory = free_memory  # type: ignore[method-assign]
    return engine


def growth(engine: Engine) -> tuple[int, int]:
    """Memory after a few switches, and after many."""
    sizes = []
    for number in range(SWITCHES):
        name = "ab"[number % 2]
        draw_one(engine, replace(REQUEST, model=name))
        assert [row.name for row in engine.status().loaded] == [name]
        sizes.append(resident())
    return sizes[WARM_UP - 1], sizes[-1]


def test_switching_between_two_models_twenty_times_returns_their_memory(tmp_path: Path) -> None:
    engine = switching(tmp_path, TINY_SD1, dtype="F32")
    before, after = growth(engine)
    engine.close()
    assert after < 1.05 * before


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_switching_between_models_of_full_size_returns_their_memory(tmp_path: Path) -> None:
    engine = switching(tmp_path, SD1, dtype="F16")
    before, after = growth(engine)
    engine.close()
    assert after < 1.05 * before
