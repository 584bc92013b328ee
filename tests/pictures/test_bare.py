"""Pictures without their metadata have the same pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from imagine_core.pictures.bare import bare
from imagine_core.pictures.images import load_mask, load_rgb
from sent_pictures import encoded, noise

SECRET = "Steps: 20, a secret " * 50
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(turn: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = turn
    found[0x010E] = SECRET
    return found


def texts() -> PngInfo:
    info = PngInfo()
    info.add_text("meta", SECRET)
    info.add_itxt("parameters", SECRET)
    info.add_text("zipped", SECRET, zip=True)
    return info


def told(form: str, turn: int, **options: Any) -> bytes:
    own: dict[str, Any] = {"pnginfo": texts()} if form == "PNG" else {"xmp": SECRET.encode()}
    if form == "JPEG":
        own["comment"] = SECRET
    return encoded(options.pop("image", noise((24, 40))), form, exif=exif(turn), **own, **options)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("PNG", {"icc_profile": PROFILE}),
        ("PNG", {"image": noise((24, 40)).convert("P"), "transparency": 3}),
        ("PNG", {"save_all": True, "append_images": [noise((24, 40), 1)]}),
        ("JPEG", {"quality": 90, "icc_profile": PROFILE}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"image": noise((24, 40)).convert("CMYK")}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 80, "icc_profile": PROFILE}),
        ("WEBP", {"image": noise((24, 40)).convert("RGBA")}),
    ],
)
def test_a_bare_picture_has_the_same_pixels_upright_and_says_nothing_else(
    form: str, options: dict[str, Any], turn: int
) -> None:
    data = told(form, turn, **options) + SECRET.encode()  # some write behind the end as well
    found = bare(data)
    assert len(found) < len(data) - 2 * len(SECRET)
    for read in (load_rgb, load_mask):
        assert (np.asarray(read(found)) == np.asarray(read(data))).all()
    image = Image.open(io.BytesIO(found))
    assert image.format == form
    assert image.info.get("icc_profile") == options.get("icc_profile")
    assert b"secret" not in found
    assert dict(image.getexif()) == ({} if turn == 1 else {0x0112: turn})
    assert bare(found) == found


def test_the_turn_that_xmp_tells_stays() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(noise((24, 40)), "JPEG", xmp=xmp)
    assert load_rgb(data).size == (40, 24)
    assert load_rgb(bare(data)).size == (40, 24)
    assert b"xmpmeta" not in bare(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_broken_picture_comes_back_as_it_is(form: str) -> None:
    data = told(form, 6)
    for end in range(12, len(data) - 40, 97):
        assert bare(data[:end]) == data[:end]


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF"])
def test_a_picture_of_another_format_comes_back_as_it_is(form: str) -> None:
    data = encoded(noise(), form)
    assert bare(data) == data
    assert bare(b"") == b""
