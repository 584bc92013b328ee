"""The upscalers that need no file."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from imagine_core import UpscalerSpec
from imagine_core.plugins import build_plugins
from imagine_plugins.upscalers import resampling
from upscalers import noise, run

KERNELS = {"lanczos": "LANCZOS", "bicubic": "BICUBIC", "nearest": "NEAREST"}


def test_hook_register_upscalers() -> None:
    items: list[UpscalerSpec] = []
    resampling.register_upscalers(register=items.append)
    assert [(each.name, each.label) for each in items] == [
        ("lanczos", "Lanczos"),
        ("bicubic", "Bicubic"),
        ("nearest", "Nearest"),
    ]
    assert set(build_plugins().upscalers.names()) == set(KERNELS)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("size", [(40, 26), (20, 13), (7, 50), (1, 1)])
def test_a_picture_is_resampled_to_the_size(name: str, size: tuple[int, int]) -> None:
    image = noise(20, 13)
    given, _ = run(build_plugins().upscalers.get(name).enlarge(image, size))  # type: ignore[arg-type]
    least = (min(20, size[0]), min(13, size[1]))
    kernel = Image.Resampling[KERNELS[name]]
    assert given.size == size
    assert np.array_equal(
        np.array(given), np.array(image.resize(least, kernel).resize(size, kernel))
    )


def test_nearest_repeats_pixels() -> None:
    image = noise(5, 4)
    given, _ = run(build_plugins().upscalers.get("nearest").enlarge(image, (15, 12)))  # type: ignore[arg-type]
    assert np.array_equal(np.array(given), np.array(image).repeat(3, 0).repeat(3, 1))


@pytest.mark.parametrize("name", ["lanczos", "bicubic"])
def test_a_picture_of_one_row_takes_no_more_memory_than_the_larger_of_the_two(name: str) -> None:
    code = f"""
import resource
from PIL import Image
from imagine_core.plugins import build_plugins
spec = build_plugins().upscalers.get({name!r})
list(spec.enlarge(Image.new("RGB", (9, 9)), (3, 3)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
list(spec.enlarge(Image.new("RGB", (1, 200_000)), (512, 512)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 50e6  # 400 MB in one step
