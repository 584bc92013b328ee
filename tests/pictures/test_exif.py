from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exif_blocks import BIG, INFOTEXT, SPELLINGS, block, picture_with
from imagine_core.pictures.exif import exif_comment, is_jpeg, is_webp, picture_comment


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
@pytest.mark.parametrize("tool", SPELLINGS)
def test_the_comment_of_each_tool_is_read_out_of_a_picture(tool: str, form: str) -> None:
    data = picture_with(SPELLINGS[tool], form)
    assert (is_jpeg(data), is_webp(data)) == (form == "JPEG", form == "WEBP")
    assert (picture_comment(data) or "").rstrip("\0") == INFOTEXT


def test_letters_of_latin_1_are_read() -> None:
    assert exif_comment(block(b"ASCII\0\0\0" + "ein Kätzchen".encode("latin-1"))) == "ein Kätzchen"


def test_the_comment_of_the_exif_directory_comes_before_that_of_the_first() -> None:
    both = (
        b"MM\0\x2a\0\0\0\x08"
        b"\0\x02"  # two entries
        + (b"\x92\x86\0\x02\0\0\0\x04" + b"one\0")
        + (b"\x87\x69\0\x04\0\0\0\x01" + b"\0\0\0\x22")
        + b"\0\x01"
        + (b"\x92\x86\0\x02\0\0\0\x04" + b"two\0")
    )
    assert exif_comment(both) == "two\0"


def test_what_has_no_comment_gives_none() -> None:
    assert picture_comment(picture_with(block(b""), "JPEG")) is None
    assert picture_comment(b"GIF89a") is None
    assert exif_comment(b"") is None
    assert exif_comment(b"MM") is None


def test_a_jpeg_with_fill_bytes_and_other_segments_is_read() -> None:
    exif = b"Exif\0\0" + block(b"UNICODE\0" + BIG)
    segments = [b"\xe1\0\x08http:\0", b"\xff\xe1" + (len(exif) + 2).to_bytes(2) + exif]
    data = b"\xff\xd8" + b"".join(b"\xff" + segment for segment in segments) + b"\xff\xd9"
    assert picture_comment(data) == INFOTEXT


@settings(deadline=None)
@given(data=st.data())
def test_broken_data_is_read_without_an_error(data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from(WHOLE)))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    picture_comment(cut)
    exif_comment(cut)


WHOLE = [*SPELLINGS.values(), *(picture_with(SPELLINGS["Civitai"], f) for f in ("JPEG", "WEBP"))]
