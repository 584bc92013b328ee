"""Settings files: saved, loaded and dropped, sound ones and hostile ones."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ui.browsing import asked, draw, drop, message, save_settings, until
from ui.fake_server import picture

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

    from ui.fake_server import FakeServer

README_META = """{
    "meta": {
        "model": "dreamshaper_8",
        "prompt": "a photo of an astronaut riding a horse on mars, epic, cinematic, detailed",
        "width": 768, "height": 512, "steps": 24, "guidance": 7.5, "sampler": "euler a",
        "seed": 591445185899376351, "neg": "ugly, deformed, blurry, low quality", "clip": 2,
        "stream": 1, "img": null, "strength": 0.6
    },
    "out": "%s"
}"""


def load(page: Page, file: Path) -> None:
    page.set_input_files("#settings-file", file)


def values(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("Imagine.form.values()")
    return found


def png_with(**texts: str) -> bytes:
    """A PNG with text chunks, as Pillow writes them: by other code than the page's."""
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text)
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture(1, 64, 64))).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


# ---------------------------------------------------------------------------------- sound ones


def test_saved_settings_load_again_with_the_last_picture(
    page: Page, fake: FakeServer, tmp_path: Path
) -> None:
    page.fill("#steps", "13")
    page.fill("#guidance", "4.5")
    draw(page, "a mill")
    page.click("#seed-reuse")
    before = values(page)
    file = save_settings(page, tmp_path)
    saved = json.loads(file.read_text())
    assert saved["meta"]["prompt"] == "a mill"
    assert saved["meta"]["seed"] == asked(fake)["seed"]
    assert base64.b64decode(saved["out"]).startswith(b"\x89PNG")
    page.click("#reset")
    load(page, file)
    message(page, "Loaded settings.json.", "good")
    assert values(page) == before
    assert page.locator(".thumb").count() == 2  # the picture is in the gallery again


def test_the_json_of_imagine_run_restores_everything(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "20231027_153045.json"
    file.write_text(README_META % base64.b64encode(picture(3, 768, 512)).decode())
    load(page, file)
    message(page, "Loaded 20231027_153045.json.")
    found = values(page)
    assert (found["width"], found["steps"], found["sampler"]) == (768, 24, "euler a")
    assert (found["guidance"], found["clip"], found["model"]) == (7.5, 2, "dreamshaper_8")
    assert found["seed"] == "591445185899376351"  # not rounded to a JavaScript number
    assert page.get_by_role("img", name="a photo of an astronaut").is_visible()


def test_the_png_of_imagine_run_restores_everything(page: Page, tmp_path: Path) -> None:
    meta = {
        "prompt": "une île, 島",
        "steps": 7,
        "seed": str(2**64 - 1),
        "hires": 1.5,
        "model": "doodle",
    }
    file = tmp_path / "island.png"
    file.write_bytes(png_with(meta=json.dumps(meta, ensure_ascii=False)))
    load(page, file)
    message(page, "Loaded island.png.", "good")
    found = values(page)
    assert {key: found[key] for key in meta} == meta


def test_the_png_of_other_tools_restores_what_it_says(page: Page, tmp_path: Path) -> None:
    infotext = (
        "a castle, (tower:1.2)\nNegative prompt: fog\nSteps: 31, Sampler: Euler a, "
        'Schedule type: Karras, CFG scale: 6.5, Seed: 99, Size: 640x448, Model: "odd, name", '
        "Clip skip: 2, Version: v1.9"
    )
    file = tmp_path / "castle.png"
    file.write_bytes(png_with(parameters=infotext))
    load(page, file)
    message(page, "Loaded castle.png.", "good")
    found = values(page)
    assert (found["prompt"], found["neg"]) == ("a castle, (tower:1.2)", "fog")
    assert (found["steps"], found["guidance"], found["clip"]) == (31, 6.5, 2)
    assert (found["sampler"], found["schedule"], found["seed"]) == ("euler a", "karras", "99")
    assert (found["width"], found["height"], found["model"]) == (640, 448, "odd, name")
    assert "not on this server" in page.inner_text("#model option:checked")


def test_an_old_sampler_name_means_the_sampler_and_its_schedule(page: Page) -> None:
    infotext = b"a mill\nSteps: 9, Sampler: DPM++ 2M Karras, Seed: 1, Size: 512x512"
    drop(page, "#stage", "old.png", png_with(parameters=infotext.decode()), "image/png")
    message(page, "Loaded old.png.")
    assert (page.input_value("#sampler"), page.input_value("#schedule")) == ("dpm++ 2m", "karras")


def test_what_a_file_says_nothing_of_stays(page: Page, tmp_path: Path) -> None:
    """`imagine run` asks for no previews unless it is told to, and notes that as null."""
    page.click("#more > summary")
    page.fill("#guidance", "3")
    page.fill("#stream", "2")
    file = tmp_path / "run.json"
    file.write_text('{"meta": {"prompt": "a mill", "stream": null}}')
    load(page, file)
    message(page, "Loaded run.json.")
    assert (page.input_value("#guidance"), page.input_value("#stream")) == ("3", "2")


OVER = """() => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File(['{}'], 's.json'));
    document.body.dispatchEvent(new DragEvent('dragover', { dataTransfer, bubbles: true }));
}"""


@pytest.mark.parametrize("target", ["#stage", "#prompt", "header", "#drop [data-do=restore]"])
def test_a_settings_file_can_be_dropped_anywhere(page: Page, target: str) -> None:
    if target.startswith("#drop"):
        page.evaluate(OVER)
        page.wait_for_selector(target)
    drop(page, target, "s.json", b'{"prompt": "dropped", "steps": 3}', "application/json")
    message(page, "Loaded s.json.")
    assert page.input_value("#prompt") == "dropped"
    assert page.is_hidden("#drop")


def test_zones_that_come_after_the_drag_is_over_stay_away(page: Page) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/js/zones.js", hold)
    page.evaluate(OVER)
    until(lambda: page.evaluate("1") and held)  # the browser's news arrive during a call
    page.evaluate("dispatchEvent(new DragEvent('dragend', { bubbles: true }))")
    held[0].continue_()
    page.locator("#drop").wait_for(state="attached")
    assert page.is_hidden("#drop")
    page.evaluate(OVER)
    page.wait_for_selector("#drop")


def test_a_dropped_picture_without_settings_becomes_the_input(page: Page) -> None:
    drop(page, "#stage", "photo.png", picture(1, 96, 64), "image/png")
    message(page, "it is the input picture now")
    assert "96 \u00d7 64" in page.inner_text("#input-text")


def test_a_picture_with_settings_dropped_on_the_input_is_the_input(page: Page) -> None:
    drop(page, "#input-well", "s.png", png_with(meta='{"prompt": "x"}'), "image/png")
    page.wait_for_selector("#input-preview:visible")
    assert page.input_value("#prompt") == ""


def test_a_pasted_picture_becomes_the_input(page: Page) -> None:
    page.evaluate(
        """(data) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([bytes], 'image.png', { type: 'image/png' }));
            const options = { clipboardData, bubbles: true, cancelable: true };
            document.querySelector('#prompt').dispatchEvent(new ClipboardEvent('paste', options));
        }""",
        base64.b64encode(picture(1, 96, 64)).decode(),
    )
    page.wait_for_selector("#input-preview:visible")


def test_what_cannot_be_is_left_out_by_name_and_the_rest_is_taken(
    page: Page, tmp_path: Path
) -> None:
    odd = {"prompt": "a mill", "steps": "many", "width": 500, "seed": -1, "guidance": 3, "x": 1}
    file = tmp_path / "odd.json"
    file.write_text(json.dumps(odd))
    load(page, file)
    message(page, "Not taken over, because of its value: width, steps, seed.", "warn")
    assert (page.input_value("#prompt"), page.input_value("#guidance")) == ("a mill", "3")
    assert (page.input_value("#width"), page.input_value("#steps")) == ("512", "25")


# ------------------------------------------------------------------------------- hostile ones


def chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
BOMB = b"meta\0\0" + zlib.compress(b" " * (65 * 2**20), 9)


def huge(side: int) -> bytes:
    """A small file that is a picture of `side` times `side` pixels, black."""
    row = bytes(1 + side // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    text = chunk(b"tEXt", b'meta\0{"prompt": "x"}')
    return SIGNATURE + header + text + chunk(b"IDAT", data) + chunk(b"IEND", b"")


HUGE = huge(16_000)
HOSTILE = {
    "nothing": b"",
    "not JSON": b"{prompt: 'x'}",
    "a list": b"[1, 2, 3]",
    "null": b"null",
    "no settings": b'{"hello": "world"}',
    "deep": b"[" * 100_000,
    "prototype": b'{"__proto__": {"prompt": "polluted"}, "constructor": {"prompt": "x"}}',
    "a picture that is none": b'{"meta": {"prompt": "x"}, "out": "bm90IGEgcGljdHVyZQ=="}',
    "a picture not in base64": b'{"meta": {"prompt": "x"}, "out": "<svg onload=alert(1)>"}',
    "an input that is none": b'{"meta": {"prompt": "x", "img": "bm90IGEgcGljdHVyZQ=="}}',
    "a prompt without end": json.dumps({"prompt": "a:1 )(" * 10**6}).encode(),
    "a picture of 256 megapixels": HUGE,
    "a picture of 256 megapixels inside": json.dumps(
        {"meta": {"prompt": "x"}, "out": base64.b64encode(HUGE).decode()}
    ).encode(),
    "a PNG cut short": png_with(meta='{"prompt": "x"}')[:60],
    "a PNG whose chunk is endless": SIGNATURE + b"\xff\xff\xff\xf0IHDR",
    "a PNG with broken JSON": SIGNATURE + HEADER + chunk(b"tEXt", b'meta\0{"prompt":'),
    "a PNG with a text that has no keyword": SIGNATURE + HEADER + chunk(b"tEXt", b"meta"),
    "a PNG with a broken packed text": SIGNATURE + HEADER + chunk(b"zTXt", b"meta\0\0nonsense"),
    "a PNG whose text unpacks to 65 MB": SIGNATURE + HEADER + chunk(b"zTXt", BOMB),
    "a PNG with settings and no picture": SIGNATURE
    + HEADER
    + chunk(b"tEXt", b'meta\0{"prompt": "x"}')
    + chunk(b"IEND", b""),
}


def test_a_hostile_file_gives_a_message_and_changes_nothing(page: Page, tmp_path: Path) -> None:
    page.fill("#prompt", "mine")
    before = values(page)
    for name, data in HOSTILE.items():
        file = tmp_path / (f"{name}.png" if data.startswith(SIGNATURE) else f"{name}.json")
        file.write_bytes(data)
        load(page, file)
        message(page, f"{file.name} was not loaded", "bad")
        assert values(page) == before, name
        page.evaluate("document.querySelector('#messages').replaceChildren()")
    assert page.evaluate("({}).prompt") is None
    assert page.locator(".thumb").count() == 0


def test_a_picture_that_is_too_large_to_show_is_no_input(page: Page) -> None:
    drop(page, "#input-well", "black.png", HUGE, "image/png")
    message(page, "black.png is not a picture that the browser can read", "bad")
    assert page.is_hidden("#input-preview")


@pytest.mark.parametrize("rest", [" " * 60_000, "a " * 30_000, "a: " * 20_000, ', a: "' * 10_000])
def test_an_infotext_made_to_be_slow_is_read_at_once(page: Page, tmp_path: Path, rest: str) -> None:
    file = tmp_path / "slow.png"
    file.write_bytes(png_with(parameters=f"a mill\nSteps: 3,{rest}"))
    load(page, file)
    message(page, "Loaded slow.png.", "good")
    assert page.input_value("#steps") == "3"


MARKUP = '<img src=x onerror="document.title=1"><script>document.title=1</script>'


def test_nothing_from_a_file_or_the_server_becomes_html(
    page: Page, fake: FakeServer, tmp_path: Path
) -> None:
    fake.warnings = [MARKUP]
    fake.samplers[1]["label"] = MARKUP
    fake.samplers[1]["plugin"] = MARKUP
    fake.models[0]["family"] = MARKUP
    page.reload()
    page.locator("#sampler option", has_text="<img").wait_for(state="attached")
    file = tmp_path / f"{MARKUP.replace('/', '')}.json"
    file.write_text(json.dumps({"prompt": MARKUP, "sampler": MARKUP, "model": MARKUP, "steps": 2}))
    load(page, file)
    message(page, "Loaded <img")
    page.select_option("#sampler", "heun")
    page.select_option("#model", "doodle")
    draw(page, MARKUP)
    message(page, MARKUP, "warn")
    fake.refuse = (422, {"message": MARKUP, "fields": [{"field": "steps", "message": MARKUP}]})
    page.click("#generate")
    until(lambda: page.inner_text("#steps-error") == MARKUP)
    assert page.locator("script:not([src])").count() == 0
    assert page.locator("[onerror]").count() == 0
    assert page.title() == "Imagine"
