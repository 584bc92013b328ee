"""The picture to start from: a client's file is a picture or refused in words."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from imagine_core.errors import RequestError
from imagine_core.pictures import images
from imagine_core.pictures.images import (
    fitting_size,
    load_alpha,
    load_init_image,
    load_mask,
    load_rgb,
)
from judged import init_image_problem

# Pillow warns of odd files; a server shows the first of each kind and goes on.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(mode: str = "RGB") -> Image.Image:
    """Red above, blue below; 32 wide, 64 high."""
    image = Image.new("RGB", (32, 64), "red")
    image.paste("blue", (0, 32, 32, 64))
    return image.convert(mode)


def near(pixel: Any, expected: tuple[int, int, int]) -> bool:
    return all(abs(a - b) <= 12 for a, b in zip(pixel, expected, strict=True))


RED, BLUE, WHITE = (254, 0, 0), (0, 0, 254), (255, 255, 255)


def load(data: bytes, width: int, height: int) -> Image.Image:
    return load_init_image(data, width, height)[0]


@pytest.mark.parametrize(
    "data",
    [
        encoded(halves()),
        encoded(halves(), "JPEG", quality=95, subsampling=0),
        encoded(halves("CMYK"), "JPEG", quality=95),
        encoded(halves(), "WEBP", lossless=True),
        encoded(halves(), "BMP"),
        encoded(halves(), "TIFF"),
        encoded(halves("CMYK"), "TIFF"),
        encoded(halves("P"), "GIF"),
        encoded(halves("RGBA"), "PNG"),
        encoded(halves("P"), "PNG"),
    ],
    ids=["png", "jpeg", "cmyk-jpeg", "webp", "bmp", "tiff", "cmyk-tiff", "gif", "rgba", "palette"],
)
def test_a_picture_in_any_usual_format_keeps_its_colours(data: bytes) -> None:
    assert init_image_problem(data) is None
    image = load(data, 64, 128)
    assert (image.mode, image.size) == ("RGB", (64, 128))
    assert near(image.getpixel((32, 20)), RED)
    assert near(image.getpixel((32, 100)), BLUE)


def test_a_picture_of_the_right_size_is_untouched() -> None:
    image = Image.effect_noise((64, 48), 80).convert("RGB")
    assert load(encoded(image), 64, 48).tobytes() == image.tobytes()


@pytest.mark.parametrize("size", [(16, 24), (128, 96), (200, 30)])
def test_the_size_is_made_as_a_plain_resize_does(size: tuple[int, int]) -> None:
    image = Image.effect_noise((64, 48), 80).convert("RGB")
    plain = image.resize(size, Image.Resampling.LANCZOS)
    ours = load(encoded(image), *size)
    difference = ImageChops.difference(plain, ours)
    # Where one side shrinks and the other grows, Pillow clips between the two passes, and which of
    # them is the first depends on its version. Bicubic is 6 away.
    allowed = 1.0 if size == (200, 30) else 0.0
    assert max(ImageStat.Stat(difference).mean) <= allowed


@pytest.mark.parametrize(
    ("size", "remark"),
    [
        ((192, 128), None),
        ((96, 62), None),  # invisible
        ((64, 64), "the picture to start from is distorted, from 96 x 64 to 64 x 64 pixels"),
        ((192, 64), "the picture to start from is distorted, from 96 x 64 to 192 x 64 pixels"),
    ],
)
def test_a_picture_that_is_distorted_is_remarked_on(
    size: tuple[int, int], remark: str | None
) -> None:
    data = encoded(Image.new("RGB", (96, 64)))
    assert load_init_image(data, *size)[1] == remark


def test_see_through_parts_are_white() -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert load(encoded(image), 64, 64).getpixel((5, 5)) == WHITE
    palette = Image.new("P", (64, 64), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert load(encoded(palette, transparency=0), 64, 64).getpixel((5, 5)) == WHITE


def test_see_through_edges_do_not_bleed_the_colour_that_nobody_sees() -> None:
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 32, 64))
    small = load(encoded(image), 16, 16)
    for x in range(16):
        red, green, blue = small.getpixel((x, 8))  # type: ignore[misc]
        assert abs(green - blue) <= 3, (x, red, green, blue)


def test_sixteen_bits_of_grey_are_scaled_not_clipped() -> None:
    image = Image.new("I;16", (64, 64), 0x8000)
    assert load(encoded(image), 64, 64).getpixel((5, 5)) == (128, 128, 128)


def test_floating_point_pixels_are_refused() -> None:
    problem = init_image_problem(encoded(Image.new("F", (64, 64), 0.5), "TIFF"))
    assert problem is not None
    assert "floating-point" in problem


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright(orientation: int) -> None:
    """Orientation says how the stored picture must be turned; the shown one is the same."""
    shown = Image.new("RGB", (64, 32), "blue")
    shown.paste("red", (0, 0, 32, 16))  # top left
    turn = Image.Transpose
    inverse = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_90,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_270,
    }
    stored = shown if orientation == 1 else shown.transpose(inverse[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = load(encoded(stored, "PNG", exif=exif), 64, 32)
    assert near(image.getpixel((8, 8)), (255, 0, 0))
    assert near(image.getpixel((56, 8)), (0, 0, 255))
    assert near(image.getpixel((8, 28)), (0, 0, 255))


def test_broken_orientation_data_does_not_spoil_the_picture() -> None:
    data = encoded(halves(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert load(data, 32, 64).size == (32, 64)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "green")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert near(load(data, 64, 64).getpixel((9, 9)), (255, 0, 0))


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"<!doctype html><p>not found",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(x) show\n",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>',
        b"%PDF-1.4",
    ],
    ids=["empty", "nul", "html", "eps", "svg", "pdf"],
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    assert init_image_problem(data) == "is not a picture in a format that is known here"
    with pytest.raises(RequestError) as caught:
        load(data, 64, 64)
    assert [error.field for error in caught.value.fields] == ["init_image"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
def test_a_picture_that_breaks_off_is_refused(kind: str) -> None:
    noise = Image.effect_noise((256, 256), 90)
    data = encoded(noise, kind)
    problem = init_image_problem(data[: len(data) // 2])
    assert problem in {
        "is a broken picture: it ends too early; is the file whole?",
        "is a broken picture: its data is damaged",
        "is not a picture in a format that is known here",
    }


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "ICO", "TGA"])
def test_no_broken_byte_is_more_than_a_refusal(kind: str) -> None:
    data = encoded(Image.effect_noise((32, 32), 90).convert("RGB"), kind)
    for place in range(0, len(data), max(1, len(data) // 150)):
        broken = bytearray(data)
        broken[place] ^= 0xFF
        problem = init_image_problem(bytes(broken))
        assert problem is None or "Error" not in problem  # no name of a Python class


def test_an_upload_that_broke_off_is_told_from_a_damaged_one() -> None:
    data = encoded(Image.effect_noise((256, 256), 90), "JPEG")
    assert "ends too early" in str(init_image_problem(data[: len(data) // 2]))
    damaged = bytearray(encoded(Image.effect_noise((64, 64), 90)))
    damaged[60:90] = b"x" * 30
    assert "its data is damaged" in str(init_image_problem(bytes(damaged)))


def test_a_palette_whose_transparency_is_too_long_is_damaged() -> None:
    data = encoded(Image.new("P", (64, 64)))
    kind = b"tRNS" + bytes(257)
    chunk = struct.pack(">I", 257) + kind + struct.pack(">I", zlib.crc32(kind))
    before = data.index(b"IDAT") - 4
    broken = data[:before] + chunk + data[before:]
    assert init_image_problem(broken) == "is a broken picture: its data is damaged"
    for read in (load_rgb, load_mask, load_alpha):
        with pytest.raises(ValueError, match=r"^is a broken picture: its data is damaged$"):
            read(broken)


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size, and has a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0")), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    "data",
    [
        bomb(8193, 8193),
        bomb(9500, 9500),  # where Pillow warns
        bomb(50_000, 50_000),  # where it raises
        bomb(2**31 - 1, 2**31 - 1),
        encoded(halves("P"), "GIF").replace(b"\x20\x00\x40\x00", b"\xff\xff\xff\xff"),
    ],
    ids=["ours", "warning", "error", "largest", "gif"],
)
def test_a_decompression_bomb_is_refused_before_it_goes_off(data: bytes) -> None:
    problem = init_image_problem(data)
    assert problem is not None
    assert f"{images.MAX_PIXELS:,} pixels" in problem


@pytest.mark.parametrize("size", [(100_000, 1), (1, 100_000), (2, 60_000)])
def test_a_very_long_picture_takes_no_more_memory_than_it_must(size: tuple[int, int]) -> None:
    data = encoded(Image.new("RGB", size, "red"))
    peak = peak_of(lambda: load(data, 512, 512))
    assert peak < 16 * 2**20


def peak_of(work: Callable[[], Image.Image]) -> int:
    """Bytes of the largest picture that `work` makes on its way."""
    sizes: list[int] = []
    resize = Image.Image.resize

    def counting(self: Image.Image, size: Any, *args: Any, **options: Any) -> Image.Image:
        # Pillow resizes sideways first, into a picture as high as the old one.
        sizes.append(size[0] * self.height * 4)
        return resize(self, size, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", counting)
        image = work()
    assert image.size == (512, 512)
    assert near(image.getpixel((256, 256)), (255, 0, 0))
    return max(sizes)


@pytest.mark.parametrize("size", [(1_000_001, 1), (1, 1_000_001)])
def test_a_side_that_would_take_seconds_to_resize_is_refused(size: tuple[int, int]) -> None:
    buffer = BytesIO()
    Image.new("1", size).save(buffer, "PNG")
    assert init_image_problem(buffer.getvalue()) is not None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("turn", "size"), [(1, (360, 728)), (6, (728, 360))])
def test_a_fitting_size_has_the_proportions_of_the_picture_as_it_is_seen(
    kind: str, turn: int, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[images.ORIENTATION] = turn
    assert fitting_size(encoded(halves(), kind, exif=exif), (512, 512)) == size


def test_a_fitting_size_is_found_without_decoding_the_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = encoded(Image.new("RGB", (64, 32)))
    monkeypatch.setattr(Image.Image, "load", None)
    assert fitting_size(whole, (512, 512)) == (728, 360)
    assert fitting_size(b"no picture", (512, 512)) == (512, 512)


def test_a_picture_beyond_the_bound_has_no_fitting_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    assert fitting_size(encoded(halves()), (512, 512)) == (512, 512)
