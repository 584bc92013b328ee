"""Upscalers in the models folder: found, loaded, and refused in a sentence."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import TINY_SD1, write_checkpoint
from imagine_core.errors import UnusableModel
from imagine_core.models.catalogue import Catalogue
from imagine_core.models.hashing import file_hash
from imagine_core.plugins import build_plugins
from imagine_core.testing import FakeDevice
from imagine_plugins.loaders.upscaler import UpscalerLoader
from upscalers import compact, rrdb, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the upscalers."""
    (tmp_path / "upscale_models").mkdir()
    return tmp_path / "upscale_models"


def catalogue(folder: Path) -> Catalogue:
    return Catalogue(folder.parent, loaders=build_plugins().loaders)


def load(path: Path, **options: Any) -> Any:
    loader = UpscalerLoader()
    info = loader.recognise(path)
    assert info is not None
    return loader.load(info, **{"device": FakeDevice(), "full_precision": False, **options})


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".PTH", ".safetensors"])
def test_an_upscaler_in_its_folder_is_found_by_name(folder: Path, suffix: str) -> None:
    save(folder / f"4x-UltraSharp{suffix}", rrdb("first"))
    info = catalogue(folder).find("4x-ultrasharp", "upscaler")
    assert (info.problem, info.loader) == (None, "upscaler")
    assert catalogue(folder).match(f"4x-UltraSharp{suffix}", "upscaler") == info
    assert catalogue(folder).models() == []
    with pytest.raises(UnusableModel, match="this is an upscaler, which enlarges pictures"):
        catalogue(folder).get("4x-UltraSharp")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_upscaler_among_the_models_is_told_where_it_belongs(folder: Path, suffix: str) -> None:
    save(folder.parent / f"x4{suffix}", compact())
    (listed,) = catalogue(folder).models()
    assert "this is an upscaler" in (listed.problem or "")
    assert "in the folder upscale_models/" in (listed.problem or "")


def test_a_model_among_the_upscalers_is_told_where_it_belongs(folder: Path) -> None:
    write_checkpoint(folder / "sd.safetensors", TINY_SD1)
    (listed,) = catalogue(folder).models("upscaler")
    assert "it belongs in the models folder itself" in (listed.problem or "")


def test_a_file_that_is_none_says_so_among_the_upscalers(folder: Path) -> None:
    (folder / "x.pth").write_bytes(b"<!doctype html>")
    save(folder / "y.pth", {"a": torch.ones(1)})
    problems = {info.path.name: info.problem for info in catalogue(folder).models("upscaler")}
    assert "no file of weights that can be read here" in (problems["x.pth"] or "")
    assert "no upscaler in a layout known here" in (problems["y.pth"] or "")


def test_progress_ends_at_one_and_the_hash_is_the_files(folder: Path) -> None:
    told: list[float] = []
    path = save(folder / "x.pth", rrdb())
    loaded = load(path, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert loaded._hash.wait() == loaded.hash == file_hash(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(folder: Path, value: float) -> None:
    tensors = rrdb()
    tensors["conv_last.bias"][0] = value
    path = save(folder / "x.pth", tensors)
    with pytest.raises(UnusableModel, match=r"upscaler 'x' .*are not all numbers"):
        load(path)


def test_a_file_that_changed_since_is_looked_at_again(folder: Path) -> None:
    loader = UpscalerLoader()
    path = save(folder / "x.pth", rrdb())
    info = loader.recognise(path)
    assert info is not None
    save(path, {"a": torch.ones(1)})
    with pytest.raises(UnusableModel, match="no upscaler any more"):
        loader.load(info, device=FakeDevice(), full_precision=False)
    path.unlink()
    with pytest.raises(UnusableModel, match="is not a regular file"):
        loader.load(info, device=FakeDevice(), full_precision=False)


def test_a_closed_upscaler_holds_no_weights(folder: Path) -> None:
    loaded = load(save(folder / "x.pth", rrdb()))
    weight = weakref.ref(next(loaded._network.parameters()))
    loaded.close()
    gc.collect()
    assert weight() is None
    loaded.close()
