"""Runs plugins' preprocessors and upscalers: what they raise or return wrongly names them."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from imagine_core.errors import GenerationFailed
from imagine_core.safe_text import quoted

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.engine.guarded import Guard
    from imagine_core.interfaces import Preprocessor, UpscalerSpec

log = logging.getLogger("imagine")


class Finished(NamedTuple):
    """What an upscaler that works in parts gives in the end."""

    made: object


def hint_of(preprocessor: Preprocessor, image: Image.Image, *, guard: Guard) -> Image.Image:
    """The hint that a preprocessor makes of an RGB picture, RGB, of the same size.

    Raises:
        GenerationFailed: It raises, gives something else, or does not return.
    """
    what = f"preprocessor {preprocessor.name!r}"
    with _blaming(what):
        return _rgb(guard(what, lambda: preprocessor.prepare(image)), image.size, what)


def enlarged_by(
    upscaler: UpscalerSpec, image: Image.Image, size: tuple[int, int], *, guard: Guard
) -> Generator[float, None, Image.Image]:
    """Yields how much is done, 0 .. 1, and returns the RGB picture at `size`.

    Raises:
        GenerationFailed: The upscaler raises, gives something else, or does not return.
    """
    what = f"upscaler {upscaler.name!r}"
    with _blaming(what):
        made: object = guard(what, lambda: upscaler.enlarge(image, size))
        if isinstance(made, Generator):
            made = yield from _parts(made, what, guard)
        return _rgb(made, size, what)


def _parts(
    made: Generator[object, None, object], what: str, guard: Guard
) -> Generator[float, None, object]:
    try:
        while not isinstance(done := guard(what, lambda: _next(made)), Finished):
            yield done
        return done.made
    finally:
        guard(what, made.close)


def _next(made: Generator[object, None, object]) -> float | Finished:
    try:
        done = next(made)
    except StopIteration as stop:
        return Finished(stop.value)
    return min(1.0, max(0.0, float(done)))  # type: ignore[arg-type] # others raise


def _rgb(made: object, size: tuple[int, int], what: str) -> Image.Image:
    from PIL import Image

    if not isinstance(made, Image.Image) or made.size != size:
        got = made.size if isinstance(made, Image.Image) else type(made).__name__
        raise GenerationFailed(f"{what} must give a picture of {size}, and gave {got}")
    return made.convert("RGB")


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Turn whatever the block raises into an error that names `what`."""
    try:
        yield
    except (GenerationFailed, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a plugin may raise anything
        log.exception("%s failed", what)
        raise GenerationFailed(f"{what} failed: {quoted(error)}") from error
