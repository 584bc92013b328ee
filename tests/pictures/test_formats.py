"""Pictures in the formats of the web, with the infotext where Imagine and others look for it."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from imagine_core import ResolvedRequest
from imagine_core.pictures.exif import COMMENT, EXIF_IFD
from imagine_core.pictures.formats import MEDIA_TYPES, base64_of, converted, encoded
from imagine_core.pictures.infotext import write_infotext
from imagine_core.pictures.metadata import infotext_of, png_bytes, read_meta

PICTURE = Image.merge(
    "RGB",
    (Image.linear_gradient("L"), Image.radial_gradient("L"), Image.linear_gradient("L").rotate(90)),
)
LOSSY = [to for to in MEDIA_TYPES if to != "png"]


def infotext(prompt: str = "a cat", negative: str = "") -> str:
    request = ResolvedRequest(prompt=prompt, negative_prompt=negative, model="tiny")
    return write_infotext(request, seed=7, sampler_label="Euler", model_hash=None, version="I 1")


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("to", MEDIA_TYPES)
def test_a_picture_is_one_of_its_media_type_and_looks_the_same(to: str) -> None:
    image = opened(encoded(PICTURE, to))
    assert Image.MIME[image.format or ""] == MEDIA_TYPES[to]
    assert (image.size, image.mode) == (PICTURE.size, "RGB")
    difference = np.asarray(ImageChops.difference(image, PICTURE))
    assert difference.mean() < (0.0001 if to == "png" else 2)


@pytest.mark.parametrize("to", LOSSY)
def test_the_quality_decides_over_the_size_and_none_is_the_best(to: str) -> None:
    sizes = [len(encoded(PICTURE, to, quality=quality)) for quality in (0, 25, 50, 75, 100)]
    assert sizes == sorted(set(sizes))
    assert encoded(PICTURE, to) == encoded(PICTURE, to, quality=100)


def test_a_png_is_the_same_at_any_quality() -> None:
    assert encoded(PICTURE, "png", quality=0) == encoded(PICTURE, "png")


@pytest.mark.parametrize(("quality", "kept"), [(100, True), (90, True), (89, False), (50, False)])
def test_a_good_jpeg_keeps_the_colour_of_each_pixel(quality: int, kept: bool) -> None:  # noqa: FBT001
    red = Image.new("RGB", (64, 64), "blue")
    red.paste("red", (0, 0, 33, 64))  # the colours change inside a block of 2 x 2
    image = opened(encoded(red, "jpeg", quality=quality))
    (left, _, _), (right, _, _) = (image.getpixel((x, 32)) for x in (32, 33))  # type: ignore[misc]
    assert (left - right > 240) is kept


@pytest.mark.parametrize("to", LOSSY)
def test_the_infotext_is_read_by_imagine_and_by_pillow(tmp_path: Path, to: str) -> None:
    written = infotext("ein Föhn, кот 猫 🐈", "blurry")
    data = encoded(PICTURE, to, quality=80, infotext=written)
    file = tmp_path / "picture"
    file.write_bytes(data)
    meta = read_meta(file)
    assert infotext_of(data) == written
    assert (meta["prompt"], meta["neg"]) == ("ein Föhn, кот 猫 🐈", "blurry")
    assert meta["seed"] == "7"
    comment = opened(data).getexif().get_ifd(EXIF_IFD)[COMMENT]
    assert comment == b"UNICODE\0" + written.encode("utf-16-be")


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_characters="\0")).map(str.strip), st.sampled_from(LOSSY))
@example("\N{IDEOGRAPHIC SPACE}".join("猫" * 300), "jpeg")
@example("一" * 500, "webp")
def test_any_prompt_comes_back(prompt: str, to: str) -> None:
    image = Image.new("RGB", (8, 8))
    written = infotext(prompt)
    data = encoded(image, to, infotext=written)
    assert infotext_of(data) == written.encode("utf-16", "replace").decode("utf-16")


@pytest.mark.parametrize("to", LOSSY)
@pytest.mark.parametrize("length", [20_000, 32_300, 32_900, 200_000])
def test_a_jpeg_goes_without_an_infotext_that_it_has_no_room_for(to: str, length: int) -> None:
    written = infotext("x" * length)
    data = encoded(PICTURE, to, infotext=written)
    opened(data)
    fits = to == "webp" or length < 32_500
    assert infotext_of(data) == (written if fits else None)


@pytest.mark.parametrize("to", MEDIA_TYPES)
@pytest.mark.parametrize("text", [None, ""])
def test_without_an_infotext_there_is_no_exif_data(to: str, text: str | None) -> None:
    data = encoded(PICTURE, to, infotext=text)
    assert not opened(data).getexif()
    assert infotext_of(data) is None


@pytest.mark.parametrize("to", MEDIA_TYPES)
def test_a_png_keeps_its_infotext_in_another_format(to: str) -> None:
    png = png_bytes(PICTURE, {"prompt": "a cat"}, infotext=infotext())
    data = converted(png, to, quality=90)
    assert infotext_of(data) == infotext()
    assert opened(data).size == PICTURE.size
    if to == "png":
        assert data == png
    else:
        assert data == encoded(PICTURE, to, quality=90, infotext=infotext())


def test_a_png_without_an_infotext_becomes_a_picture_without() -> None:
    assert infotext_of(converted(png_bytes(PICTURE, None), "jpeg")) is None


def test_base64_is_the_usual_one_on_one_line() -> None:
    data = bytes(range(256)) * 3
    assert base64.b64decode(base64_of(data), validate=True) == data
    assert set("+/") <= set(base64_of(data))
