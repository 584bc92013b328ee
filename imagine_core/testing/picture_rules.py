"""The rules of upscalers without files and of preprocessors, which make pictures of pictures."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imagine_core.interfaces import Preprocessor, UpscalerSpec
from imagine_core.testing.plugin_registration import beside_the_installed

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.plugins import Plugins

SIZES = ((1, 1), (7, 5), (1, 40), (64, 33))


@dataclass(frozen=True)
class Making:
    """An upscaler or a preprocessor of a plugin, by its name."""

    plugin: object
    name: str

    @property
    def plugins(self) -> Plugins:
        """The installed ones, and this."""
        return beside_the_installed(self.plugin)

    @property
    def upscaler(self) -> UpscalerSpec:
        """The upscaler."""
        return self.plugins.upscalers.get(self.name)

    @property
    def preprocessor(self) -> Preprocessor:
        """The preprocessor."""
        return self.plugins.preprocessors.get(self.name)


def noise(width: int, height: int) -> Image.Image:
    """An RGB picture of noise, the same every time."""
    from PIL import Image

    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@contextmanager
def unchanged(image: Image.Image) -> Iterator[None]:
    """The picture that is given is not drawn on."""
    before = image.tobytes()
    yield
    assert image.tobytes() == before, "it changes the picture that it is given"


def upscaler_registered(making: Making) -> None:
    """It is registered, under a name in lower case, with a label."""
    _named(making.upscaler)


def upscaler_sizes(making: Making) -> None:
    """Each picture becomes RGB of exactly the size that is asked for, smaller ones included."""
    for size in SIZES:
        for wanted in ((2 * size[0], 2 * size[1]), (13, 90), (1, 1)):
            image = noise(*size)
            with unchanged(image):
                given, again = (_enlarged(making, image, wanted) for _ in range(2))
            _same(given, again)
            assert given.size == wanted, f"of {size} it makes {given.size}, not {wanted}"


def upscaler_flat(making: Making) -> None:
    """A picture of one colour stays one of that colour."""
    from PIL import Image

    colour = (200, 100, 50)
    given = _enlarged(making, Image.new("RGB", (9, 7), colour), (36, 28))
    away = np.abs(np.asarray(given, np.int64) - colour).max()
    assert away <= 2, f"a picture of one colour is {away} levels away from it"


def preprocessor_registered(making: Making) -> None:
    """It is registered, under a name in lower case, with a label, and can say what it lacks."""
    _named(making.preprocessor)
    problem = making.preprocessor.unavailable()
    assert problem is None or problem.strip(), f"`unavailable` gives {problem!r}"


def preprocessor_hints(making: Making) -> None:
    """Each picture becomes an RGB hint of its size, the same each time."""
    if making.preprocessor.unavailable() is not None:
        return
    for size in SIZES:
        image = noise(*size)
        with unchanged(image):
            given, again = (making.preprocessor.prepare(image) for _ in range(2))
        _same(given, again)
        assert given.size == size, f"of {size} it makes a hint of {given.size}"


def _enlarged(making: Making, image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """What the upscaler gives, whether it works in parts or not."""
    given = making.upscaler.enlarge(image, size)
    try:
        while isinstance(given, Generator):
            done = next(given)
            assert 0 <= done <= 1, f"it says that it is at {done}"
    except StopIteration as stop:
        given = stop.value
    return given


def _named(item: UpscalerSpec | Preprocessor) -> None:
    for name in (item.name, *item.aliases):
        assert name == name.lower().strip(), f"its name {name!r} is not in lower case"
        assert name, "a name of it is empty"
    assert item.label.strip(), "it has no label"


def _same(given: Image.Image, again: Image.Image) -> None:
    assert given.mode == "RGB", f"it makes a picture of mode {given.mode}"
    assert given.tobytes() == again.tobytes(), "it makes another picture the second time"


SPEC_RULES: tuple[tuple[str, Callable[[Making], None]], ...] = (
    ("upscaler-spec-registered", upscaler_registered),
    ("upscaler-spec-sizes", upscaler_sizes),
    ("upscaler-spec-flat", upscaler_flat),
)
PREPROCESSOR_RULES: tuple[tuple[str, Callable[[Making], None]], ...] = (
    ("preprocessor-registered", preprocessor_registered),
    ("preprocessor-hints", preprocessor_hints),
)
