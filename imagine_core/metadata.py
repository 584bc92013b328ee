"""The metadata of a picture: what it was made from, inside its PNG or in a JSON file beside it."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from imagine_core.errors import InvalidFile
from imagine_core.files import read_file
from imagine_core.infotext import read_infotext
from imagine_core.pngtext import check_png, is_png, read_texts, replace_texts
from imagine_core.types import GenerationRequest

if TYPE_CHECKING:
    from PIL import Image

META = "meta"
INFOTEXT = "parameters"
MAX_FILE = 256 * 2**20
"""Bytes of the largest file that is read whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFile:
    """A picture as a file holds it: a PNG with metadata in it, or JSON with both.

    Attributes:
        meta: The readme's `meta` object.
        png: The picture.
        source: "png" or "json".
    """

    meta: dict[str, Any]
    png: bytes = field(repr=False)
    source: str


# ------------------------------------------------------------------------------------- writing


def meta_of(
    request: GenerationRequest, *, seed: int, date: datetime, model_hash: str | None = None
) -> dict[str, Any]:
    """The `meta` object of one picture: the readme's fields, then those that are ours.

    Args:
        request: The request as it ran.
        seed: The picture's own seed. With it the picture is made again alone, so that the number
            of pictures is no part of the object.
        date: When it was made.
        model_hash: First 10 hex digits of the checkpoint's sha256, where known.
    """
    image = request.init_image
    meta: dict[str, Any] = {
        "model": request.model,
        "prompt": request.prompt,
        "width": request.width,
        "height": request.height,
        "steps": request.steps,
        "guidance": request.guidance_scale,
        "sampler": request.sampler,
        "seed": str(seed),  # most JSON readers keep 53 bits of a number
        "neg": request.negative_prompt,
        "clip": request.clip_skip,
        "stream": request.preview_every or None,
        "img": None if image is None else base64.b64encode(image).decode("ascii"),
        "strength": request.strength,
        "date": date.isoformat(timespec="seconds"),
    }
    ours = {
        "schedule": None if request.noise_schedule == "default" else request.noise_schedule,
        "hires": request.hires_scale,
        "deterministic": request.deterministic or None,
        "model_hash": model_hash,
    }
    return meta | {key: value for key, value in ours.items() if value is not None}


def png_bytes(
    image: Image.Image, meta: Mapping[str, Any] | None, *, infotext: str | None = None
) -> bytes:
    """`image` as a PNG with its metadata in it, for us and for tools that read infotext."""
    from io import BytesIO

    buffer = BytesIO()
    # Level 1 is several times faster than the usual 6, for a few per cent of size.
    image.save(buffer, "PNG", compress_level=1)
    texts = {}
    if meta is not None:
        texts[META] = json.dumps(meta)  # ASCII, which every reader of tEXt agrees on
    if infotext is not None:
        texts[INFOTEXT] = infotext
    return replace_texts(buffer.getvalue(), texts)


def document_bytes(meta: Mapping[str, Any], png: bytes) -> bytes:
    """The JSON file of a picture, as `imagine run --meta` writes it."""
    document = {"meta": meta, "out": base64.b64encode(png).decode("ascii")}
    return (json_text(document) + "\n").encode("utf-8")


def json_text(value: object, *, encoding: str = "utf-8") -> str:
    """`value` as JSON for people: indented, and escaped only where `encoding` cannot say it."""
    text = json.dumps(value, indent=4, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=4)
    return text


# ------------------------------------------------------------------------------------- reading


def read_meta(path: Path) -> dict[str, Any]:
    """The `meta` object of a PNG or JSON file; of A1111's pictures, what their infotext says.

    Raises:
        InvalidFile: The file cannot be read or holds no metadata.
    """
    try:
        with path.open("rb") as file:
            if is_png(file.read(8)):
                return _png_meta(read_texts(file, (META, INFOTEXT)))
        return _document(path)[0]
    except (OSError, InvalidFile) as error:
        raise _about(path, error) from error


def read_picture(path: Path) -> PictureFile:
    """The picture and the metadata of a PNG or JSON file.

    Raises:
        InvalidFile: The file cannot be read, or lacks one of the two.
    """
    from io import BytesIO

    try:
        data = read_file(path, limit=MAX_FILE, what="file")
        if is_png(data):
            check_png(data)
            meta = _png_meta(read_texts(BytesIO(data), (META, INFOTEXT)))
            return PictureFile(meta=meta, png=data, source="png")
        meta, out = _parse(data)
        return PictureFile(meta=meta, png=_with_meta(_png(out), meta), source="json")
    except InvalidFile as error:
        raise _about(path, error) from error


def request_of(meta: Mapping[str, Any]) -> GenerationRequest:
    """The request that makes the picture of `meta` again; keys that it does not know stay out.

    Raises:
        InvalidFile: Values that cannot be meant, every one of them named.
    """
    values: dict[str, Any] = {}
    wrong = []
    for key, wanted in _FIELDS.items():
        if meta.get(key) is None:
            continue
        try:
            values[wanted.name] = wanted.read(meta[key])
        except (ValueError, OverflowError):
            wrong.append(f"{key!r} must be {wanted.what}")
    if "prompt" not in values:
        wrong.append("'prompt' is missing")
    if wrong:
        raise InvalidFile("the metadata makes no sense: " + ", ".join(wrong))
    return GenerationRequest(**values)
