"""Enlarging the picture on the stage: asked for, followed, cancelled, compared and kept."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from ui.browsing import OpenPage, draw, message, ready, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ui.fake_server import FakeServer


def open_dialog(page: Page) -> None:
    page.click("#act-enlarge")
    page.wait_for_selector("#enlarge[open]")
    page.locator("#enlarge-upscaler option").nth(1).wait_for(state="attached")


def enlarge(page: Page, factor: str = "2") -> None:
    open_dialog(page)
    page.fill("#enlarge-factor", factor)
    page.click("#enlarge .primary")


def test_the_larger_picture_is_kept_with_the_settings_of_its_source_and_compared(
    page: Page, fake: FakeServer, tmp_path: Path
) -> None:
    draw(page, "a red boat")
    open_dialog(page)
    page.select_option("#enlarge-upscaler", "nearest")
    page.fill("#enlarge-factor", "1.5")
    assert page.inner_text("#enlarge-note") == "512 \u00d7 512 becomes 768 \u00d7 768"
    page.click("#enlarge .primary")
    page.wait_for_selector("#compare:visible")
    tags = [page.inner_text(f"#compare-tag-{side}") for side in "ab"]
    assert tags == ["512 \u00d7 512", "768 \u00d7 768"]
    [body] = fake.enlarged
    assert (body["upscaler"], body["scale"]) == ("nearest", 1.5)
    assert Image.open(io.BytesIO(base64.b64decode(body["img"]))).size == (512, 512)
    assert page.inner_text("#announce") == "Enlarged to 768 \u00d7 768."
    assert page.locator(".message").count() == 0  # it would lie over the comparison
    page.keyboard.press("Escape")
    assert page.locator(".thumb").count() == 2
    page.reload()
    ready(page)
    with page.expect_download() as download:
        page.click("#act-download")
    download.value.save_as(tmp_path / "large.png")
    with Image.open(tmp_path / "large.png") as image:
        assert image.size == (768, 768)
    page.fill("#prompt", "something else")
    page.click("#act-restore")
    until(lambda: page.input_value("#prompt") == "a red boat")
    assert page.input_value("#width") == "512"


def test_it_is_followed_and_cancelled(page: Page, fake: FakeServer) -> None:
    draw(page)
    fake.hold_enlarging = True
    enlarge(page)
    page.get_by_text("Enlarging 2 of 4").wait_for()
    assert page.get_attribute("#enlarge [role=progressbar]", "aria-valuenow") == "50"
    page.locator("#enlarge").get_by_role("button", name="Cancel").click()
    message(page, "Cancelled.", "info")
    until(lambda: fake.running == 0)  # the server is free again
    assert page.locator(".thumb").count() == 1
    fake.hold_enlarging = False
    page.click("#enlarge .primary")
    page.wait_for_selector("#compare:visible")
    assert page.locator(".thumb").count() == 2


def test_escape_cancels_first_and_closes_then(page: Page, fake: FakeServer) -> None:
    draw(page)
    fake.hold_enlarging = True
    enlarge(page)
    page.get_by_text("Enlarging 2 of 4").wait_for()
    page.keyboard.press("Escape")
    until(lambda: fake.running == 0)
    assert page.is_visible("#enlarge")
    page.keyboard.press("Escape")
    page.wait_for_selector("#enlarge", state="hidden")


def test_what_is_too_large_is_said_before_it_is_asked_for(page: Page, fake: FakeServer) -> None:
    draw(page)
    open_dialog(page)
    page.fill("#enlarge-factor", "5")
    page.get_by_text(
        "That is 2560 \u00d7 2560; this server makes at most 4,194,304 pixels."
    ).wait_for()
    page.fill("#enlarge-factor", "")
    page.get_by_text("A number from 0.1 to 16.").wait_for()
    assert page.locator("#enlarge .primary").is_disabled()
    assert fake.enlarged == []


def test_what_the_server_refuses_is_said_in_its_words(page: Page, fake: FakeServer) -> None:
    draw(page)
    wrong = [{"field": "scale", "message": "must be at most 4"}]
    fake.refuse = (422, {"message": "x", "fields": wrong})
    enlarge(page, "2")
    message(page, "The picture was not enlarged: must be at most 4.", "bad")
    assert page.locator(".thumb").count() == 1


def test_a_server_that_lists_no_upscalers_is_asked_for_the_usual_one(
    page: Page, fake: FakeServer
) -> None:
    fake.upscalers = None
    draw(page)
    page.click("#act-enlarge")
    page.locator("#enlarge-upscaler option").wait_for(state="attached")
    page.click("#enlarge .primary")
    page.wait_for_selector("#compare:visible")
    assert fake.enlarged[0]["upscaler"] == "lanczos"


def test_lanczos_is_usual_wherever_it_is_listed_and_a_choice_is_kept(
    open_page: OpenPage, fake: FakeServer
) -> None:
    names = ("bicubic", "lanczos", "nearest", "4x-UltraSharp")
    fake.upscalers = [{"name": name, "label": name} for name in names]
    page = open_page()
    ready(page)
    draw(page)
    open_dialog(page)
    assert page.input_value("#enlarge-upscaler") == "lanczos"
    page.select_option("#enlarge-upscaler", "4x-UltraSharp")
    page.keyboard.press("Escape")
    page.reload()
    ready(page)
    open_dialog(page)
    assert page.input_value("#enlarge-upscaler") == "4x-UltraSharp"
    fake.upscalers.pop()
    page.reload()
    ready(page)
    open_dialog(page)
    assert page.input_value("#enlarge-upscaler") == "lanczos"
    page.click("#enlarge .primary")
    page.wait_for_selector("#compare:visible")
    assert fake.enlarged[0]["upscaler"] == "lanczos"


@pytest.mark.parametrize("size", [(390, 844), (1366, 768)])
def test_no_message_covers_what_is_compared(
    open_page: OpenPage, fake: FakeServer, size: tuple[int, int]
) -> None:
    page = open_page(viewport={"width": size[0], "height": size[1]})
    ready(page)
    draw(page)
    draw(page)
    page.click("#act-compare")
    page.wait_for_selector("#compare:visible")
    message(page, "Choose any picture of the gallery")
    page.evaluate("document.getAnimations().map((a) => a.finish?.())")
    told = page.locator(".message").bounding_box()
    tags = [page.locator(f"#compare-tag-{side}").bounding_box() for side in "ab"]
    assert told is not None
    for tag in tags:
        assert tag is not None
        assert told["y"] >= tag["y"] + tag["height"]
    assert fake.enlarged == []


def test_it_works_with_the_keyboard_alone_in_a_file(open_page: OpenPage, fake: FakeServer) -> None:
    page = open_page("file")
    ready(page)
    draw(page)
    page.focus("#act-enlarge")
    page.keyboard.press("Enter")
    page.wait_for_selector("#enlarge[open]")
    page.locator("#enlarge-upscaler option").nth(1).wait_for(state="attached")
    page.keyboard.press("Tab")
    assert page.locator("#enlarge-factor:focus").count() == 1
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    page.wait_for_selector("#compare:visible")
    assert fake.enlarged[0]["scale"] == 3
    assert page.locator("#compare-at:focus").count() == 1
