"""ControlNets on the page: picked, given a picture each, and sent with how they act."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from ui.browsing import OpenPage, asked, draw, drop, message, ready, save_settings, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ui.fake_server import FakeServer

SD1 = "dreamshaper_8"


def png(colour: str, size: tuple[int, int] = (48, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def add(page: Page, *names: str) -> None:
    """Pick ControlNets for a model that takes them."""
    page.select_option("#model", SD1)
    page.click("#controls")
    for name in names:
        page.click(f"#picker .part[data-name={name}]")
    page.keyboard.press("Escape")
    page.locator(".control").nth(len(names) - 1).wait_for()


def give(page: Page, colour: str, row: int = 0) -> None:
    """Give a ControlNet its picture."""
    file = {"name": "hint.png", "mimeType": "image/png", "buffer": png(colour)}
    chooser = page.locator(".control").nth(row).locator("input[type=file]")
    chooser.set_input_files(files=file)  # type: ignore[arg-type]
    page.locator(".control").nth(row).locator(".hint-picture:visible").wait_for()


def colour_of(text: str) -> tuple[int, ...]:
    image = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
    pixel = image.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


def test_a_chosen_one_is_sent_with_its_picture_and_how_it_acts(
    page: Page, fake: FakeServer
) -> None:
    add(page, "canny")
    give(page, "red")
    page.get_by_label("Weight of canny", exact=True).fill("0.7")
    page.get_by_label("Preprocessor").select_option("canny")
    page.get_by_label("What counts").select_option("control")
    page.get_by_label("From this part of the steps").fill("0.1")
    page.get_by_label("To this part").fill("0.8")
    draw(page)
    [use] = asked(fake)["controls"]
    assert colour_of(use.pop("img")) == (255, 0, 0)
    assert use == {
        "name": "canny",
        "weight": 0.7,
        "start": 0.1,
        "end": 0.8,
        "mode": "control",
        "preprocessor": "canny",
    }


def test_several_are_sent_in_their_order_and_say_no_more_than_they_need(
    page: Page, fake: FakeServer
) -> None:
    add(page, "depth", "canny")
    give(page, "red", 0)
    give(page, "blue", 1)
    draw(page)
    uses = asked(fake)["controls"]
    assert [(use["name"], colour_of(use["img"])) for use in uses] == [
        ("depth", (255, 0, 0)),
        ("canny", (0, 0, 255)),
    ]
    assert all(set(use) == {"name", "img", "weight"} for use in uses)


def test_without_any_nothing_is_said_of_them(page: Page, fake: FakeServer) -> None:
    draw(page)
    assert "controls" not in asked(fake)


def test_one_without_a_picture_is_refused_before_it_is_sent(page: Page, fake: FakeServer) -> None:
    add(page, "canny")
    page.fill("#prompt", "a boat")
    page.click("#generate")
    page.wait_for_selector("#controls-error:has-text('Give canny a picture.')")
    assert fake.requests == []


def test_the_input_picture_can_be_the_hint(page: Page, fake: FakeServer) -> None:
    add(page, "canny")
    button = page.get_by_role("button", name="Use the input picture")
    assert button.is_disabled()
    file = {"name": "start.png", "mimeType": "image/png", "buffer": png("green")}
    page.set_input_files("#input-file", files=file)  # type: ignore[arg-type]
    until(button.is_enabled)
    button.click()
    page.wait_for_selector(".hint-picture:visible")
    page.click("#input-remove")
    draw(page)
    assert colour_of(asked(fake)["controls"][0]["img"]) == (0, 128, 0)
    assert "img" not in asked(fake)


def test_a_picture_is_dropped_onto_its_row(page: Page, fake: FakeServer) -> None:
    add(page, "canny", "depth")
    drop(page, ".control[aria-label=depth]", "hint.png", png("blue"), "image/png")
    page.wait_for_selector(".control[aria-label=depth] .hint-picture:visible")
    assert page.is_hidden(".control[aria-label=canny] .hint-picture")


def test_a_file_that_is_no_picture_is_no_hint(page: Page) -> None:
    add(page, "canny")
    drop(page, ".control", "hint.png", b"\x89PNG\r\n\x1a\n and then nothing", "image/png")
    message(page, "hint.png is not a picture that the browser can read.", "bad")
    assert page.is_hidden(".hint-picture")


# ---------------------------------------------------------------------------- preprocessors


def test_the_hint_is_shown_before_it_is_used(page: Page, fake: FakeServer) -> None:
    add(page, "canny")
    give(page, "red")
    assert page.is_hidden(".hint-look")
    page.get_by_label("Preprocessor").select_option("invert")
    page.click(".hint-look")
    page.wait_for_selector(".hint-preview:visible")
    assert [body["preprocessor"] for body in fake.preprocessed] == ["invert"]
    pixel = page.locator(".hint-preview").evaluate(
        """(image) => {
            const canvas = document.createElement('canvas');
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0);
            return [...context.getImageData(0, 0, 1, 1).data];
        }"""
    )
    assert pixel == [0, 255, 255, 255]
    page.get_by_label("Preprocessor").select_option("canny")
    page.wait_for_selector(".hint-preview", state="hidden")


def test_a_server_without_preprocessors_takes_finished_hints(page: Page, fake: FakeServer) -> None:
    fake.preprocessors = None
    add(page, "canny")
    give(page, "red")
    texts = page.get_by_label("Preprocessor").locator("option").all_inner_texts()
    assert texts == ["None: it is a finished hint"]
    draw(page)
    assert "preprocessor" not in asked(fake)["controls"][0]


# ------------------------------------------------------------------------- as other rows are


def test_one_that_does_not_fit_another_model_is_marked_and_stays(page: Page) -> None:
    add(page, "canny")
    page.select_option("#model", "sdxl_base")
    page.wait_for_selector(".control.odd")
    assert "For Stable Diffusion 1" in page.inner_text(".control > .why")
    page.select_option("#model", SD1)
    page.wait_for_selector(".control:not(.odd)")


def test_a_removed_row_is_gone_and_the_next_has_the_focus(page: Page, fake: FakeServer) -> None:
    add(page, "canny", "depth")
    give(page, "red", 0)
    give(page, "blue", 1)
    page.get_by_role("button", name="Remove canny").click()
    assert page.get_by_role("button", name="Remove depth").evaluate(
        "(button) => button === document.activeElement"
    )
    draw(page)
    [use] = asked(fake)["controls"]
    assert (use["name"], colour_of(use["img"])) == ("depth", (0, 0, 255))


def test_reset_takes_them_out_and_undo_brings_them_back_with_their_pictures(
    page: Page, fake: FakeServer
) -> None:
    add(page, "canny")
    give(page, "red")
    page.click("#reset")
    until(lambda: page.locator(".control").count() == 0)
    page.get_by_role("button", name="Undo").click()
    page.wait_for_selector(".hint-picture:visible")
    page.fill("#prompt", "a boat")
    draw(page)
    assert colour_of(asked(fake)["controls"][0]["img"]) == (255, 0, 0)


def test_at_the_next_visit_they_are_there_and_want_their_pictures(
    page: Page, fake: FakeServer
) -> None:
    add(page, "canny")
    give(page, "red")
    page.get_by_label("Weight of canny", exact=True).fill("0.5")
    page.reload()
    ready(page)
    page.wait_for_selector(".control")
    assert page.get_by_label("Weight of canny", exact=True).input_value() == "0.5"
    page.fill("#prompt", "a boat")
    page.click("#generate")
    page.wait_for_selector("#controls-error:has-text('Give canny a picture.')")
    give(page, "blue")
    draw(page)
    assert colour_of(asked(fake)["controls"][0]["img"]) == (0, 0, 255)


def test_the_gallery_and_a_settings_file_bring_them_back(
    page: Page, fake: FakeServer, tmp_path: Path
) -> None:
    add(page, "canny", "depth")
    give(page, "red", 0)
    give(page, "blue", 1)
    page.get_by_label("What counts").nth(1).select_option("prompt")
    draw(page)
    saved = save_settings(page, tmp_path)
    page.reload()
    ready(page)
    page.click("#reset")

    def restored() -> list[dict[str, Any]]:
        page.locator(".control .hint-picture:visible").nth(1).wait_for()
        draw(page)
        uses: list[dict[str, Any]] = asked(fake)["controls"]
        assert [colour_of(use["img"]) for use in uses] == [(255, 0, 0), (0, 0, 255)]
        return uses

    page.click("#act-restore")
    assert restored()[1]["mode"] == "prompt"
    page.click("#reset")
    page.set_input_files("#settings-file", saved)
    assert restored()[1]["mode"] == "prompt"


def test_a_hint_that_is_no_picture_changes_nothing(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text('{"controls": [{"name": "canny", "img": "bm90IGEgcGljdHVyZQ=="}]}')
    page.set_input_files("#settings-file", file)
    message(page, "the picture of canny is not a picture that the browser can show", "bad")
    assert page.locator(".control").count() == 0


@pytest.mark.parametrize("use", ['{"name": ""}', '{"name": "a", "mode": "odd"}', "7"])
def test_a_list_that_is_none_is_left_out_by_name(page: Page, tmp_path: Path, use: str) -> None:
    file = tmp_path / "s.json"
    file.write_text(f'{{"prompt": "a mill", "controls": [{use}]}}')
    page.set_input_files("#settings-file", file)
    message(page, "Not taken over, because of its value: controls.", "warn")


def test_a_page_opened_as_a_file_has_them_too(open_page: OpenPage, fake: FakeServer) -> None:
    page = open_page("file")
    ready(page)
    add(page, "canny")
    give(page, "red")
    page.get_by_label("Preprocessor").select_option("invert")
    page.click(".hint-look")
    page.wait_for_selector(".hint-preview:visible")
    draw(page)
    assert asked(fake)["controls"][0]["preprocessor"] == "invert"
