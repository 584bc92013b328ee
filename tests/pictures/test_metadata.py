from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from exif_blocks import INFOTEXT, PROMPT, SPELLINGS, picture_with
from imagine_core import ResolvedRequest
from imagine_core.errors import InvalidFile
from imagine_core.pictures import metadata
from imagine_core.pictures.metadata import (
    document_bytes,
    infotext_of,
    json_text,
    meta_of,
    png_bytes,
    read_meta,
    read_picture,
)
from imagine_core.pictures.pngtext import replace_texts
from imagine_core.types import ControlUse

DATE = datetime(2023, 10, 27, 15, 30, 45, tzinfo=UTC)
PICTURE = Image.new("RGB", (64, 64), "teal")
REQUEST = ResolvedRequest(prompt="кот 猫 🐈 “hat”", model="tiny", seed=2**64 - 1)
META = meta_of(REQUEST, seed=2**64 - 1, date=DATE)


def save(folder: Path, data: bytes | str) -> Path:
    path = folder / "file"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# ------------------------------------------------------------------------------------- writing


def test_meta_has_the_readmes_fields_in_the_readmes_order_and_then_ours() -> None:
    request = ResolvedRequest(
        prompt="a cat",
        negative_prompt="ugly",
        model="dreamshaper_8",
        width=768,
        guidance_scale=7.5,
        init_image=b"\x89PNG",
        preview_every=1,
        noise_schedule="karras",
        hires_scale=1.5,
        deterministic=True,
    )
    meta = meta_of(request, seed=591445185899376350, date=DATE, model_hash="0123456789")
    assert list(meta.items()) == [
        ("model", "dreamshaper_8"),
        ("prompt", "a cat"),
        ("width", 768),
        ("height", 512),
        ("steps", 25),
        ("guidance", 7.5),
        ("sampler", "dpm++ 2m"),
        ("seed", "591445185899376350"),
        ("neg", "ugly"),
        ("clip", 1),
        ("stream", 1),
        ("img", "iVBORw=="),
        ("strength", 0.8),
        ("schedule", "karras"),
        ("hires", 1.5),
        ("deterministic", True),
        ("date", "2023-10-27T15:30:45+00:00"),
        ("model_hash", "0123456789"),
    ]


def test_a_picture_made_of_a_picture_of_a_picture_carries_one_and_not_their_metadata() -> None:
    data, sizes = png_bytes(PICTURE, None), []
    for _ in range(4):
        hint = ControlUse(name="edges", image=data)
        request = replace(REQUEST, init_image=data, mask=data, controls=(hint, hint))
        meta = meta_of(request, seed=1, date=DATE)
        sent = [meta["img"], meta["mask"], *(each["img"] for each in meta["controls"])]
        assert [base64.b64decode(each) for each in sent] == [png_bytes(PICTURE, None)] * 4
        data = png_bytes(PICTURE, meta, infotext=INFOTEXT)
        sizes.append(len(data))
    assert sizes == sizes[:1] * 4


def test_what_was_not_asked_for_is_null_or_absent() -> None:
    assert META["img"] is None
    assert META["stream"] is None
    assert list(META)[-1] == "date"


def test_a_picture_carries_both_texts_for_any_reader_of_png() -> None:
    infotext = "кот 🐈\nSteps: 25"
    image = Image.open(io.BytesIO(png_bytes(PICTURE, META, infotext=infotext)))
    image.load()
    assert json.loads(image.info["meta"]) == META
    assert image.info["parameters"] == infotext
    assert image.tobytes() == PICTURE.tobytes()


def test_a_picture_without_metadata_has_no_text() -> None:
    image = Image.open(io.BytesIO(png_bytes(PICTURE, None)))
    image.load()
    assert image.info == {}


def test_meta_is_ascii_in_a_png_because_some_readers_take_its_text_for_latin_1() -> None:
    data = png_bytes(PICTURE, META)
    start = data.index(b"tEXtmeta\0")
    assert data[start:].startswith(b'tEXtmeta\0{"model": "tiny", "prompt": "\\u043a\\u043e')


def test_json_for_people_is_escaped_only_where_it_must_be() -> None:
    assert json_text({"a": "é"}) == '{\n    "a": "é"\n}'
    assert json.loads(json_text({"a": "é"}, encoding="ascii")) == {"a": "é"}
    assert json.loads(json_text({"a": "\ud83d"})) == {"a": "\ud83d"}


# ------------------------------------------------------------------------------------- reading


def test_meta_is_read_from_the_content_whatever_the_name(tmp_path: Path) -> None:
    png = png_bytes(PICTURE, META)
    assert read_meta(save(tmp_path, png)) == META
    assert read_meta(save(tmp_path, document_bytes(META, png))) == META
    assert read_meta(save(tmp_path, b"\xef\xbb\xbf" + document_bytes(META, png))) == META


def test_meta_of_another_tools_picture_is_what_its_infotext_says(tmp_path: Path) -> None:
    infotext = "a cat\nSteps: 20, Sampler: Euler a, Seed: 7, Size: 512x768, Model: m"
    meta = read_meta(save(tmp_path, png_bytes(PICTURE, None, infotext=infotext)))
    assert meta["prompt"] == "a cat"
    assert (meta["sampler"], meta["seed"], meta["height"]) == ("euler a", "7", 768)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("tool", SPELLINGS)
def test_infotext_in_exif_data_is_read(tmp_path: Path, tool: str, form: str) -> None:
    path = save(tmp_path, picture_with(SPELLINGS[tool], form))
    meta = read_meta(path)
    assert (meta["prompt"], meta["neg"], meta["seed"]) == (PROMPT, "ugly", "42")
    assert read_picture(path).meta == meta


def test_infotext_in_a_text_of_a_png_comes_before_its_exif_data(tmp_path: Path) -> None:
    png = picture_with(SPELLINGS["Civitai"], "PNG")
    both = replace_texts(png, {"parameters": "a dog\nSteps: 3"})
    assert read_meta(save(tmp_path, both))["prompt"] == "a dog"
    other = replace_texts(png, {"parameters": '{"sui_image_params": {}}'})
    assert read_meta(save(tmp_path, other))["prompt"] == PROMPT


@pytest.mark.parametrize("keyword", ["tEXt", "zTXt", "iTXt"])
def test_infotext_is_read_from_every_kind_of_text(tmp_path: Path, keyword: str) -> None:
    info = PngInfo()
    text = "ein Kätzchen\nSteps: 3"
    if keyword == "iTXt":
        info.add_itxt("parameters", text, zip=True)
    else:
        info.add_text("parameters", text, zip=keyword == "zTXt")
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG", pnginfo=info)
    assert keyword.encode() in buffer.getvalue()
    assert read_meta(save(tmp_path, buffer.getvalue()))["prompt"] == "ein Kätzchen"


def png_with(text: str) -> bytes:
    info = PngInfo()
    info.add_text("meta", text)
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def jpeg() -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, "JPEG")
    return buffer.getvalue()


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "it is neither a PNG nor JSON"),
        (b"\x00\xff", "it is neither a PNG nor JSON"),
        (jpeg(), "it holds no metadata known here"),
        ("<html>", "it is neither a PNG nor JSON"),
        (DEEP, "it is neither a PNG nor JSON"),
        ("[1]", "has no object under 'meta'"),
        ("{}", "has no object under 'meta'"),
        ('{"meta": "cat"}', "has no object under 'meta'"),
        (png_bytes(PICTURE, None), "it holds no metadata known here: another program made it"),
        (png_bytes(PICTURE, None, infotext="a cat"), "it holds no metadata"),
        (png_with("not json"), "its metadata is damaged: it is not JSON"),
        (png_with(DEEP), "its metadata is damaged: it is not JSON"),
        (png_with('{"guidance": NaN}'), "its metadata is damaged: NaN is no number"),
        (png_with('{"strength": -Infinity}'), "its metadata is damaged: -Infinity is no number"),
        (png_with('{"guidance": 1e999}'), "its metadata is damaged: 1e999 is no number"),
        (png_with('["cat"]'), "its metadata is damaged: it is not an object"),
        (b"\x89PNG\r\n\x1a\n", "the PNG is cut off"),
    ],
)
def test_a_file_without_metadata_is_told_apart(
    tmp_path: Path, data: bytes | str, problem: str
) -> None:
    path = save(tmp_path, data)
    for read in (read_meta, read_picture):
        with pytest.raises(InvalidFile) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert problem in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_beyond_the_bound_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "MAX_FILE", 2**20)
    path = save(tmp_path, '{"meta": {}}' + " " * 2**20)
    with pytest.raises(InvalidFile, match="too large: more than 1 MiB"):
        read_meta(path)


# ---------------------------------------------------------------------------------- converting


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_a_picture_of_another_tool_becomes_a_png_with_its_metadata(
    tmp_path: Path, form: str
) -> None:
    data = picture_with(SPELLINGS["A1111, SD.Next"], form)
    there = read_picture(save(tmp_path, data))
    assert there.source == "picture"
    with Image.open(io.BytesIO(there.png)) as png, Image.open(io.BytesIO(data)) as before:
        assert png.format == "PNG"
        assert png.tobytes() == before.convert("RGB").tobytes()
    assert read_meta(save(tmp_path, there.png)) == there.meta


def test_a_picture_with_metadata_and_broken_pixels_is_told(tmp_path: Path) -> None:
    data = picture_with(SPELLINGS["A1111, SD.Next"], "JPEG")
    path = save(tmp_path, data[:-200])
    assert read_meta(path)["seed"] == "42"
    with pytest.raises(InvalidFile, match="it is a broken picture"):
        read_picture(path)


def test_a_png_goes_to_json_and_back_byte_for_byte(tmp_path: Path) -> None:
    png = png_bytes(PICTURE, META, infotext="a cat\nSteps: 25")
    there = read_picture(save(tmp_path, png))
    assert (there.meta, there.png, there.source) == (META, png, "picture")
    back = read_picture(save(tmp_path, document_bytes(there.meta, there.png)))
    assert (back.meta, back.png, back.source) == (META, png, "json")


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_json_whose_picture_lacks_the_metadata_gives_a_png_with_it(
    tmp_path: Path, prefix: str
) -> None:
    plain = png_bytes(PICTURE, {"prompt": "before it was edited"})
    document = {"meta": META, "out": prefix + base64.b64encode(plain).decode()}
    picture = read_picture(save(tmp_path, json.dumps(document)))
    assert read_meta(save(tmp_path, picture.png)) == META
    assert Image.open(io.BytesIO(picture.png)).tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({}, "it holds no picture: 'out' is missing"),
        ({"out": None}, "it holds no picture: 'out' is missing"),
        ({"out": ""}, "it holds no picture: 'out' is empty"),
        ({"out": 5}, "its picture is damaged: 'out' is no string"),
        ({"out": "a"}, "its picture is damaged: 'out' is not base64"),
        ({"out": "ž"}, "its picture is damaged: 'out' is not base64"),
        ({"out": base64.b64encode(jpeg()).decode()}, "its picture is not a PNG"),
        ({"out": base64.b64encode(png_bytes(PICTURE, {})[:-9]).decode()}, "the PNG is cut off"),
    ],
)
def test_json_without_a_whole_picture_is_told_apart(
    tmp_path: Path, document: dict[str, Any], problem: str
) -> None:
    path = save(tmp_path, json.dumps({"meta": META, **document}))
    with pytest.raises(InvalidFile, match=problem):
        read_picture(path)


# ------------------------------------------------------------------- the infotext as it is written


def test_the_infotext_of_a_png_is_its_text_and_else_its_exif_comment() -> None:
    exif = picture_with(SPELLINGS["A1111, SD.Next"], "PNG")
    assert infotext_of(exif) == INFOTEXT
    assert infotext_of(replace_texts(exif, {"parameters": "a cat"})) == "a cat"
    assert infotext_of(png_bytes(PICTURE, META, infotext="words\nof any kind")) == (
        "words\nof any kind"
    )


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_the_infotext_of_other_pictures_is_their_exif_comment(form: str) -> None:
    assert infotext_of(picture_with(SPELLINGS["SwarmUI"], form)) == INFOTEXT


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"no picture", png_bytes(PICTURE, META)])
def test_what_holds_no_infotext_gives_none(data: bytes) -> None:
    assert infotext_of(data) is None


def test_a_damaged_png_is_told() -> None:
    with pytest.raises(InvalidFile):
        infotext_of(png_bytes(PICTURE, None)[:40])
