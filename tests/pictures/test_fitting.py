"""Pictures in sizes of other proportions, and their transparency."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from imagine_core.pictures.fitting import fitted, load_bounded
from imagine_core.pictures.images import load_alpha
from upscalers import noise


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_what_is_too_much_is_cut_off_on_both_sides() -> None:
    wide = noise(96, 32)
    assert np.array_equal(np.asarray(fitted(wide, (32, 32), crop=True)), np.asarray(wide)[:, 32:64])
    high = noise(16, 64)
    assert np.array_equal(np.asarray(fitted(high, (16, 16), crop=True)), np.asarray(high)[24:40])


def test_where_something_is_missing_the_edges_are_repeated() -> None:
    wide = noise(64, 32)
    found = np.asarray(fitted(wide, (64, 64), crop=False))
    assert np.array_equal(found[16:48], np.asarray(wide))
    assert (found[:16] == np.asarray(wide)[0]).all()
    assert (found[48:] == np.asarray(wide)[-1]).all()
    mask = Image.new("L", (16, 64), 255)
    assert (np.asarray(fitted(mask, (64, 64), crop=False)) == 255).all()


@pytest.mark.parametrize("crop", ["crop", ""])
@pytest.mark.parametrize("before", [(1, 1), (1, 1000), (1000, 1), (7, 5), (300, 200)])
@pytest.mark.parametrize("after", [(64, 64), (8, 512), (513, 7)])
def test_the_size_is_exact_whatever_the_proportions(
    before: tuple[int, int], after: tuple[int, int], crop: str
) -> None:
    assert fitted(Image.new("RGB", before), after, crop=bool(crop)).size == after


def test_a_picture_of_more_pixels_is_scaled_down_and_others_are_not() -> None:
    small = noise(32, 16)
    assert np.array_equal(np.asarray(load_bounded(encoded(small), 512)), np.asarray(small))
    assert load_bounded(encoded(noise(64, 32)), 512).size == (32, 16)
    assert load_bounded(encoded(noise(4000, 1)), 100).size[1] == 1


def test_only_pictures_that_are_somewhere_transparent_have_an_alpha() -> None:
    whole = noise(8, 8).convert("RGBA")
    assert load_alpha(encoded(whole)) is None
    assert load_alpha(encoded(noise(8, 8))) is None
    whole.putpixel((3, 2), (0, 0, 0, 7))
    alpha = load_alpha(encoded(whole))
    assert alpha is not None
    assert np.asarray(alpha)[2, 3] == 7
    assert np.asarray(alpha).sum() == 255 * 63 + 7
    palette = Image.new("P", (4, 4))
    buffer = io.BytesIO()
    palette.save(buffer, "GIF", transparency=0)
    clear = load_alpha(buffer.getvalue())
    assert clear is not None
    assert clear.getextrema() == (0, 0)
    with pytest.raises(ValueError, match="is not a picture"):
        load_alpha(b"none")
