"""Networks enlarge pictures of any size, a tile at a time, as if there were no tiles."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imagine_core.testing import FakeDevice
from imagine_plugins.loaders.upscaler import UpscalerLoader, header_of
from imagine_plugins.loaders.upscaler_layouts import upscaler_in
from imagine_plugins.loaders.upscaler_tiles import Tiling, spans, tiling
from upscalers import compact, noise, reference, repeating, rrdb, run, save, to_pixels, to_tensor


def load(path: Path, tensors: Any, *, tiles: Tiling | None = None) -> Any:
    loader = UpscalerLoader()
    info = loader.recognise(save(path, tensors))
    assert info is not None
    assert info.problem is None
    loaded: Any = loader.load(info, device=FakeDevice(), full_precision=False)
    if tiles is not None:
        loaded._tiles = tiles
    return loaded


def enlarged(loaded: Any, image: Image.Image) -> np.ndarray[Any, Any]:
    picture, _ = run(loaded.enlarge(image))
    assert picture.mode == "RGB"
    return np.array(picture)


RANDOM = {
    "RRDBNet x4": rrdb(),
    "RRDBNet x2 of squares": rrdb(channels=12),
    "RRDBNet x8": rrdb("basicsr", doublings=3),
    "compact x2": compact(factor=2),
    "compact x4": compact(),
}


@pytest.mark.parametrize("name", RANDOM)
def test_a_network_computes_what_its_paper_says(tmp_path: Path, name: str) -> None:
    image = noise(20, 12)
    ours = enlarged(load(tmp_path / "x.pth", RANDOM[name]), image)
    theirs = to_pixels(reference(RANDOM[name], to_tensor(image)))
    assert ours.shape == theirs.shape
    assert ours.std() > 1
    # float32 against float64: a value may fall on the other side of a half
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("layout", ["first", "second"])
def test_other_names_make_the_same_picture(tmp_path: Path, layout: str) -> None:
    image = noise(20, 12)
    usual = enlarged(load(tmp_path / "usual.pth", rrdb()), image)
    assert np.array_equal(enlarged(load(tmp_path / "x.pth", rrdb(layout)), image), usual)


SMALL = Tiling(side=48, context=8, blended=4)


@pytest.mark.parametrize("doublings", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(150, 97), (49, 48), (48, 1), (1, 130), (3, 5)])
def test_tiles_of_a_known_network_join_exactly(
    tmp_path: Path, doublings: int, size: tuple[int, int]
) -> None:
    loaded = load(tmp_path / "x.pth", repeating("first", doublings=doublings), tiles=SMALL)
    factor = 2**doublings
    image = noise(*size)
    larger = np.array(image).repeat(factor, 0).repeat(factor, 1)
    assert loaded.factor == factor
    assert np.array_equal(enlarged(loaded, image), larger)


@pytest.mark.parametrize(("channels", "factor"), [(12, 2), (48, 1)])
@pytest.mark.parametrize("size", [(101, 67), (2, 3), (1, 1)])
def test_pictures_of_odd_sides_pass_networks_of_squares(
    tmp_path: Path, channels: int, factor: int, size: tuple[int, int]
) -> None:
    tensors = rrdb(channels=channels)
    whole = enlarged(load(tmp_path / "x.pth", tensors), noise(*size))
    tiles = Tiling(side=80, context=28, blended=4)
    cut = enlarged(load(tmp_path / "x.pth", tensors, tiles=tiles), noise(*size))
    assert whole.shape == cut.shape == (size[1] * factor, size[0] * factor, 3)
    assert np.abs(whole.astype(int) - cut).max() <= 1


def test_a_network_of_3x_enlarges_by_3(tmp_path: Path) -> None:
    loaded = load(tmp_path / "3x_y.pth", repeating("first", doublings=1), tiles=SMALL)
    image = noise(150, 97)
    larger = np.array(image).repeat(3, 0).repeat(3, 1)
    assert loaded.factor == 3
    assert np.array_equal(enlarged(loaded, image), larger)


def test_tiles_that_share_all_that_the_network_sees_join_exactly(tmp_path: Path) -> None:
    tensors = compact(blocks=4)
    path = save(tmp_path / "x.pth", tensors)
    plan = upscaler_in(path, header_of(path))
    assert plan is not None
    assert plan.reach == 6
    exact = replace(tiling(plan), side=40)
    assert (exact.context, exact.blended) == (6, 0)
    image = noise(120, 90)
    whole = to_pixels(reference(tensors, to_tensor(image)))
    cut = enlarged(load(path, tensors, tiles=exact), image)
    assert np.abs(cut.astype(int) - whole).max() <= 1
    narrow = enlarged(load(path, tensors, tiles=replace(exact, context=2)), image)
    assert np.abs(narrow.astype(int) - whole).max() > 1  # the test can tell


def test_the_reach_is_that_of_the_network(tmp_path: Path) -> None:
    for tensors in (compact(blocks=3), rrdb(blocks=1), rrdb(blocks=1, channels=12)):
        path = save(tmp_path / "x.pth", tensors)
        plan = upscaler_in(path, header_of(path))
        assert plan is not None
        side = 2 * plan.reach + 8
        side -= side % 4
        pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        pixels = pixels.double().requires_grad_()
        middle = reference(tensors, pixels)[0, :, side // 2 * plan.factor, side // 2 * plan.factor]
        middle.sum().backward()  # type: ignore[no-untyped-call]
        assert pixels.grad is not None
        seen = pixels.grad[0].abs().sum((0, 1)).nonzero()
        assert side // 2 - int(seen.min()) <= plan.reach
        assert int(seen.max()) - side // 2 <= plan.reach


@pytest.mark.parametrize("length", [1, 47, 48, 49, 75, 76, 77, 500, 8192])
def test_tiles_cover_a_side_and_overlap_as_they_should(length: int) -> None:
    found = spans(length, SMALL)
    assert (found[0].start, found[0].kept_from, found[0].is_first) == (0, 0, True)
    assert (found[-1].stop, found[-1].kept_to) == (length, length)
    assert all(0 < each.stop - each.start <= SMALL.side for each in found)
    for before, after in pairwise(found):
        assert before.stop - after.start == SMALL.overlap
        assert after.kept_from == after.start + SMALL.context
        assert before.kept_to - after.kept_from == SMALL.blended
        assert after.start % 4 == 0
        assert not after.is_first


def test_seams_fade(tmp_path: Path) -> None:
    """A network whose tiles differ in brightness, as a bias beyond the context would."""
    loaded = load(tmp_path / "x.pth", repeating(doublings=0), tiles=SMALL)
    shades = iter([100, 200])
    loaded._enlarged = lambda pixels: np.full_like(pixels, next(shades))
    row = enlarged(loaded, noise(70, 10))[5, :, 0]
    steps = np.diff(row.astype(int))
    assert row[0] == 100
    assert row[-1] == 200
    assert (steps >= 0).all()
    assert 20 <= steps.max() <= 26  # four pixels share the step of 100


def test_the_engine_can_work_between_two_tiles_and_cancel(tmp_path: Path) -> None:
    loaded = load(tmp_path / "x.pth", repeating(), tiles=SMALL)
    calls: list[int] = []
    inner = loaded._enlarged

    def counted(pixels: Any) -> Any:
        calls.append(1)
        return inner(pixels)

    loaded._enlarged = counted
    steps = loaded.enlarge(noise(150, 100))
    assert not calls
    done = [next(steps) for _ in range(3)]
    assert len(calls) == 3
    assert done == sorted(done)
    assert 0 < done[0] < done[2] < 1
    steps.close()
    assert len(calls) == 3
    _, given = run(loaded.enlarge(noise(150, 100)))
    assert given[-1] == 1.0
    assert len(given) == 5 * 3


def test_memory_is_that_of_a_tile_and_of_the_result(tmp_path: Path) -> None:
    loaded = load(tmp_path / "x.pth", repeating(doublings=1), tiles=SMALL)
    taken = []
    for height in (100, 1600):
        image = noise(60, height)
        tracemalloc.start()
        enlarged_height = run(loaded.enlarge(image))[0].height
        taken.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert enlarged_height == 2 * height
    assert taken[1] < taken[0] + 2**20  # what Pillow takes is not traced: the two pictures


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_picture_of_any_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = noise(9, 7).convert(mode)
    picture = enlarged(load(tmp_path / "x.pth", repeating(doublings=1)), image)
    assert np.array_equal(picture, np.array(image.convert("RGB")).repeat(2, 0).repeat(2, 1))


def plan_of(path: Path, tensors: Any) -> Any:
    return upscaler_in(save(path, tensors), header_of(path))


def test_tiles_suit_the_network(tmp_path: Path) -> None:
    full = plan_of(tmp_path / "x.pth", rrdb(blocks=1))
    usual = replace(full, features=64, blocks=23)
    assert tiling(usual).side == 224
    assert tiling(replace(usual, factor=8, doublings=3)).side == 128
    assert tiling(replace(usual, factor=2, unshuffle=2)).side == 448
    assert tiling(replace(usual, features=256)).side < 224
    small = plan_of(tmp_path / "y.pth", compact())
    for plan in (usual, replace(usual, features=256), small, replace(small, blocks=32)):
        tiles = tiling(plan)
        assert tiles.side % 4 == 0
        assert tiles.side >= 2 * tiles.overlap  # else each pixel is computed many times


class Half(FakeDevice):
    """Computes in half precision."""

    def dtype(self) -> torch.dtype:
        return torch.float16


def test_weights_are_halved_where_the_device_computes_so(tmp_path: Path) -> None:
    image = noise(12, 12)
    loader = UpscalerLoader()
    info = loader.recognise(save(tmp_path / "x.pth", rrdb()))
    assert info is not None
    half: Any = loader.load(info, device=Half(), full_precision=False)
    full: Any = loader.load(info, device=Half(), full_precision=True)
    assert next(half._network.parameters()).dtype == torch.float16
    assert next(full._network.parameters()).dtype == torch.float32
    difference = enlarged(half, image).astype(int) - enlarged(full, image)
    assert np.abs(difference).max() <= 2


def test_what_overflows_in_half_precision_is_computed_in_float32(tmp_path: Path) -> None:
    tensors = repeating(doublings=1)
    for name, scale in (("first", 300), ("up1", 300), ("hr", 1 / 300), ("last", 1 / 300)):
        tensors[f"conv_{name}.weight"] *= scale
    loader, image = UpscalerLoader(), noise(12, 12)
    info = loader.recognise(save(tmp_path / "x.pth", tensors))
    assert info is not None
    half: Any = loader.load(info, device=Half(), full_precision=False)
    assert next(half._network.parameters()).dtype == torch.float16
    larger = np.array(image).repeat(2, 0).repeat(2, 1)
    away = np.abs(enlarged(half, image).astype(int) - larger)
    assert away.max() <= 1
    assert next(half._network.parameters()).dtype == torch.float32


def test_weights_too_large_for_half_precision_stay_as_they_are(tmp_path: Path) -> None:
    tensors = repeating(doublings=1)
    tensors["conv_hr.weight"] *= 100_000
    tensors["conv_last.weight"] /= 100_000
    loader, image = UpscalerLoader(), noise(12, 12)
    info = loader.recognise(save(tmp_path / "x.pth", tensors))
    assert info is not None
    loaded: Any = loader.load(info, device=Half(), full_precision=False)
    assert next(loaded._network.parameters()).dtype == torch.float32
    assert np.array_equal(enlarged(loaded, image), np.array(image).repeat(2, 0).repeat(2, 1))
