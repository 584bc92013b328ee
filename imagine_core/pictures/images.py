"""The pictures that a client sent: decodes them with bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from imagine_core.errors import FieldError, RequestError
from imagine_core.kinds import SIDE_STEP
from imagine_core.pictures.colours import convert, srgb_transform, without_profile

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageCms import ImageCmsTransform

__all__ = [
    "alpha_of",
    "blamed",
    "fitting_size",
    "load_alpha",
    "load_mask",
    "load_rgb",
    "load_rgba",
    "resized",
    "safe_formats",
]

MAX_PIXELS = 8192 * 8192
"""Of the picture as it was sent. Pillow starts to warn of decompression bombs a little above."""

MAX_SIDE = 1_000_000
"""Longest side of a picture in pixels; resizing a row of millions blocks other requests."""

TOO_LARGE = f"must have at most {MAX_PIXELS:,} pixels, and {MAX_SIDE:,} a side"

UNSAFE_FORMATS = frozenset({"EPS", "WMF", "FPX", "MIC"})
"""Formats that Pillow does not decode itself: EPS starts Ghostscript, a program of its own; the
others need libraries of the system."""

WHITE = "white"
OPAQUE = 255
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = 1
LYING = (5, 6, 7, 8)
"""Orientations in which width and height change places."""

MOST_RATIO = 2.0
DISTORTED = 1.05
"""Ratio between the scales of the two sides from which a picture looks distorted."""


def safe_formats() -> list[str]:
    """The formats of Pillow that it decodes itself."""
    from PIL import Image

    Image.init()
    return [name for name in Image.ID if name not in UNSAFE_FORMATS]


def fitting_size(data: bytes, size: tuple[int, int]) -> tuple[int, int]:
    """A size with about as many pixels as `size` and the proportions of a picture.

    Proportions beyond 2 are cut to that: models draw narrower pictures badly. `data` that is no
    picture has `size`.
    """
    from PIL import Image

    try:
        image, exif = _open(data), Image.Exif()
        _check(image)
        exif.load(image.info.get("exif") or b"")  # `getexif` decodes the pixels of a PNG
        sides = image.size[::-1] if exif.get(ORIENTATION) in LYING else image.size
    except Exception:  # it is refused later, with the reason
        return size
    ratio = min(max(sides[0] / sides[1], 1 / MOST_RATIO), MOST_RATIO)
    height = math.sqrt(size[0] * size[1] / ratio)
    width, height = (round(side / SIDE_STEP) * SIDE_STEP for side in (height * ratio, height))
    return width, height


def load_init_image(data: bytes, width: int, height: int) -> tuple[Image.Image, str | None]:
    """The RGB picture in `data`, at exactly this size, and a remark if that distorts it.

    Of an animation, the first frame; upright, as its EXIF data says; in sRGB, as its ICC profile
    says; see-through parts on white.

    Raises:
        RequestError: `data` is no picture, or one that is too large.
    """
    with blamed("init_image"):
        image = _decode(data)
        transform = srgb_transform(image)
        image = _plain(_upright(image), transform)
    remark = distorted(image.size, (width, height), "the picture to start from")
    # Colours are converted last, so that the work depends on the size of the result alone.
    image = resized(image, (width, height))
    return _on_white(image if transform is None else convert(image, transform)), remark


def load_rgb(data: bytes) -> Image.Image:
    """The picture in `data` at its own size, in RGB, as `load_init_image` reads it.

    Raises:
        ValueError: `data` is no picture, or one that is too large, with a reason for people.
    """
    return _on_white(load_rgba(data))


def load_rgba(data: bytes) -> Image.Image:
    """As `load_rgb`, in RGBA where the picture may have transparency.

    Raises:
        ValueError: `data` is no picture, or one that is too large, with a reason for people.
    """
    image = _decode(data)
    transform = srgb_transform(image)
    image = _plain(_upright(image), transform)
    return image if transform is None else convert(image, transform)


def load_mask(data: bytes) -> Image.Image:
    """The mask in `data` at its own size, in 8 bits of grey: 255 repaints.

    Transparent parts repaint, where there are any: so paint programs and OpenAI's API have masks.
    Otherwise white ones do.

    Raises:
        ValueError: `data` is no picture, or one that is too large, with a reason for people.
    """
    from PIL import ImageOps

    image = _plain(_upright(_decode(data)), None)
    alpha = alpha_of(image)
    return image.convert("L") if alpha is None else ImageOps.invert(alpha)


def load_alpha(data: bytes) -> Image.Image | None:
    """How opaque the picture in `data` is at each place, 255 for wholly; None if it is everywhere.

    Raises:
        ValueError: `data` is no picture, or one that is too large, with a reason for people.
    """
    return alpha_of(_plain(_upright(_decode(data)), None))


def alpha_of(image: Image.Image) -> Image.Image | None:
    """How opaque an image in RGB or RGBA is; None if it is wholly so everywhere."""
    if image.mode != "RGBA":
        return None
    alpha = image.getchannel("A")
    return None if alpha.getextrema() == (OPAQUE, OPAQUE) else alpha


@contextmanager
def blamed(field: str) -> Iterator[None]:
    """Turn the reason why a picture cannot be read into an error of the field that it came in."""
    try:
        yield
    except ValueError as error:
        raise RequestError([FieldError(field, str(error))]) from error


def distorted(before: tuple[int, int], after: tuple[int, int], what: str) -> str | None:
    """A remark on a picture that is scaled to other proportions."""
    if 1 / DISTORTED < before[0] * after[1] / (before[1] * after[0]) < DISTORTED:
        return None
    sizes = f"from {before[0]} x {before[1]} to {after[0]} x {after[1]} pixels"
    return f"{what} is distorted, {sizes}"


def load_picture(data: bytes) -> Image.Image:
    """The picture in `data`, upright, in 8-bit RGB or RGBA, with its colour profile.

    Raises:
        ValueError: `data` is no picture, or one that is too large, with a reason for people.
    """
    image = _decode(data)
    transform = srgb_transform(image)
    image = _upright(image)
    if image.mode in {"RGB", "RGBA"}:
        return image
    plain = _plain(image, transform)  # the profile speaks of the colours before
    plain = plain if transform is None else convert(plain, transform)
    plain.info.pop("icc_profile", None)
    return plain


def _decode(data: bytes) -> Image.Image:
    """The picture as it is stored; raises ValueError with a reason to show."""
    with _reasons():
        image = _open(data)
        _check(image)
        image.load()
        _check(image)  # containers (ICO, ICNS) know their size only now
    return image


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn whatever Pillow raises for a picture into a ValueError with a reason to show."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except UnidentifiedImageError:
        raise ValueError("is not a picture in a format that is known here") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(TOO_LARGE) from None
    except _Refused:
        raise
    except MemoryError:
        raise ValueError("takes more memory than there is") from None
    except Exception as error:  # decoders raise whatever broken bytes lead them to
        raise ValueError(f"is a broken picture: {_what_broke(error)}") from error


def _open(data: bytes) -> Image.Image:
    """The picture before its pixels are decoded.

    Pillow refuses a PNG for a profile that it cannot unpack, or that is larger than a megabyte;
    such a picture is opened without.
    """
    from io import BytesIO

    from PIL import Image, UnidentifiedImageError

    formats = safe_formats()
    try:
        return Image.open(BytesIO(data), formats=formats)
    except (ValueError, UnidentifiedImageError):
        bare = without_profile(data)
        if bare is None:
            raise
        return Image.open(BytesIO(bare), formats=formats)


def _what_broke(error: Exception) -> str:
    """A reason in place of the decoder's own, like `unpack requires a buffer of 4 bytes`.

    A file that ends too early is told apart: an upload that broke off can be sent again.
    """
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return "it ends too early; is the file whole?"
    return "its data is damaged"


class _Refused(ValueError):
    """A whole picture that is not accepted."""


def _check(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise _Refused(TOO_LARGE)
    if image.mode == "F":
        raise _Refused("has floating-point pixels, which say nothing of their range; use 8 bits")


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF data says; broken data is ignored."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def orientation(data: bytes) -> int:
    """How the picture in `data` is turned, as Exif numbers it: 1 .. 8, 1 for upright."""
    try:
        return _orientation(_open(data))
    except Exception:  # it is no picture
        return UPRIGHT


def _orientation(image: Image.Image) -> int:
    try:
        found = int(image.getexif().get(ORIENTATION, UPRIGHT))
    except Exception:  # as for the picture itself
        return UPRIGHT
    return found if UPRIGHT <= found <= LYING[-1] else UPRIGHT


def _plain(image: Image.Image, transform: ImageCmsTransform | None) -> Image.Image:
    """The picture in 8-bit RGB, or RGBA if it has transparency; in CMYK if a profile reads that."""
    if transform is not None and transform.input_mode == "CMYK":
        return image
    if image.mode.startswith("I"):  # 16 bits of grey; converting would clip, not scale
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    alpha = image.mode.endswith(("A", "a")) or "transparency" in image.info
    wanted = "RGBA" if alpha else "RGB"
    with _reasons():  # a palette's transparency is read only now
        return image if image.mode == wanted else image.convert(wanted)


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode == "RGB":
        return image
    canvas = Image.new("RGBA", image.size, WHITE)
    canvas.alpha_composite(image)
    return canvas.convert("RGB")


def held_by(images: Iterable[Image.Image]) -> int:
    """Bytes of decoded pictures, each counted once: Pillow takes four a pixel, and one of grey."""
    each = {id(image): image for image in images}.values()
    return sum(image.width * image.height * (1 if image.mode == "L" else 4) for image in each)


def resized(image: Image.Image, size: tuple[int, int], *, kernel: str = "LANCZOS") -> Image.Image:
    """As a plain resize by one of Pillow's kernels, in two steps.

    Pillow resizes sideways first, so that a picture of 1 x 100,000 pixels would take gigabytes on
    its way to 512 x 512. Shrinking before growing bounds it by the larger of the two pictures.
    """
    from PIL.Image import Resampling

    least = (min(image.width, size[0]), min(image.height, size[1]))
    return image.resize(least, Resampling[kernel]).resize(size, Resampling[kernel])
