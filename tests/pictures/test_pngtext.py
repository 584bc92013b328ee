from __future__ import annotations

import io
import random
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imagine_core.errors import InvalidFile
from imagine_core.pictures import pngtext
from imagine_core.pictures.pngtext import check_png, read_exif, read_texts, replace_texts

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def png(info: PngInfo | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def with_chunk(kind: bytes, data: bytes) -> bytes:
    whole, header = png(), 8 + 25
    return whole[:header] + chunk(kind, data) + whole[header:]


def texts(data: bytes) -> dict[str, str]:
    return read_texts(io.BytesIO(data), ("meta",))


@settings(deadline=None)
@given(TEXTS)
def test_a_text_of_ours_is_read_by_us_and_by_pillow(text: str) -> None:
    written = replace_texts(png(), {"meta": text})
    assert texts(written) == {"meta": text}
    image = Image.open(io.BytesIO(written))
    image.load()
    assert image.info["meta"] == text
    assert image.tobytes() == Image.linear_gradient("L").tobytes()


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("text", ["cat", "chat château", "кот 猫 🐈"])
def test_every_form_of_text_that_pillow_writes_is_read(text: str, *, compressed: bool) -> None:
    info = PngInfo()
    info.add_text("Comment", "not ours")
    info.add_text("meta", text, zip=compressed)
    assert texts(png(info)) == {"meta": text}


def test_utf_8_in_a_text_that_should_be_latin_1_is_read() -> None:
    assert texts(with_chunk(b"tEXt", b"meta\0" + "кот".encode())) == {"meta": "кот"}
    packed = zlib.compress("кот".encode())
    assert texts(with_chunk(b"zTXt", b"meta\0\0" + packed)) == {"meta": "кот"}


def test_letters_of_latin_1_that_could_be_utf_8_are_written_as_utf_8() -> None:
    written = replace_texts(png(), {"meta": "Ã©"})
    assert b"iTXtmeta" in written
    assert texts(written) == {"meta": "Ã©"}
    assert b"tEXtmeta\0\xe9" in replace_texts(png(), {"meta": "é"})


def test_exif_data_is_found_and_checked() -> None:
    assert read_exif(io.BytesIO(png())) is None
    data = with_chunk(b"eXIf", b"MM\0\x2a")
    assert read_exif(io.BytesIO(data)) == b"MM\0\x2a"
    with pytest.raises(InvalidFile, match="checksum of its part 'eXIf'"):
        read_exif(io.BytesIO(data.replace(b"MM\0\x2a", b"MM\0\x2b")))


def test_a_text_replaces_all_of_its_keyword_and_no_other() -> None:
    info = PngInfo()
    for keyword, text in (("meta", "one"), ("Comment", "stays"), ("meta", "two")):
        info.add_text(keyword, text)
    assert texts(png(info)) == {"meta": "two"}
    written = replace_texts(png(info), {"meta": "three"})
    assert written.count(b"meta\0") == 1
    assert read_texts(io.BytesIO(written), ("meta", "Comment")) == {
        "meta": "three",
        "Comment": "stays",
    }


def test_a_text_with_a_nul_or_half_a_surrogate_pair_is_still_a_whole_png() -> None:
    written = replace_texts(png(), {"meta": "a\0b \ud83d c"})
    check_png(written)
    assert texts(written) == {"meta": "a b ? c"}


def test_a_file_of_many_megabytes_is_skipped_over_not_read(tmp_path: Path) -> None:
    class Counting(io.FileIO):
        total = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size) or b""
            self.total += len(data)
            return data

    path = tmp_path / "large.png"
    path.write_bytes(replace_texts(with_chunk(b"IDAT", bytes(20_000_000)), {"meta": "here"}))
    with Counting(path) as file:
        assert read_texts(file, ("meta",)) == {"meta": "here"}
        assert file.total < 1000


def test_a_text_that_unpacks_to_more_than_the_bound_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pngtext, "MAX_TEXT", 100_000)
    bomb = zlib.compress(bytes(10_000_000))
    for data in (
        with_chunk(b"zTXt", b"meta\0\0" + bomb),
        with_chunk(b"iTXt", b"meta\0\1\0\0\0" + bomb),
        with_chunk(b"tEXt", b"meta\0" + bytes(200_000)),
    ):
        with pytest.raises(InvalidFile, match="'meta' of the PNG is too large"):
            texts(data)


@pytest.mark.parametrize(
    "data",
    [
        with_chunk(b"tEXt", b"meta"),
        with_chunk(b"zTXt", b"meta\0\0not zlib"),
        with_chunk(b"zTXt", b"meta\0\0" + zlib.compress(b"cut off")[:-3]),
        with_chunk(b"iTXt", b"meta\0\0\0"),
        with_chunk(b"iTXt", b"meta\0\0\0\0\0\xff\xfe"),
        replace_texts(png(), {"meta": "cat"}).replace(b"cat", b"dog"),
    ],
)
def test_a_damaged_text_is_named(data: bytes) -> None:
    with pytest.raises(InvalidFile, match="the PNG is damaged"):
        texts(data)


def test_a_text_before_the_end_that_is_missing_is_still_read() -> None:
    written = replace_texts(png(), {"meta": "cat"})
    assert texts(written[:-20]) == {"meta": "cat"}
    with pytest.raises(InvalidFile, match="cut off"):
        texts(png()[:-20])
    with pytest.raises(InvalidFile, match="cut off"):
        check_png(written[:-20])


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"GIF89a", b"<html>"])
def test_what_is_no_png_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidFile, match="not a PNG"):
        check_png(data)


def test_a_png_without_its_header_is_damaged() -> None:
    with pytest.raises(InvalidFile, match="does not begin with its header"):
        check_png(pngtext.SIGNATURE + chunk(b"IEND", b""))


def test_noise_raises_nothing_else_than_an_invalid_file() -> None:
    dice = random.Random(0)
    whole = replace_texts(png(), {"meta": "cat"})
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(8, 120)] = dice.randrange(256)
        with suppress(InvalidFile):
            texts(bytes(data))
