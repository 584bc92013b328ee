"""Writes and reads the metadata of an enlarged picture: that of the one before, and a note."""

from __future__ import annotations

import json
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from imagine_core.errors import InvalidFile
from imagine_core.pictures.files import read_all, reading
from imagine_core.pictures.images import load_rgba
from imagine_core.pictures.metadata import (
    INFOTEXT,
    MAX_FILE,
    META,
    infotext_of,
    png_bytes,
    read_meta,
    read_picture,
)
from imagine_core.pictures.pngtext import is_png, read_texts, replace_texts

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from imagine_core.types import UpscaleRequest

__all__ = [
    "enlarged_png",
    "picture_in",
    "picture_png",
    "read_facts",
]

POSTPROCESSING = "postprocessing"
"""The keyword under which A1111 notes what was done to a picture after it was drawn."""

MARKS = ',:\n"'


def picture_in(path: Path) -> bytes:
    """The encoded picture that a file is; of a JSON file of `imagine run --meta`, the one in it.

    Raises:
        InvalidFile: The file cannot be read, or is JSON without a picture.
    """
    with reading(path) as file:
        data = read_all(file, limit=MAX_FILE)
    is_json = data[:100].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    return read_picture(path).png if is_json else data


def picture_png(data: bytes) -> bytes:
    """The picture in `data` as a PNG, with what tells how it was drawn.

    Raises:
        ValueError: `data` is no picture, or one that is too large, with a reason for people.
    """
    return replace_texts(png_bytes(load_rgba(data), None), _texts(data))


def read_facts(path: Path) -> dict[str, Any]:
    """The `meta` object of a picture as `read_meta` reads it, and the note of its enlarging.

    A picture that was enlarged and not drawn has the note alone.

    Raises:
        InvalidFile: The file cannot be read, or holds neither.
    """
    with reading(path) as file:
        texts = read_texts(file, (META, POSTPROCESSING)) if is_png(file.read(8)) else {}
    if POSTPROCESSING not in texts:
        return read_meta(path)
    try:
        meta = read_meta(path)
    except InvalidFile:
        if META in texts:
            raise
        meta = {}
    return {**meta, POSTPROCESSING: texts[POSTPROCESSING]}


def enlarged_png(
    image: Image.Image, request: UpscaleRequest, *, label: str, second: str | None = None
) -> bytes:
    """The PNG of an enlarged picture: what it was drawn from is kept, and how it was enlarged told.

    Args:
        image: The enlarged picture.
        request: The request as it ran, with the picture that it came with.
        label: The upscaler, as A1111 spells it.
        second: The one whose picture is blended in, if there is one.
    """
    if request.scale is None and request.size is not None:
        how = "Postprocess upscale to: {}x{}".format(*request.size)
    else:
        how = f"Postprocess upscale by: {request.scale:g}"
    told = f"{how}, Postprocess upscaler: {_quoted(label)}"
    told += "" if second is None else f", Postprocess upscaler 2: {_quoted(second)}"
    return replace_texts(png_bytes(image, None), {**_texts(request.image), POSTPROCESSING: told})


def _quoted(label: str) -> str:
    return json.dumps(label, ensure_ascii=False) if set(MARKS) & set(label) else label


def _texts(data: bytes) -> dict[str, str]:
    """What tells how a picture was drawn; of other formats than PNG, what their comment says."""
    with suppress(InvalidFile):
        if is_png(data) and (found := read_texts(BytesIO(data), (META, INFOTEXT))):
            return found
        infotext = infotext_of(data)
        return {} if infotext is None else {INFOTEXT: infotext}
    return {}
