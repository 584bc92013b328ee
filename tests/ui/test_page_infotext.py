"""Infotext in the page: read as Python reads it, and out of pictures of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from exif_blocks import PROMPT, SPELLINGS, picture_with
from imagine_core.pictures.infotext import LABELS, read_infotext
from imagine_core.pictures.metadata import read_meta
from ui.browsing import drop, message, until
from ui.test_page_files import chunk, load, png_with, values

if TYPE_CHECKING:
    from playwright.sync_api import Page

CORPUS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "pictures/infotexts.json").read_text("utf-8")
)
READ = "(texts) => texts.map((text) => JSON.stringify(Imagine.infotext.read(text)))"


@pytest.fixture(autouse=True)
def _loaded(page: Page) -> None:
    """The part of the page that reads files, which it has only once there is one."""
    page.evaluate("Imagine.parts.load('files').then(() => null)")


def read(page: Page, texts: list[str]) -> list[Any]:
    """What the page makes of some texts."""
    return [json.loads(found) for found in page.evaluate(READ, texts)]


def test_the_labels_are_those_of_python(page: Page) -> None:
    assert page.evaluate("Imagine.infotext.LABELS") == dict(LABELS)


def test_infotext_is_read_as_the_grammar_says(page: Page) -> None:
    found = read(page, [case["text"] for case in CORPUS])
    for case, meta in zip(CORPUS, found, strict=True):
        assert meta == case["meta"], case["what"]


PARTS = [
    *(
        "Steps: 20",
        "Seed: 3",
        "Size: 8x8",
        "Sampler: Euler a Karras",
        "Clip skip: 2",
        "Model: a/b.pt",
    ),
    *("Negative prompt:", "Negative prompt: no", "Hires upscale: 2", "Denoising strength: .5"),
    *("Hires resize: 16x16", "Scheduler: beta", "steps", "a", "x: ", ", ", "\n", "\r\n", ".", " "),
    *("Hires strength: .2", "Hires steps: 4", "Hires upscaler: Lanczos", "Hires sampler: Heun"),
    *("Variation seed: 5", "Mask blur: 3", "Masked content: fill", "Tiling: x", "Tiling: valueOf"),
    *("Mask mode: Inpaint not masked", "Masked area padding: 8", "Variation seed strength: 1"),
    *("<lora:a>", " <lora:b:1:0.5>", "<", ">"),
    *('"', "\\", "\\n", "\\u00e4", "{", "}", "[", "]", "\t", "\0", "猫", ":", ",", "CFG scale: 7"),
]


def test_any_text_is_read_as_python_reads_it(page: Page) -> None:
    random = Random(7)
    texts = []
    for _ in range(4000):
        parts = random.choices(PARTS, k=random.randrange(24))
        texts.append(random.choice(["", "a\nSteps: 20, Seed: 1, Clip skip: 1, "]) + "".join(parts))
    expected = [read_infotext(text) for text in texts]
    assert sum(meta is not None for meta in expected) > 1500
    for text, meta, found in zip(texts, expected, read(page, texts), strict=True):
        assert found == meta, repr(text)


TAGS = [
    *("<lora:", "<lora:a", "<lyco:b", "<hypernet:c", ">", ">", ":0.8", ":-1", ":1e400", ":101"),
    *(":te=.5", ":unet = 2", ":lbw=MIDD", ":w=1,0,.5", ":start=4", ":stop=.5", ":step=2-9"),
    *(":step=-", ":1,1,0", ":ALL", ":All", "=", ":", " ", "a cat, ", ":x=1", "\n", "猫"),
]


def test_any_tag_of_a_lora_is_read_as_python_reads_it(page: Page) -> None:
    random = Random(7)
    texts = []
    for _ in range(6000):
        prompt = "<lora:a" + "".join(random.choices(TAGS, k=random.randrange(7)))
        texts.append(f"{prompt}>\nSteps: {random.choice([1, 8, 20])}, Seed: 1, Clip skip: 1")
    expected = [read_infotext(text) for text in texts]
    assert sum("loras" in (meta or ()) for meta in expected) > 1500
    for text, meta, found in zip(texts, expected, read(page, texts), strict=True):
        assert found == meta, repr(text)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_the_comments_of_all_tools_are_read_out_of_a_dropped_picture(page: Page, form: str) -> None:
    for tool, exif in SPELLINGS.items():
        page.click("#reset")
        name = f"{tool}.{form.lower()}"
        drop(page, "#stage", name, picture_with(exif, form), f"image/{form.lower()}")
        message(page, f"Loaded {name}.", "good")
        found = values(page)
        assert (found["prompt"], found["neg"]) == (PROMPT, "ugly"), tool
        assert (found["steps"], found["seed"], found["width"]) == (20, "42", 64), tool


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_a_loaded_jpeg_or_webp_is_in_the_gallery_and_downloads_as_a_png(
    page: Page, tmp_path: Path, form: str
) -> None:
    file = tmp_path / "cat.jpg"
    file.write_bytes(picture_with(SPELLINGS["A1111, SD.Next"], form))
    load(page, file)
    message(page, "Loaded cat.jpg.", "good")
    until(lambda: page.inner_text("#shown-seed") == "42")
    with page.expect_download() as download:
        page.click("#act-download")
    saved = tmp_path / "saved.png"
    download.value.save_as(saved)
    meta = read_meta(saved)
    assert (meta["prompt"], meta["seed"], meta["width"]) == (PROMPT, "42", 64)


def test_a_jpeg_without_settings_becomes_the_input(page: Page) -> None:
    data = picture_with(b"MM\0\x2a\0\0\0\x08\0\0", "JPEG")
    drop(page, "#stage", "photo.jpg", data, "image/jpeg")
    message(page, "photo.jpg holds no settings known here: it is the input picture now.")


def test_utf_8_in_a_text_that_should_be_latin_1_is_read(page: Page) -> None:
    png = png_with(parameters="TEXT")
    at = png.index(b"tEXtparameters")
    text = b"parameters\0" + "кот\nSteps: 3".encode()
    whole = png[: at - 4] + chunk(b"tEXt", text) + png[at + len(b"tEXtparameters\0TEXT") + 4 :]
    drop(page, "#stage", "s.png", whole, "image/png")
    message(page, "Loaded s.png.", "good")
    assert page.input_value("#prompt") == "кот"


def test_broken_exif_data_changes_nothing(page: Page) -> None:
    random = Random(7)
    for _ in range(30):
        data = bytearray(random.choice(list(SPELLINGS.values())))
        for _ in range(random.randrange(1, 6)):
            data[random.randrange(len(data))] = random.randrange(256)
        page.evaluate(
            "(data) => Imagine.exif.comment(Uint8Array.from(data)) && null",
            list(data[: random.randrange(len(data))]),
        )
