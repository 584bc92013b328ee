"""The gallery: kept, walked through, compared, reused, downloaded, deleted."""

from __future__ import annotations

import io
import json
import re
from functools import partial
from typing import TYPE_CHECKING

import pytest

from ui.browsing import OpenPage, asked, drag, draw, message, ready, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ui.fake_server import FakeServer


def seeds(page: Page) -> list[str]:
    """The seeds of the pictures in the gallery, newest first."""
    labels = page.evaluate("[...document.querySelectorAll('.thumb')].map((t) => t.ariaLabel)")
    return [label.rpartition("seed ")[2] for label in labels]


def draw_seeds(page: Page, *wanted: int) -> None:
    for seed in wanted:
        page.fill("#seed", str(seed))
        draw(page, f"boat {seed}")


def shown(page: Page) -> str:
    return page.inner_text("#shown-seed")


def is_shown(page: Page, seed: str) -> bool:
    return shown(page) == seed


@pytest.mark.parametrize("place", ["http", "file"])
def test_the_gallery_survives_a_reload(open_page: OpenPage, place: str) -> None:
    page = open_page(place)
    ready(page)
    draw_seeds(page, 1, 2)
    page.reload()
    page.wait_for_selector("#shown img")
    assert seeds(page) == ["2", "1"]
    assert shown(page) == "2"  # the newest is shown again
    assert page.inner_text("#gallery-note").startswith("2 pictures, ")


def test_the_arrow_keys_walk_through_the_gallery(page: Page) -> None:
    draw_seeds(page, 1, 2, 3)
    page.click("#caption")  # the focus is nowhere in particular
    for key, seed in [("ArrowRight", "2"), ("End", "1"), ("ArrowLeft", "2"), ("Home", "3")]:
        page.keyboard.press(key)
        until(partial(is_shown, page, seed))
    page.focus(".thumb[aria-selected=true]")
    page.keyboard.press("ArrowRight")
    until(lambda: shown(page) == "2")
    assert page.locator(".thumb:focus").get_attribute("aria-selected") == "true"


def test_arrows_in_the_prompt_move_the_cursor_and_nothing_else(page: Page) -> None:
    draw_seeds(page, 1, 2)
    page.focus("#prompt")
    page.keyboard.press("ArrowRight")
    assert page.locator(".thumb[aria-selected=true]").count() == 1
    assert shown(page) == "2"


def test_a_deleted_picture_is_gone_and_undo_brings_it_back(page: Page) -> None:
    draw_seeds(page, 1, 2, 3)
    page.locator(".thumb").nth(1).click()
    until(lambda: shown(page) == "2")
    page.keyboard.press("Delete")
    until(lambda: seeds(page) == ["3", "1"])
    until(lambda: shown(page) == "1")
    page.get_by_role("button", name="Undo").click()
    until(lambda: seeds(page) == ["3", "2", "1"])
    page.click("#act-delete")
    until(lambda: len(seeds(page)) == 2)
    page.reload()
    ready(page)
    assert seeds(page) == ["3", "1"]


def test_delete_all_can_be_undone(page: Page) -> None:
    draw_seeds(page, 1, 2)
    page.click("#gallery-clear")
    page.wait_for_selector("#welcome:visible")
    assert seeds(page) == []
    page.get_by_role("button", name="Undo").click()
    until(lambda: seeds(page) == ["2", "1"])


def test_a_downloaded_picture_carries_its_settings(page: Page) -> None:
    from PIL import Image

    page.fill("#neg", "dull, grey")
    draw_seeds(page, 2**64 - 1)
    with page.expect_download() as download:
        page.click("#act-download")
    assert re.fullmatch(r"\d{8}_\d{6}\.png", download.value.suggested_filename)
    data = download.value.path().read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        meta = json.loads(image.info["meta"])
    assert meta["seed"] == str(2**64 - 1)
    assert (meta["prompt"], meta["neg"]) == (f"boat {2**64 - 1}", "dull, grey")


def test_prompts_beyond_ascii_survive_in_a_downloaded_picture(page: Page) -> None:
    from PIL import Image

    draw(page, "ein Fuchs, 赤い猫 🦊")
    with page.expect_download() as download:
        page.click("#act-download")
    with Image.open(download.value.path()) as image:
        image.load()
        assert json.loads(image.info["meta"])["prompt"] == "ein Fuchs, 赤い猫 🦊"


# -------------------------------------------------------------------------------- reusing


def test_a_picture_dragged_onto_the_input_is_drawn_from(page: Page, fake: FakeServer) -> None:
    draw_seeds(page, 1)
    drag(page, ".thumb", "#drop [data-do=input]")
    page.wait_for_selector("#input-preview:visible")
    draw(page)
    assert asked(fake)["img"]


def test_a_picture_dragged_onto_restore_brings_all_its_settings_back(page: Page) -> None:
    page.fill("#steps", "9")
    page.select_option("#sampler", "heun")
    draw_seeds(page, 5)
    page.click("#reset")
    drag(page, ".thumb", "#drop [data-do=restore]")
    message(page, "Settings restored.")
    values = [page.input_value(f"#{name}") for name in ("prompt", "steps", "sampler", "seed")]
    assert values == ["boat 5", "9", "heun", "5"]


def test_the_tools_do_the_same_without_dragging(page: Page) -> None:
    page.fill("#steps", "9")
    draw_seeds(page, 5)
    page.click("#reset")
    page.click("#act-seed")
    assert page.input_value("#seed") == "5"
    page.click("#act-restore")
    until(lambda: page.input_value("#steps") == "9")
    page.click("#act-input")
    page.wait_for_selector("#input-preview:visible")


def test_restoring_a_picture_of_img2img_brings_its_input_back(page: Page) -> None:
    draw_seeds(page, 1)
    page.click("#act-input")
    page.wait_for_selector("#input-preview:visible")
    page.fill("#strength", "0.4")
    draw_seeds(page, 2)
    page.click("#input-remove")
    page.click("#act-restore")
    page.wait_for_selector("#input-preview:visible")
    assert page.input_value("#strength") == "0.4"


# ------------------------------------------------------------------------------- comparing


def test_two_pictures_are_compared_with_a_slider(page: Page) -> None:
    draw_seeds(page, 1, 2, 3)
    page.locator(".thumb").first.click()
    page.click("#act-compare")
    page.wait_for_selector("#compare:visible")
    assert page.inner_text("#compare-tag-a") == "seed 3"
    assert page.inner_text("#compare-tag-b") == "seed 2"
    slider = page.get_by_role("slider", name="Compare")
    slider.press("End")
    clip = "getComputedStyle(Imagine.dom.byId('compare-a')).clipPath"
    assert page.evaluate(clip) == "inset(0px 0% 0px 0px)"  # all of it shows
    page.locator(".thumb").nth(2).click()
    until(lambda: page.inner_text("#compare-tag-b") == "seed 1")
    page.keyboard.press("Escape")
    assert page.is_hidden("#compare")
    assert page.is_visible("#shown img")


def test_one_picture_has_nothing_to_be_compared_with(page: Page) -> None:
    draw_seeds(page, 1)
    page.click("#act-compare")
    message(page, "Make another picture")


def test_on_a_phone_the_page_stays_at_the_picture_when_it_is_finished(open_page: OpenPage) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    ready(page)
    page.click("#first")
    page.locator(".thumb").first.wait_for()
    page.wait_for_selector("#tools:visible")
    assert page.evaluate("scrollY") < 100
    page.locator(".thumb").first.tap()
    until(lambda: page.evaluate("scrollY") < 100)  # back up from the gallery below


def test_on_a_phone_the_run_comes_into_view_from_far_down_the_form(
    open_page: OpenPage, fake: FakeServer
) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    ready(page)
    fake.hold_at_step = 2
    page.fill("#prompt", "a boat")
    page.fill("#n", "4")
    page.locator("#reset").scroll_into_view_if_needed()
    page.click("#generate")
    page.wait_for_selector("#cancel:visible")
    top = "document.querySelector('#stage').getBoundingClientRect().top"
    until(lambda: page.evaluate(top) >= 0)


def keep_copies(page: Page, count: int) -> None:
    """Put so many older pictures into the gallery, and visit it anew."""
    page.evaluate(
        """async (count) => {
            const { store } = Imagine;
            const [record] = await store.all();
            const { output } = await store.picture(record.id);
            for (let id = 1; id <= count; id++) {
                await store.add({ ...record, id, values: { ...record.values, seed: `${id}` } },
                    { output, input: null });
            }
        }""",
        count,
    )
    page.reload()
    ready(page)


def test_a_long_gallery_is_put_on_the_page_in_parts(page: Page) -> None:
    draw_seeds(page, 1)
    keep_copies(page, 150)
    assert page.locator(".thumb").count() == 60
    page.click("#caption")
    page.keyboard.press("End")
    until(lambda: shown(page) == "1")
    assert page.locator(".thumb").count() == 151


def test_on_a_phone_the_rest_of_a_long_gallery_comes_as_one_scrolls(open_page: OpenPage) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    ready(page)
    draw_seeds(page, 1)
    keep_copies(page, 80)
    assert page.locator(".thumb").count() == 60
    page.locator(".thumb").last.scroll_into_view_if_needed()
    page.locator(".thumb").nth(80).wait_for(state="attached")


def test_the_picture_fills_the_screen_on_request(page: Page) -> None:
    draw_seeds(page, 1)
    page.click("#act-full")
    until(lambda: page.evaluate("document.fullscreenElement?.id") == "canvas")


def test_without_storage_the_page_works_and_says_so(open_page: OpenPage) -> None:
    page = open_page("file")
    page.add_init_script("IDBFactory.prototype.open = () => { throw new Error('forbidden'); }")
    page.reload()
    message(page, "keeps nothing for this page", "warn")
    ready(page)
    draw(page)
    assert page.locator(".thumb").count() == 1


def test_where_the_browser_forbids_all_storage_the_page_works_as_well(open_page: OpenPage) -> None:
    page = open_page()
    forbid = "{ get() { throw new Error('forbidden'); } }"
    for storage in ("localStorage", "sessionStorage"):
        page.add_init_script(f"Object.defineProperty(window, '{storage}', {forbid})")
    page.reload()
    ready(page)
    draw(page)


def test_a_file_reads_no_storage_before_the_browser_shows_it(open_page: OpenPage) -> None:
    page = open_page("file")
    page.add_init_script("navigator.locks.query = () => new Promise((go) => (window.go = go))")
    page.add_init_script("""{
        const { getItem } = Storage.prototype;
        window.early = [];
        Storage.prototype.getItem = function (key) {
            window.early?.push(key);
            return getItem.call(this, key);
        };
    }""")
    page.reload()
    assert page.evaluate("window.early") == []
    page.evaluate("{ window.early = null; window.go(); }")
    ready(page)  # at the address that was kept
