"""A loader of toy upscalers, which repeat each pixel, and toys with one fault each."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagine_core import ModelInfo, ModelLoader, hookimpl
from imagine_core.errors import UnusableModel

if TYPE_CHECKING:
    import torch
    from PIL import Image

CONTENT = b"a toy upscaler: repeat each pixel twice\n" * 8
KEPT: list[Any] = []


def write(path: Path) -> Path:
    path.write_bytes(CONTENT)
    return path


class Repeat:
    """Repeats each pixel, ten columns at a time."""

    factor: Any = 2
    hash: str | None = "0123456789"

    def __init__(self) -> None:
        import torch

        self.weights: torch.Tensor | None = torch.ones(1)

    def enlarge(self, image: Image.Image) -> Generator[float, None, Image.Image]:
        import numpy as np
        from PIL import Image

        pixels = np.asarray(image)
        parts = []
        for start in range(0, image.width, 10):
            parts.append(pixels[:, start : start + 10].repeat(2, 0).repeat(2, 1))
            yield min(1.0, (start + 10) / image.width)
        return Image.fromarray(np.concatenate(parts, 1))

    def close(self) -> None:
        self.weights = None


class ToyUpscalers:
    """Loads `.toy` files."""

    name = "toy"
    made: Callable[[], Any] = Repeat
    kind = "upscaler"
    details: dict[str, Any] = {"factor": 2}  # noqa: RUF012 - a toy's

    @hookimpl
    def register_model_loaders(self, register: Callable[[ModelLoader], None]) -> None:
        register(self)

    def recognise(self, path: Path) -> ModelInfo | None:
        if path.suffix != ".toy" or not path.is_file():
            return None
        content = path.read_bytes()
        return ModelInfo(
            name=path.stem,
            path=path,
            loader=self.name,
            kind=self.kind,
            family="toy",
            size=len(content),
            problem=None if content == CONTENT else "it is no toy, or is damaged",
            details=self.details,
        )

    def load(self, info: ModelInfo, **options: Any) -> Any:
        options["progress"](1.0)
        if info.path.read_bytes() != CONTENT:
            raise UnusableModel(info.name, "it is no toy any more")
        return type(self).made()


class Model(ToyUpscalers):
    kind = "model"


class Silent(ToyUpscalers):
    details: dict[str, Any] = {}  # noqa: RUF012 - a toy's


class Fraction(ToyUpscalers):
    details = {"factor": 2.5}  # noqa: RUF012 - a toy's

    class made(Repeat):  # noqa: N801 - as a method's name
        factor = 2.5


class LongHash(ToyUpscalers):
    class made(Repeat):  # noqa: N801
        hash = "0123456789abcdef"


class Once(ToyUpscalers):
    class made(Repeat):  # noqa: N801
        def enlarge(self, image: Image.Image) -> Generator[float, None, Image.Image]:
            yield 1.0
            return image.copy()


class Grey(ToyUpscalers):
    class made(Repeat):  # noqa: N801
        def enlarge(self, image: Image.Image) -> Generator[float, None, Image.Image]:
            return (yield from super().enlarge(image)).convert("L")


class Paints(ToyUpscalers):
    class made(Repeat):  # noqa: N801
        def enlarge(self, image: Image.Image) -> Generator[float, None, Image.Image]:
            image.putpixel((0, 0), (1, 2, 3))
            return (yield from super().enlarge(image))


class Percent(ToyUpscalers):
    class made(Repeat):  # noqa: N801
        def enlarge(self, image: Image.Image) -> Generator[float, None, Image.Image]:
            yield 100.0
            return (yield from super().enlarge(image))


class Back(ToyUpscalers):
    class made(Repeat):  # noqa: N801
        def enlarge(self, image: Image.Image) -> Generator[float, None, Image.Image]:
            yield 0.99
            yield 0.5
            return (yield from super().enlarge(image))


class Counts(ToyUpscalers):
    class made(Repeat):  # noqa: N801
        calls = 0

        def enlarge(self, image: Image.Image) -> Generator[float, None, Image.Image]:
            self.calls += 1
            larger = yield from super().enlarge(image)
            larger.putpixel((0, 0), (self.calls, 0, 0))
            return larger


class Stretches(ToyUpscalers):
    """Brightens a picture to its own extremes, which differ from part to part."""

    class made(Repeat):  # noqa: N801
        def enlarge(self, image: Image.Image) -> Generator[float, None, Image.Image]:
            larger = yield from super().enlarge(image)
            return larger.point(lambda value: value * image.width // 300)


class Keeps(ToyUpscalers):
    class made(Repeat):  # noqa: N801
        def close(self) -> None:
            if self.weights is not None:
                KEPT.append(self.weights)
            self.weights = None


class ClosesOnce(ToyUpscalers):
    class made(Repeat):  # noqa: N801
        def close(self) -> None:
            del self.weights
