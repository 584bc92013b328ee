"""The metadata of a picture: what it was made from, inside its PNG or in a JSON file beside it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from imagine_core.errors import InvalidFile
from imagine_core.pictures.files import read_all, reading
from imagine_core.pictures.infotext import read_infotext
from imagine_core.pictures.pngtext import check_png, is_png, read_texts, replace_texts
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
        "original_prompt": request.original_prompt,
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
    with reading(path) as file:
        if is_png(file.read(8)):
            return _png_meta(file)
        file.seek(0)
        return _document(read_all(file, limit=MAX_FILE))[0]


def read_picture(path: Path) -> PictureFile:
    """The picture and the metadata of a PNG or JSON file.

    Raises:
        InvalidFile: The file cannot be read, or lacks one of the two.
    """
    with reading(path) as file:
        data = read_all(file, limit=MAX_FILE)
        if is_png(data):
            check_png(data)
            return PictureFile(meta=_png_meta(file), png=data, source="png")
        meta, out = _document(data)
        return PictureFile(meta=meta, png=_with_meta(_png(out), meta), source="json")


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
        except (TypeError, ValueError, OverflowError):
            wrong.append(f"{key!r} must be {wanted.what}")
    if "prompt" not in values:
        wrong.append("'prompt' is missing")
    if wrong:
        raise InvalidFile("the metadata makes no sense: " + ", ".join(wrong))
    return GenerationRequest(**values)


def _png_meta(file: BinaryIO) -> dict[str, Any]:
    texts = read_texts(file, (META, INFOTEXT))
    if META in texts:
        meta = _loads(texts[META], "its metadata is damaged: it is not JSON")
        if not isinstance(meta, dict):
            raise InvalidFile("its metadata is damaged: it is not an object")
        return meta
    foreign = read_infotext(texts.get(INFOTEXT, ""))
    if foreign is None:
        raise InvalidFile(
            "it holds no metadata: another program made it, or saved it again without"
        )
    return foreign


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
    """Python's own JSON has NaN and Infinity; nobody else could read what we made of them."""
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
    """`png` with `meta` in it; the same bytes where that is what it holds already."""
    from io import BytesIO

    check_png(png)
    text = json.dumps(meta)
    if read_texts(BytesIO(png), (META,)).get(META) == text:
        return png
    return replace_texts(png, {META: text})


# -------------------------------------------------------------------------------------- fields


class _Field(NamedTuple):
    name: str
    what: str
    read: Callable[[Any], Any]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    number = int(value)
    if isinstance(value, bool) or (isinstance(value, float) and number != value):
        raise ValueError
    return number


def _decimal(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError
    return number


def _bytes(value: Any) -> bytes:
    text = _text(value)
    return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


_FIELDS = {
    "model": _Field("model", "a name", _text),
    "prompt": _Field("prompt", "text", _text),
    "width": _Field("width", "a whole number", _whole),
    "height": _Field("height", "a whole number", _whole),
    "steps": _Field("steps", "a whole number", _whole),
    "guidance": _Field("guidance_scale", "a number", _decimal),
    "sampler": _Field("sampler", "a name", _text),
    "seed": _Field("seed", "a whole number", _whole),
    "neg": _Field("negative_prompt", "text", _text),
    "clip": _Field("clip_skip", "a whole number", _whole),
    "stream": _Field("preview_every", "a whole number", _whole),
    "img": _Field("init_image", "base64", _bytes),
    "strength": _Field("strength", "a number", _decimal),
    "schedule": _Field("noise_schedule", "a name", _text),
    "hires": _Field("hires_scale", "a number", _decimal),
    "deterministic": _Field("deterministic", "true or false", _flag),
    "original_prompt": _Field("original_prompt", "text", _text),
}
