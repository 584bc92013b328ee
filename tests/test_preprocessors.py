"""The preprocessors that come with Imagine."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from imagine_core import Preprocessor
from imagine_core.plugins import build_plugins
from imagine_plugins.preprocessors import plugin
from imagine_plugins.preprocessors.canny import canny
from upscalers import noise


def prepare(name: str, image: Image.Image) -> np.ndarray:
    given = build_plugins().preprocessors.get(name).prepare(image)
    assert (given.mode, given.size) == ("RGB", image.size)
    return np.array(given)


def test_hook_register_preprocessors() -> None:
    items: list[Preprocessor] = []
    plugin.register_preprocessors(register=items.append)
    assert [each.name for each in items] == ["canny", "invert", "tile", "luma"]
    assert all(each.unavailable() is None for each in items)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("Canny", "canny"),
        ("invert (from white bg & black line)", "invert"),
        ("tile_resample", "tile"),
        ("recolor_luminance", "luma"),
    ],
)
def test_the_names_of_a1111s_extension_are_known(theirs: str, ours: str) -> None:
    assert build_plugins().preprocessors.get(theirs).name == ours


def test_invert_takes_each_value_from_255() -> None:
    image = noise(9, 7)
    assert np.array_equal(prepare("invert", image), 255 - np.array(image))


def test_tile_shows_the_picture_itself() -> None:
    image = noise(9, 7)
    assert np.array_equal(prepare("tile", image), np.array(image))


@pytest.mark.parametrize(
    ("colour", "lightness"),  # L* of sRGB: 53.24, 87.73, 32.30, 53.59
    [
        ((255, 0, 0), 136),
        ((0, 255, 0), 224),
        ((0, 0, 255), 82),
        ((128, 128, 128), 137),
        ((0, 0, 0), 0),
        ((255, 255, 255), 255),
        ((3, 3, 3), 2),
    ],
)
def test_luma_is_the_lightness_of_a_colour(colour: tuple[int, int, int], lightness: int) -> None:
    shown = prepare("luma", Image.new("RGB", (3, 300), colour))
    assert (shown == lightness).all()


# ---------------------------------------------------------------------------------------- canny


def edges(pixels: np.ndarray) -> np.ndarray:
    shown = np.array(canny(Image.fromarray(pixels.astype(np.uint8))))
    assert set(np.unique(shown)) <= {0, 255}
    assert (shown[:, :, 0] == shown[:, :, 2]).all()
    return shown[:, :, 0] > 0


def picture(rows: int = 20, columns: int = 20, value: int = 0) -> np.ndarray:
    return np.full((rows, columns, 3), value)


def test_an_upright_edge_is_one_pixel_wide_on_its_left_side() -> None:
    pixels = picture()
    pixels[:, 10:] = 200
    found = edges(pixels)
    assert found[:, 9].all()
    assert found.sum() == 20


def test_a_level_edge_is_one_pixel_wide_on_its_upper_side() -> None:
    pixels = picture()
    pixels[10:] = 200
    found = edges(pixels)
    assert found[9].all()
    assert found.sum() == 20


def test_an_edge_in_one_colour_alone_is_found() -> None:
    for channel in range(3):
        pixels = picture(value=90)
        pixels[:, 10:, channel] = 190
        assert edges(pixels).sum() == 20


def test_a_weak_edge_shows_only_where_it_leads_to_a_strong_one() -> None:
    pixels = picture(40, 20)
    pixels[:, 10:] = 40  # a gradient of 160: above the low threshold, below the high one
    assert not edges(pixels).any()
    pixels[20:, 10:] = 60  # 240
    assert edges(pixels)[:, 9].sum() >= 38
    pixels[:20, 10:] = 20  # 80
    assert edges(pixels)[:15].sum() == 0


def straightforward(pixels: np.ndarray, low: int = 100, high: int = 200) -> np.ndarray:
    """Canny pixel by pixel, as OpenCV's documentation and its fixed-point angles have it."""
    height, width, _ = pixels.shape
    strength = np.zeros((height + 2, width + 2), int)
    gradients = {}
    for row, column in np.ndindex(height, width):
        x, y = gradients[row, column] = gradient(pixels, row, column)
        strength[row + 1, column + 1] = abs(x) + abs(y)
    kept = np.zeros((height + 2, width + 2), int)
    for (row, column), (x, y) in gradients.items():
        before, behind, both = neighbours(x, y)
        own = strength[row + 1, column + 1]
        first = strength[row + 1 + before[0], column + 1 + before[1]]
        second = strength[row + 1 + behind[0], column + 1 + behind[1]]
        if own > low and own > first and (own > second if both else own >= second):
            kept[row + 1, column + 1] = 2 if own > high else 1
    waiting = list(zip(*np.nonzero(kept == 2), strict=True))
    found = np.zeros_like(kept, bool)
    while waiting:
        row, column = waiting.pop()
        if kept[row, column] and not found[row, column]:
            found[row, column] = True
            waiting += [(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
    return found[1:-1, 1:-1]


def gradient(pixels: np.ndarray, row: int, column: int) -> tuple[int, int]:
    """Sobel's gradient in the channel where it is largest; borders are repeated."""
    rows = np.clip(np.arange(row - 1, row + 2), 0, pixels.shape[0] - 1)
    columns = np.clip(np.arange(column - 1, column + 2), 0, pixels.shape[1] - 1)
    patch = pixels[np.ix_(rows, columns)].astype(int)
    across = np.array([1, 2, 1]) @ (patch[:, 2] - patch[:, 0])
    down = np.array([1, 2, 1]) @ (patch[2] - patch[0])
    best = int(np.argmax(np.abs(across) + np.abs(down)))
    return int(across[best]), int(down[best])


def neighbours(x: int, y: int) -> tuple[tuple[int, int], tuple[int, int], bool]:
    """The two neighbours along a gradient, and whether it must be above both."""
    across, along = abs(x) * 13573, abs(y) << 15
    if along < across:
        return (0, -1), (0, 1), False
    if along > across + (abs(x) << 16):
        return (-1, 0), (1, 0), False
    side = -1 if (x ^ y) < 0 else 1
    return (-1, -side), (1, side), True


@pytest.mark.parametrize("size", [(40, 50), (1, 1), (1, 9), (9, 1), (2, 2), (3, 3)])
@pytest.mark.parametrize("kind", ["noise", "smooth", "blocks"])
def test_edges_are_those_of_the_method_pixel_by_pixel(size: tuple[int, int], kind: str) -> None:
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
    if kind != "noise":
        small = generator.integers(0, 256, (size[0] // 8 + 2, size[1] // 8 + 2, 3), dtype=np.uint8)
        kernel = Image.Resampling.BICUBIC if kind == "smooth" else Image.Resampling.NEAREST
        pixels = np.array(Image.fromarray(small).resize(size[::-1], kernel))
    assert np.array_equal(edges(pixels), straightforward(pixels))


@pytest.mark.parametrize("name", ["canny", "luma", "invert", "tile"])
def test_a_megapixel_takes_well_under_a_second(name: str) -> None:
    image = noise(1024, 1024)
    times = []
    for _ in range(3):
        began = time.process_time()
        prepare(name, image)
        times.append(time.process_time() - began)
    assert min(times) < 0.7
