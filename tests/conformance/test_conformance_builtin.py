"""The built-in loaders pass the suite; samplers, devices and enhancers do beside their tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoints import TINY_SD1, TINY_SDXL, write_checkpoint, write_folder
from imagine_core.models import hashing
from imagine_core.plugins import build_plugins
from imagine_core.testing import check_loader
from imagine_plugins.loaders import plugin


@pytest.fixture(autouse=True)
def _own_hash_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "cache_file", lambda: tmp_path / "cache" / "hashes.json")


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: write_checkpoint(folder / "sd1.safetensors", TINY_SD1),
        lambda folder: write_checkpoint(folder / "sdxl.safetensors", TINY_SDXL),
        lambda folder: write_folder(folder / "sd1", TINY_SD1),
    ],
    ids=["an sd1 checkpoint", "an sdxl checkpoint", "a diffusers folder"],
)
def test_the_built_in_loaders_pass(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    check_loader(plugin, write(tmp_path), patience=60)


def test_they_pass_with_the_model_that_comes_with_imagine() -> None:
    (folder,) = build_plugins(only=["imagine-model-doodle"]).model_folders()
    check_loader(plugin, folder / "doodle", patience=60)
