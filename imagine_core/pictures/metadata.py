"""The metadata of a picture: what it was made from, inside its PNG or in a JSON file beside it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

from imagine_core.errors import InvalidFile
from imagine_core.fields import changed_pictures, noted, without_pictures
from imagine_core.pictures.bare import bare
from imagine_core.pictures.exif import exif_comment, is_jpeg, is_webp, picture_comment
from imagine_core.pictures.files import read_all, reading
from imagine_core.pictures.infotext import read_infotext, write_infotext
from imagine_core.pictures.pngtext import (
    check_png,
    is_png,
    read_exif,
    read_texts,
    replace_texts,
)
from imagine_core.types import GeneratedImage, GenerationResult, ResolvedRequest
from imagine_core.version import version

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "document_bytes",
    "finished",
    "infotext_of",
    "json_text",
    "meta_of",
    "png_bytes",
    "png_meta",
    "read_meta",
    "read_picture",
]

META = "meta"
INFOTEXT = "parameters"
MAX_INFOTEXT = 2**18
"""Characters, and bytes in a PNG, of the longest infotext that a server reads."""

MAX_FILE = 256 * 2**20
"""Bytes of the largest file that is read whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFile:
    """A picture as a file holds it: a picture with metadata in it, or JSON with both.

    Attributes:
        meta: The readme's `meta` object.
        png: The picture.
        source: "picture" or "json".
    """

    meta: dict[str, Any]
    png: bytes = field(repr=False)
    source: str


# ------------------------------------------------------------------------------------- writing


def meta_of(
    request: ResolvedRequest,
    *,
    seed: int,
    date: datetime | None = None,
    model_hash: str | None = None,
    hashes: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The `meta` object of one picture, with the pictures that it was made from, `bare`.

    Args:
        request: The request as it ran.
        seed: The picture's own seed, which makes it again alone: the number of pictures is left
            out.
        date: When it was made.
        model_hash: First 10 hex digits of the checkpoint's sha256, where known.
        hashes: Of what changed the model, as in `GenerationResult`.
    """
    meta = noted(changed_pictures(request, bare)) | {"seed": str(seed)}
    if date is not None:
        meta["date"] = date.isoformat(timespec="seconds")
    if hashes:
        meta["hashes"] = dict(hashes)
    return meta if model_hash is None else meta | {"model_hash": model_hash}


def finished(
    made: GeneratedImage,
    result: GenerationResult,
    *,
    sampler_label: str,
    date: datetime | None = None,
) -> tuple[dict[str, Any], bytes]:
    """The `meta` object and the PNG of a finished picture.

    Without a `date`, equal requests give equal bytes: the date, the caller's pictures and the
    hashes of model and VAE, which are known only some time after these, are left out.

    Args:
        made: The picture, one of `result`.
        result: What the engine made.
        sampler_label: The sampler in A1111's spelling, for the infotext.
        date: When it was made.
    """
    model_hash = None if date is None else result.model_hash
    hashes = {name: value for name, value in result.hashes.items() if date or name != "vae"}
    request = result.request
    if made.subseed is not None:
        request = replace(request, subseed=made.subseed)
    told = request if date else without_pictures(request)
    meta = meta_of(told, seed=made.seed, date=date, model_hash=model_hash, hashes=hashes)
    infotext = write_infotext(
        request,
        seed=made.seed,
        sampler_label=sampler_label,
        model_hash=model_hash,
        version=f"Imagine {version()}",
        hashes=hashes,
    )
    return meta, png_bytes(made.image, meta, infotext=infotext, png=made.png)


def png_bytes(
    image: Image.Image,
    meta: Mapping[str, Any] | None,
    *,
    infotext: str | None = None,
    png: bytes | None = None,
) -> bytes:
    """`image` as a PNG with its metadata, for Imagine and for tools that read infotext.

    `png` is the same picture as a PNG, where one exists already: its pixels are not encoded again.
    """
    texts = {}
    if meta is not None:
        texts[META] = json.dumps(meta)  # ASCII, which every reader of tEXt agrees on
    if infotext is not None:
        texts[INFOTEXT] = infotext
    return replace_texts(_encoded(image) if png is None else png, texts)


def _encoded(image: Image.Image) -> bytes:
    buffer = BytesIO()
    # Level 1 is several times faster than the usual 6, for a few per cent of size.
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def document_bytes(meta: Mapping[str, Any], png: bytes) -> bytes:
    """The JSON file of a picture, as `imagine run --meta` writes it."""
    document = {"meta": meta, "out": base64.b64encode(png).decode("ascii")}
    return (json_text(document) + "\n").encode("utf-8")


def json_text(value: object, *, encoding: str = "utf-8") -> str:
    """`value` as JSON for people: indented, and escaped only where `encoding` requires it."""
    text = json.dumps(value, indent=4, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=4)
    return text


# ------------------------------------------------------------------------------------- reading


def read_meta(path: Path) -> dict[str, Any]:
    """The `meta` object of a picture or JSON file; of A1111's pictures, that in their infotext.

    Raises:
        InvalidFile: The file cannot be read or holds no metadata.
    """
    with reading(path) as file:
        if is_png(file.read(8)):
            return png_meta(file)
        file.seek(0)
        data = read_all(file, limit=MAX_FILE)
        return _comment_meta(data) if _has_comment(data) else _document(data)[0]


def read_picture(path: Path) -> PictureFile:
    """The picture and the metadata of a PNG, JPEG, WebP or JSON file.

    Raises:
        InvalidFile: The file cannot be read, or lacks one of the two.
    """
    with reading(path) as file:
        data = read_all(file, limit=MAX_FILE)
        if is_png(data):
            check_png(data)
            return PictureFile(meta=png_meta(file), png=data, source="picture")
        if _has_comment(data):
            meta = _comment_meta(data)
            return PictureFile(meta=meta, png=_as_png(data, meta), source="picture")
        meta, out = _document(data)
        return PictureFile(meta=meta, png=_with_meta(_png(out), meta), source="json")


def infotext_of(data: bytes) -> str | None:
    """The infotext in a PNG, JPEG or WebP as it is written there, or None if there is none.

    Raises:
        InvalidFile: The PNG is damaged, or the text longer than `MAX_INFOTEXT`.
    """
    if not is_png(data):
        found = picture_comment(data)
    else:
        file = BytesIO(data)
        found = read_texts(file, (INFOTEXT,), most=MAX_INFOTEXT).get(INFOTEXT)
        found = found or exif_comment(read_exif(file) or b"")
    if found is not None and len(found) > MAX_INFOTEXT:
        raise InvalidFile(f"its infotext is longer than {MAX_INFOTEXT:,} characters")
    return found


def png_meta(file: BinaryIO) -> dict[str, Any]:
    """The `meta` object of a PNG; raises `InvalidFile` where it has none that can be read."""
    texts = read_texts(file, (META, INFOTEXT))
    if META in texts:
        meta = _loads(texts[META], "its metadata is damaged: it is not JSON")
        if not isinstance(meta, dict):
            raise InvalidFile("its metadata is damaged: it is not an object")
        return meta
    infotext = read_infotext(texts.get(INFOTEXT, ""))
    return infotext or _infotext_meta(exif_comment(read_exif(file) or b""))


def _has_comment(data: bytes) -> bool:
    """Whether its format is one in whose Exif data tools write infotext."""
    return is_jpeg(data) or is_webp(data)


def _comment_meta(data: bytes) -> dict[str, Any]:
    return _infotext_meta(picture_comment(data))


def _infotext_meta(comment: str | None) -> dict[str, Any]:
    meta = read_infotext(comment or "")
    if meta is None:
        raise InvalidFile(
            "it holds no metadata known here: another program made it, or saved it again without"
        )
    return meta


def _as_png(data: bytes, meta: Mapping[str, Any]) -> bytes:
    from imagine_core.pictures.images import load_picture

    try:
        return png_bytes(load_picture(data), meta)
    except ValueError as error:
        raise InvalidFile(f"it {error}") from error


def _document(data: bytes) -> tuple[dict[str, Any], object]:
    """The `meta` and the `out` of a JSON file."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidFile("it is neither a PNG nor JSON") from None
    document = _loads(text, "it is neither a PNG nor JSON")
    meta = document.get("meta") if isinstance(document, dict) else None
    if not isinstance(meta, dict):
        raise InvalidFile("it holds no metadata: it is JSON, but has no object under 'meta'")
    return meta, document.get("out")


def _loads(text: str, problem: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_number)
    except (ValueError, RecursionError):
        raise InvalidFile(problem) from None


def _no_number(written: str) -> None:
    """Refuse NaN and Infinity, which Python's JSON reads and writes, but the standard forbids."""
    raise InvalidFile(f"its metadata is damaged: {written[:20]} is no number")


def _number(written: str) -> float:
    number = float(written)
    if not math.isfinite(number):
        _no_number(written)
    return number


def _png(out: object) -> bytes:
    """The PNG of an `out` value; some clients write a data URL."""
    if out is None:
        raise InvalidFile("it holds no picture: 'out' is missing")
    if not isinstance(out, str):
        raise InvalidFile("its picture is damaged: 'out' is no string")
    if not out.strip():
        raise InvalidFile("it holds no picture: 'out' is empty")
    try:
        png = base64.b64decode(out.partition(",")[2] if out.startswith("data:") else out)
    except ValueError:
        raise InvalidFile("its picture is damaged: 'out' is not base64") from None
    if not is_png(png):
        raise InvalidFile("its picture is not a PNG")
    return png


def _with_meta(png: bytes, meta: Mapping[str, Any]) -> bytes:
    """`png` with `meta` in it; unchanged where it holds that already."""
    check_png(png)
    text = json.dumps(meta)
    if read_texts(BytesIO(png), (META,)).get(META) == text:
        return png
    return replace_texts(png, {META: text})
