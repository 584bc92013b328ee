"""Names and writes the pictures of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagine_core.pictures.files import check_writable, is_outlet, write_file
from imagine_core.pictures.metadata import document_bytes, finished, meta_of, png_bytes
from imagine_core.types import ResolvedRequest
from imagine_plugins.commands.shared.output import is_stdout, write_stdout

if TYPE_CHECKING:
    from imagine_core import GeneratedImage, GenerationRequest, GenerationResult, StepEvent

OTHER_FORMATS = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}


CELL = 8
"""Pixels of a picture for one of a preview, where the size is left to the model."""


@dataclass(kw_only=True)
class Gallery:
    """The files of one run; each appears under its name only when complete.

    Attributes:
        folder: Where they go.
        stem: Their name, without a suffix; further pictures get a number.
        keep: Whether existing files stay, and ours get the next free number.
        document: Whether a JSON file goes beside each finished picture.
        label: The label of a sampler, for the infotext.
        date: When the run began.
        saved: The file of each picture so far.
        partial: The progress of unfinished pictures: "5 of 25".
    """

    folder: Path
    stem: str
    keep: bool
    document: bool
    label: Callable[[str], str]
    date: datetime
    saved: dict[int, Path] = field(default_factory=dict)
    partial: dict[int, str] = field(default_factory=dict)

    def preview(self, event: StepEvent, request: GenerationRequest) -> None:
        """Save a preview of a picture, in its final size."""
        if event.preview is None:
            return
        width, height = (side * CELL for side in event.preview.size)
        ran = ResolvedRequest.of(request, {"width": width, "height": height})
        ran = ran if event.model is None else replace(ran, model=event.model)
        size, progress = ran.drawn_size, f"{event.step}/{event.steps}"
        image = event.preview if event.preview.size == size else event.preview.resize(size)
        meta = meta_of(ran, seed=event.seed, date=self.date) | {"unfinished": progress}
        self._write(event.image, png_bytes(image, meta))
        self.partial[event.image] = f"{event.step} of {event.steps}"

    def finish(self, result: GenerationResult) -> list[Path]:
        """Save the finished pictures, and return their files."""
        return [self._finish(index, picture, result) for index, picture in enumerate(result.images)]

    def save(self, png: bytes) -> list[Path]:
        """Save a picture that was not drawn, and return its file."""
        return [self._write(0, png)]

    def left_behind(self) -> list[str]:
        """Sentences about the unfinished files if the run ends now."""
        return [
            f"{path} shows it after step {self.partial[index]}"
            if index in self.partial
            else f"{path} is saved"
            for index, path in self.saved.items()
        ]

    def _finish(self, index: int, picture: GeneratedImage, result: GenerationResult) -> Path:
        label = self.label(result.request.sampler)
        meta, png = finished(picture, result, sampler_label=label, date=self.date)
        path = self._write(index, png)
        self.partial.pop(index, None)
        if self.document:
            write_file(path.with_suffix(".json"), document_bytes(meta, png))
        return path

    def _write(self, index: int, png: bytes) -> Path:
        path = self.saved.get(index)
        if path is None and self.keep:
            path = self._claim(index, png)
        else:
            path = path or self._name(index + 1)
            write_file(path, png)
        self.saved[index] = path
        return path

    def _claim(self, index: int, png: bytes) -> Path:
        """Save under the first free name; concurrent runs never share one."""
        number = index + 1
        while True:
            path = self._name(number)
            number += 1
            if self.document and path.with_suffix(".json").exists():
                continue
            with suppress(FileExistsError):
                write_file(path, png, replace=False)
                return path

    def _name(self, number: int) -> Path:
        return self.folder / (f"{self.stem}.png" if number == 1 else f"{self.stem}_{number}.png")


@dataclass(kw_only=True)
class Outlet(Gallery):
    """A pipe or a device: takes the finished pictures in turn, without previews."""

    def preview(self, event: StepEvent, request: GenerationRequest) -> None:
        """Skip previews, which could not be overwritten."""

    def _write(self, index: int, png: bytes) -> Path:
        del index
        path = self.folder / self.stem
        write_file(path, png)
        return path


@dataclass(kw_only=True)
class StandardOutput(Outlet):
    """Standard output, which has no name to print."""

    def finish(self, result: GenerationResult) -> list[Path]:
        """Write the finished pictures."""
        super().finish(result)
        return []

    def save(self, png: bytes) -> list[Path]:
        """Write a picture that was not drawn."""
        super().save(png)
        return []

    def _write(self, index: int, png: bytes) -> Path:
        del index
        write_stdout(png)
        return Path("-")


def open_gallery(
    output: str | None,
    *,
    document: bool = False,
    label: Callable[[str], str] = str,
    beside: Path | None = None,
) -> Gallery:
    """The gallery of a run whose `-o` is `output`.

    Args:
        output: The value of `-o`.
        document: Whether a JSON file goes beside each finished picture.
        label: The label of a sampler, for the infotext.
        beside: The file without its suffix where `output` names none; None for the time.

    Raises:
        click.UsageError: `output` asks for a format other than PNG, or cannot hold a picture.
        OSError: No file can be written there, found before the work starts.
    """
    kind, folder, stem = _destination(output)
    if output is None and beside is not None:
        folder = beside.parent
    if document and kind is not Gallery:
        raise click.UsageError("--meta writes a file beside the picture: -o must name a file")
    if kind is not StandardOutput:
        check_writable(folder if kind is Gallery else folder / (stem or ""))
    date = datetime.now().astimezone()
    usual = f"{date:%Y%m%d_%H%M%S}" if beside is None else beside.name
    return kind(
        folder=folder,
        stem=stem or usual,
        keep=stem is None,
        document=document,
        label=label,
        date=date,
    )


def _destination(output: str | None) -> tuple[type[Gallery], Path, str | None]:
    """The class of the gallery, its folder, and the name of the file if one was given."""
    if output is None:
        return Gallery, Path(), None
    path = Path(output)
    if is_stdout(output):
        return StandardOutput, Path(), "-"
    if is_outlet(path):
        return Outlet, path.parent, path.name
    if path.is_dir() or output[-1:] in {os.sep, os.altsep}:
        return Gallery, path, None
    if path.is_block_device() or path.is_socket():
        raise click.UsageError(f"-o {output} is no file, folder or pipe")
    suffix = path.suffix.lower()
    if suffix in OTHER_FORMATS:
        raise click.UsageError(f"pictures are PNG files: -o {path.with_suffix('.png')}")
    stem = path.stem if suffix in {".png", ".json"} else path.name
    if (path.parent / f"{stem}.png").is_dir():
        raise click.UsageError(f"{path.parent / stem}.png is a folder")
    return Gallery, path.parent, stem
