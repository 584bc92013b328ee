"""What keeps a model from being used, in words, and what lists and callers make of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from imagine_core.errors import UnusableModel
from imagine_core.interfaces import ModelInfo
from imagine_core.safe_text import quoted
from imagine_plugins.loaders.vocabulary import VocabularyError


class ProblemError(Exception):
    """A model that cannot be used; the text says what is wrong and what to do.

    Attributes:
        family: What the file is all the same: "lora", "sd1", "broken", ...
        metadata: What it says of itself.
    """

    def __init__(self, problem: str, *, family: str = "unknown") -> None:
        super().__init__(problem)
        self.family = family
        self.metadata: Mapping[str, str] = {}

    def info(self, path: Path, *, name: str, loader: str) -> ModelInfo:
        """The model at `path` as it is listed."""
        return ModelInfo(
            name=name,
            path=path,
            loader=loader,
            family=self.family,
            size=size_of(path),
            problem=str(self),
            metadata=self.metadata,
        )


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; 0 of what cannot be looked into."""
    try:
        files = path.rglob("*") if path.is_dir() else (path,)
        return sum(file.stat().st_size for file in files if file.is_file())
    except OSError:
        return 0


@contextmanager
def explained() -> Iterator[None]:
    """An error of the file system becomes a `ProblemError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or quoted(error)
        raise ProblemError(f"it cannot be read: {reason}", family="broken") from error


@contextmanager
def named(model: str, *, kind: str = "model") -> Iterator[None]:
    """Whatever keeps the model from loading becomes an `UnusableModel` with its name."""
    try:
        with explained():
            yield
    except (ProblemError, VocabularyError) as error:
        raise UnusableModel(model, str(error), kind=kind) from error
