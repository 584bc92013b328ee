"""Colour profiles of pictures to start from, against the formulas of the colour spaces."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

import profiles
from imagine_core.pictures.images import load_init_image, load_picture
from judged import init_image_problem

P3, ADOBE = profiles.display_p3(), profiles.adobe_rgb()
LINEAR_GREY = profiles.grey_profile((1.0,))
INKS = profiles.ink_profile(
    {
        (0, 0, 0, 0): (100, 0, 0),
        (1, 0, 0, 0): (60, -20, -20),
        (0, 1, 0, 0): (50, 40, 0),
        (0, 0, 1, 0): (85, -4, 60),
    }
)

# Lab to sRGB by the formulas of CIE 15, with the blackest ink and paper moved to black and white
# in XYZ, gives the colours of these inks that are expected below.
# P3 and Adobe RGB as IEC 61966-2.1, SMPTE EG 432-1 and the Adobe RGB (1998) specification have it:
# to linear light, by the primaries to sRGB's, what lies outside cut off, and sRGB's curve.
KNOWN = [
    (P3, (255, 0, 0), (255, 0, 0)),
    (P3, (200, 100, 50), (215, 93, 31)),
    (P3, (100, 150, 100), (83, 152, 95)),
    (P3, (90, 120, 200), (81, 121, 206)),
    (P3, (128, 128, 128), (128, 128, 128)),
    (ADOBE, (0, 255, 0), (0, 255, 0)),
    (ADOBE, (200, 100, 50), (227, 100, 42)),
    (ADOBE, (100, 150, 100), (66, 151, 97)),
    (ADOBE, (128, 128, 128), (129, 129, 129)),
    (ADOBE, (255, 255, 255), (255, 255, 255)),
]
STORED, SHOWN = (200, 100, 50), (215, 93, 31)  # in P3, in sRGB


def tagged(image: Image.Image, profile: bytes, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, icc_profile=profile, **options)
    return buffer.getvalue()


def shown(data: bytes) -> tuple[int, ...]:
    """The colour that a picture of 16 x 16 pixels has in its middle."""
    image, _ = load_init_image(data, 16, 16)
    assert image.mode == "RGB"
    pixel = image.getpixel((8, 8))
    assert isinstance(pixel, tuple)
    return pixel


def near(pixel: tuple[int, ...], expected: tuple[int, ...], within: int = 1) -> bool:
    return len(pixel) == len(expected) and all(
        abs(one - other) <= within for one, other in zip(pixel, expected, strict=True)
    )


def plain(mode: str = "RGB", colour: Any = STORED) -> Image.Image:
    return Image.new(mode, (16, 16), colour)


@pytest.mark.parametrize(("profile", "stored", "expected"), KNOWN)
def test_a_colour_is_the_one_that_the_profile_means(
    profile: bytes, stored: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert near(shown(tagged(plain(colour=stored), profile)), expected)


def to_srgb(
    colour: tuple[int, ...], primaries: Any, linear: Callable[[Any], Any]
) -> tuple[int, ...]:
    """The same from the primaries' chromaticities, without any profile."""

    def matrix(points: Any) -> Any:
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in points]).T
        white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
        return columns * np.linalg.solve(columns, white)

    light = matrix(primaries) @ linear(np.array(colour) / 255)
    light = np.linalg.solve(matrix([(0.64, 0.33), (0.3, 0.6), (0.15, 0.06)]), light).clip(0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return tuple(round(float(value) * 255) for value in encoded)


def test_every_colour_of_a_whole_picture_is_converted() -> None:
    cube = [(r, g, b) for r in range(0, 256, 51) for g in range(0, 256, 51) for b in (0, 77, 255)]
    image = Image.new("RGB", (len(cube), 1))
    image.putdata(cube)
    converted = load_init_image(tagged(image, P3), len(cube), 1)[0]
    primaries = [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)]

    def linear(value: Any) -> Any:
        return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)

    for place, colour in enumerate(cube):
        pixel = converted.getpixel((place, 0))
        assert near(pixel, to_srgb(colour, primaries, linear), within=2), colour  # type: ignore[arg-type]


FORMATS = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {"quality": 98, "subsampling": 0}),
    "webp": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
    "avif": ("AVIF", {"quality": 98, "subsampling": "4:4:4"}),
}


@pytest.mark.parametrize(("kind", "options"), FORMATS.values(), ids=FORMATS)
def test_every_format_that_carries_a_profile_is_read_with_it(
    kind: str, options: dict[str, Any]
) -> None:
    assert near(shown(tagged(plain(), P3, kind, **options)), SHOWN, within=3)


def test_a_profile_in_several_segments_of_a_jpeg_is_put_together() -> None:
    long = profiles.rgb_profile(
        [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)], profiles.SRGB_CURVE, padding=200_000
    )
    data = tagged(plain(), long, "JPEG", quality=98, subsampling=0)
    assert data.count(b"ICC_PROFILE\0") == 4
    assert near(shown(data), SHOWN, within=3)


def palette() -> Image.Image:
    image = plain("P", 0)
    image.putpalette([*STORED, 0, 0, 0])
    return image


MODES: dict[str, tuple[Image.Image, bytes, str, tuple[int, ...]]] = {
    "palette": (palette(), P3, "PNG", SHOWN),
    "alpha": (plain("RGBA", (*STORED, 255)), P3, "PNG", SHOWN),
    "grey": (plain("L", 128), LINEAR_GREY, "PNG", (188, 188, 188)),
    "grey, alpha": (plain("LA", (128, 255)), LINEAR_GREY, "PNG", (188, 188, 188)),
    "grey, 16 bits": (plain("I;16", 0x8000), LINEAR_GREY, "PNG", (188, 188, 188)),
    "grey, as colour": (plain("L", 128), ADOBE, "JPEG", (129, 129, 129)),
    "black and white": (plain("1", 1), LINEAR_GREY, "PNG", (255, 255, 255)),
    "paper": (plain("CMYK", (0, 0, 0, 0)), INKS, "TIFF", (255, 255, 255)),
    "cyan": (plain("CMYK", (255, 0, 0, 0)), INKS, "TIFF", (66, 153, 177)),
    "magenta": (plain("CMYK", (0, 255, 0, 0)), INKS, "JPEG", (177, 80, 116)),
    "black": (plain("CMYK", (0, 0, 0, 255)), INKS, "TIFF", (0, 0, 0)),
}


@pytest.mark.parametrize(("image", "profile", "kind", "expected"), MODES.values(), ids=MODES)
def test_pictures_of_every_mode_are_converted(
    image: Image.Image, profile: bytes, kind: str, expected: tuple[int, ...]
) -> None:
    assert near(shown(tagged(image, profile, kind)), expected, within=3)


def test_see_through_parts_stay_so_and_white_is_srgbs() -> None:
    image = plain("RGBA", (*STORED, 0))
    image.paste((*STORED, 255), (0, 0, 16, 4))
    image.paste((*STORED, 128), (0, 4, 16, 8))
    result, _ = load_init_image(tagged(image, P3), 16, 16)
    half = tuple(round(value * 128 / 255 + 127) for value in SHOWN)
    assert near(result.getpixel((8, 1)), SHOWN)  # type: ignore[arg-type]
    assert near(result.getpixel((8, 6)), half)  # type: ignore[arg-type]
    assert result.getpixel((8, 14)) == (255, 255, 255)
    key = tagged(palette(), P3, transparency=0)
    assert shown(key) == (255, 255, 255)


def test_an_animations_first_frame_has_its_profile() -> None:
    frames = [plain(), plain(colour="blue")]
    data = tagged(frames[0], P3, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert near(shown(data), SHOWN)


def test_a_photograph_that_is_turned_keeps_its_profile() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert near(shown(tagged(plain(), P3, exif=exif)), SHOWN)


def test_a_picture_that_is_tagged_as_srgb_is_untouched() -> None:
    image = Image.effect_noise((64, 48), 80).convert("RGB")
    for profile in (
        profiles.srgb(),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ):
        assert load_init_image(tagged(image, profile), 64, 48)[0].tobytes() == image.tobytes()


# ------------------------------------------------------------------------------ what is ignored

IGNORED: dict[str, tuple[Image.Image, bytes]] = {
    "empty": (plain(), b""),
    "nonsense": (plain(), b"not a profile" * 20),
    "cut off": (plain(), P3[: len(P3) // 2]),
    "header alone": (plain(), P3[:128]),
    "grey for colours": (plain(), LINEAR_GREY),
    "inks for colours": (plain(), INKS),
    "a link between devices": (
        plain(),
        profiles.rgb_profile(profiles.SRGB_PRIMARIES, (1.0,), kind=b"link"),
    ),
    "an effect": (plain(), profiles.rgb_profile(profiles.SRGB_PRIMARIES, (1.0,), kind=b"abst")),
    "colours for inks": (plain("CMYK", (55, 155, 205, 0)), P3),
}


@pytest.mark.parametrize(("image", "profile"), IGNORED.values(), ids=IGNORED)
def test_a_profile_that_says_nothing_of_the_picture_is_ignored(
    image: Image.Image, profile: bytes
) -> None:
    data = tagged(image, profile, "TIFF")
    assert init_image_problem(data) is None
    assert shown(data) == STORED


@pytest.mark.parametrize(("mode", "colour"), [("L", 100), ("LA", (100, 255)), ("I;16", 25700)])
def test_a_grey_picture_ignores_a_profile_of_three_channels(mode: str, colour: Any) -> None:
    assert near(shown(tagged(plain(mode, colour), ADOBE)), (100, 100, 100), within=0)


def test_a_picture_that_changes_its_mode_is_converted_by_its_profile() -> None:
    kept = load_picture(tagged(plain("L", 100), LINEAR_GREY))
    assert (kept.mode, "icc_profile" in kept.info) == ("RGB", False)
    assert kept.getpixel((8, 8)) == shown(tagged(plain("L", 100), LINEAR_GREY))
    untouched = load_picture(tagged(plain(), P3))
    assert untouched.getpixel((8, 8)) == STORED
    assert untouched.info["icc_profile"] == P3


def test_no_broken_byte_of_a_profile_is_an_error() -> None:
    for place in range(0, len(P3), 3):
        broken = bytearray(P3)
        broken[place] ^= 0xFF
        assert len(shown(tagged(plain(), bytes(broken), "TIFF"))) == 3


def with_chunk(content: bytes) -> bytes:
    """A PNG whose iCCP chunk has this content."""
    buffer = BytesIO()
    plain().save(buffer, "PNG")
    png = buffer.getvalue()
    body = b"iCCP" + content
    chunk = struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize(
    "content",
    [
        b"huge\0\0"
        + zlib.compress(profiles.rgb_profile(profiles.SRGB_PRIMARIES, (1.0,)) + bytes(2**21)),
        b"method 9\0\x09" + zlib.compress(P3),
        b"no zlib\0\0" + P3,
        b"",
    ],
    ids=["larger than Pillow reads", "unknown compression", "not compressed", "empty"],
)
def test_a_png_whose_profile_cannot_be_unpacked_is_a_picture_all_the_same(content: bytes) -> None:
    data = with_chunk(content)
    assert init_image_problem(data) is None
    assert shown(data) == STORED


def test_without_littlecms_the_picture_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL._util import DeferredError

    monkeypatch.setattr(ImageCms, "core", DeferredError(ImportError("no LittleCMS")))
    assert shown(tagged(plain(), P3)) == STORED


def test_the_conversion_takes_no_more_memory_than_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []
    apply = ImageCms.ImageCmsTransform.apply

    def noting(self: Any, image: Image.Image, *args: Any) -> Image.Image:
        sizes.append(image.size)
        return apply(self, image, *args)

    monkeypatch.setattr(ImageCms.ImageCmsTransform, "apply", noting)
    load_init_image(tagged(Image.new("RGB", (3000, 2000), STORED), P3), 32, 16)
    assert sizes[-1] == (32, 16)
    assert max(width * height for width, height in sizes) <= 512
