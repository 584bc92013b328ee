"""Runs preprocessors and upscalers of plugins: what they raise or return wrongly names them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from imagine_core.errors import GenerationFailed
from imagine_core.safe_text import quoted

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.interfaces import Preprocessor, UpscalerSpec

__all__ = [
    "hint_of",
]

log = logging.getLogger("imagine")


def hint_of(preprocessor: Preprocessor, image: Image.Image) -> Image.Image:
    """The hint that a preprocessor makes of an RGB picture, RGB, of the same size.

    Raises:
        GenerationFailed: It raises, or gives something else.
    """
    what = f"preprocessor {preprocessor.name!r}"
    return _checked(lambda: preprocessor.prepare(image), image.size, what)


def enlarged_by(upscaler: UpscalerSpec, image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The RGB picture at `size` that a registered upscaler makes.

    Raises:
        GenerationFailed: It raises, or gives something else.
    """
    return _checked(lambda: upscaler.enlarge(image, size), size, f"upscaler {upscaler.name!r}")


def _checked(work: Callable[[], object], size: tuple[int, int], what: str) -> Image.Image:
    from PIL import Image

    try:
        made = work()
    except MemoryError:
        raise
    except Exception as error:  # a plugin may raise anything
        log.exception("%s failed", what)
        raise GenerationFailed(f"{what} failed: {quoted(error)}") from error
    if not isinstance(made, Image.Image) or made.size != size:
        got = made.size if isinstance(made, Image.Image) else type(made).__name__
        raise GenerationFailed(f"{what} must give a picture of {size}, and gave {got}")
    return made.convert("RGB")
