"""The browser's storage failing in every way: the picture on the stage can still be saved."""

from __future__ import annotations

import io
import json
from functools import partial
from typing import TYPE_CHECKING

import pytest

from ui.browsing import OpenPage, draw, drop, message, ready, until
from ui.fake_server import picture
from ui.test_page_files import png_with
from ui.test_page_gallery import draw_seeds, is_shown, seeds, shown

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ui.fake_server import FakeServer

# ---------------------------------------------------------------------------------- failing

FULL = """IDBObjectStore.prototype.put = function () {
    throw new DOMException('', 'QuotaExceededError');
};"""
FULL_AT_THE_END = """{
    const { put } = IDBObjectStore.prototype;
    IDBObjectStore.prototype.put = function (value) {
        if (this.name === 'pictures') {
            const get = () => new DOMException('', 'QuotaExceededError');
            Object.defineProperty(this.transaction, 'error', { get });
            queueMicrotask(() => this.transaction.abort());
        }
        return put.call(this, value);
    };
}"""
UNCLONABLE = """{
    const { put } = IDBObjectStore.prototype;
    IDBObjectStore.prototype.put = function (value) {
        if (this.name === 'pictures') throw new DOMException('odd', 'DataCloneError');
        return put.call(this, value);
    };
}"""
ABORTED = """{
    const { put } = IDBObjectStore.prototype;
    IDBObjectStore.prototype.put = function (value) {
        if (this.name === 'pictures') queueMicrotask(() => this.transaction.abort());
        return put.call(this, value);
    };
}"""
FORBIDDEN = """IDBFactory.prototype.open = () => {
    throw new DOMException('', 'SecurityError');
};"""
REFUSED = """IDBFactory.prototype.open = () => {
    const request = {};
    setTimeout(() => {
        request.error = new DOMException('', 'UnknownError');
        request.onerror();
    });
    return request;
};"""
ABSENT = "Object.defineProperty(window, 'indexedDB', { value: undefined });"
SILENT = """{
    const { setTimeout } = window;
    window.setTimeout = (act, after) => setTimeout(act, after === 10000 ? 300 : after);
    IDBFactory.prototype.open = () => ({});
}"""
NO_LOCAL_STORAGE = """for (const name of ['getItem', 'setItem', 'removeItem']) {
    Storage.prototype[name] = () => { throw new DOMException('', 'QuotaExceededError'); };
}"""

UNABLE = {
    "full": (FULL, "the browser's storage for this page is full"),
    "full when it is written": (FULL_AT_THE_END, "the browser's storage for this page is full"),
    "unable to hold it": (UNCLONABLE, "the browser's storage failed: odd"),
    "broken off": (ABORTED, "the browser broke off its storage's work"),
}
UNAVAILABLE = {
    "forbidden": (FORBIDDEN, "the browser allows this page no storage"),
    "refused": (REFUSED, "the browser's storage failed"),
    "absent": (ABSENT, "the browser's storage failed"),
    "silent": (SILENT, "the browser's storage does not answer"),
}


def fail(page: Page, script: str) -> None:
    """Let the storage fail from now on."""
    page.evaluate(f"{script}; null")  # a script whose value is a function would be called


def begin(page: Page, script: str) -> None:
    """Visit again with a storage that fails from the start."""
    page.add_init_script(script)
    page.reload()
    ready(page)


def clear(page: Page) -> None:
    """Clear the data of the page's site, as the browser's own settings do."""
    session = page.context.new_cdp_session(page)
    origin = page.evaluate("location.origin")
    types = "indexeddb,local_storage"
    session.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": types})


def download(page: Page) -> dict[str, object]:
    """Save the picture on the stage; the settings in it."""
    from PIL import Image

    with page.expect_download() as saved:
        page.click("#act-download")
    with Image.open(io.BytesIO(saved.value.path().read_bytes())) as image:
        image.load()
        found: dict[str, object] = json.loads(image.info["meta"])
    return found


# ------------------------------------------------------------------------- the storage is full


@pytest.mark.parametrize("way", UNABLE)
def test_a_picture_that_cannot_be_kept_is_told_with_the_reason_and_can_be_saved(
    page: Page, way: str
) -> None:
    script, why = UNABLE[way]
    fail(page, script)
    draw(page, "a boat")
    message(page, f"This picture is not kept: {why}. Download it before you close the page.")
    assert page.locator(".message").count() == 1
    assert download(page)["prompt"] == "a boat"
    assert page.inner_text("#gallery-note").endswith(", 1 not kept")
    page.reload()
    ready(page)
    assert seeds(page) == []  # nor half of it


def test_every_picture_of_a_run_that_cannot_be_kept_can_be_saved(page: Page) -> None:
    fail(page, FULL)
    page.fill("#seed", "1")
    draw(page, "boats", count=5)
    message(page, "5 pictures are not kept")
    assert page.locator(".message").count() == 1
    for index in range(5):
        page.locator("#tiles .tile").nth(index).click()
        until(partial(is_shown, page, str(index + 1)))
        assert download(page)["seed"] == str(index + 1)
        page.click("#act-grid")


def test_pictures_that_were_not_kept_stay_until_the_page_is_closed(page: Page) -> None:
    fail(page, FULL)
    draw_seeds(page, 1, 2, 3)
    page.locator(".thumb").last.click()
    until(lambda: shown(page) == "1")
    assert download(page)["seed"] == "1"
    page.click("#act-compare")
    page.wait_for_selector("#compare:visible")


def test_what_was_not_kept_is_kept_once_there_is_room(page: Page) -> None:
    fail(page, "window.put = IDBObjectStore.prototype.put")
    draw_seeds(page, 1)
    fail(page, FULL)
    draw_seeds(page, 2)
    message(page, "This picture is not kept")
    fail(page, "IDBObjectStore.prototype.put = window.put")
    page.locator(".thumb").last.click()
    until(lambda: shown(page) == "1")
    page.click("#act-delete")
    until(lambda: seeds(page) == ["2"])
    assert "not kept" not in page.inner_text("#gallery-note")
    assert page.locator(".message", has_text="not kept").count() == 0
    page.reload()
    ready(page)
    assert seeds(page) == ["2"]


def test_deleting_what_was_not_kept_can_be_undone(page: Page) -> None:
    fail(page, FULL)
    draw_seeds(page, 1)
    page.click("#act-delete")
    page.wait_for_selector("#welcome:visible")
    page.get_by_role("button", name="Undo").click()
    until(lambda: seeds(page) == ["1"])
    until(lambda: shown(page) == "1")
    assert download(page)["seed"] == "1"


def test_a_settings_picture_that_cannot_be_kept_is_loaded(page: Page) -> None:
    fail(page, FULL)
    drop(page, "#stage", "s.png", png_with(meta='{"prompt": "dropped", "seed": 4}'), "image/png")
    message(page, "Loaded s.png.")
    message(page, "This picture is not kept")
    assert page.input_value("#prompt") == "dropped"
    until(lambda: shown(page) == "4")
    assert download(page)["prompt"] == "dropped"


def test_a_real_quota_that_is_used_up_loses_no_picture(open_page: OpenPage) -> None:
    page = open_page()
    ready(page)
    session = page.context.new_cdp_session(page)
    origin = page.evaluate("location.origin")
    session.send("Storage.overrideQuotaForOrigin", {"origin": origin, "quotaSize": 1})
    draw(page, "a boat")
    message(page, "This picture is not kept: the browser's storage for this page is full.")
    assert download(page)["prompt"] == "a boat"


# ---------------------------------------------------------------------- there is no storage


@pytest.mark.parametrize("place", ["http", "file"])
@pytest.mark.parametrize("way", UNAVAILABLE)
def test_without_storage_pictures_last_until_the_page_is_closed(
    open_page: OpenPage, way: str, place: str
) -> None:
    script, why = UNAVAILABLE[way]
    page = open_page(place)
    ready(page)
    begin(page, script)
    message(page, f"This browser keeps nothing for this page ({why}", "warn")
    draw_seeds(page, 1, 2)
    assert page.locator(".message").count() <= 1  # it is said once
    assert download(page)["seed"] == "2"
    page.locator(".thumb").last.click()
    until(lambda: shown(page) == "1")
    assert download(page)["seed"] == "1"


def test_a_local_storage_that_throws_changes_nothing_but_what_is_remembered(page: Page) -> None:
    begin(page, NO_LOCAL_STORAGE)
    draw_seeds(page, 1)
    assert download(page)["seed"] == "1"
    page.reload()
    ready(page)
    assert seeds(page) == ["1"]


# ------------------------------------------------------------- the storage is lost meanwhile


def test_after_the_data_was_cleared_the_picture_on_the_stage_can_be_saved(page: Page) -> None:
    draw_seeds(page, 1, 2)
    clear(page)
    assert download(page)["seed"] == "2"
    page.click("#act-input")
    page.wait_for_selector("#input-preview:visible")
    page.locator(".thumb").last.click()
    message(page, "it is no longer in the storage of the browser", "bad")
    assert shown(page) == "2"
    assert page.locator(".thumb[aria-selected=true]").get_attribute("aria-label") == (
        "boat 2, seed 2"
    )
    assert download(page)["seed"] == "2"


def test_after_the_data_was_cleared_new_pictures_are_kept_again(page: Page) -> None:
    draw_seeds(page, 1)
    clear(page)
    draw_seeds(page, 2)
    assert page.locator(".message").count() == 0
    page.reload()
    page.wait_for_selector("#shown img")
    assert seeds(page) == ["2"]


def test_another_window_that_deletes_the_database_does_not_wait(page: Page) -> None:
    draw_seeds(page, 1)
    other = page.context.new_page()
    other.goto(page.url)
    ready(other)
    deleted = """new Promise((go, no) => Object.assign(indexedDB.deleteDatabase('imagine'), {
        onsuccess: () => go('deleted'), onerror: no, onblocked: () => go('blocked') }))"""
    assert other.evaluate(deleted) == "deleted"
    assert download(page)["seed"] == "1"
    draw_seeds(page, 2)
    assert download(page)["seed"] == "2"
    page.reload()
    page.wait_for_selector("#shown img")
    assert seeds(page) == ["2"]


def test_the_picture_before_a_refused_run_comes_back_after_the_data_was_cleared(
    page: Page, fake: FakeServer
) -> None:
    draw_seeds(page, 1)
    clear(page)
    fake.refuse = (422, {"message": "no", "fields": []})
    page.click("#generate")
    message(page, "Error from the server", "bad")
    until(lambda: shown(page) == "1")
    assert download(page)["seed"] == "1"


def test_a_picture_that_the_storage_can_no_longer_read_is_told_and_the_stage_stays(
    page: Page,
) -> None:
    draw_seeds(page, 1, 2, 3)
    page.locator(".thumb").nth(1).click()  # out of the storage
    until(lambda: shown(page) == "2")
    fail(
        page,
        """{
        const { arrayBuffer } = Blob.prototype;
        const { get } = IDBObjectStore.prototype;
        const gone = new WeakSet();
        IDBObjectStore.prototype.get = function (key) {
            const request = get.call(this, key);
            request.addEventListener('success', () => gone.add(request.result.output));
            return request;
        };
        Blob.prototype.arrayBuffer = function () {
            if (!gone.has(this)) return arrayBuffer.call(this);
            return Promise.reject(new DOMException('', 'NotReadableError'));
        };
    }""",
    )
    page.locator(".thumb").last.click()
    message(page, "the browser can no longer read it from its storage", "bad")
    assert shown(page) == "2"
    assert download(page)["seed"] == "2"


def test_an_input_picture_whose_file_is_gone_is_still_drawn_from_and_saved(
    page: Page, fake: FakeServer
) -> None:
    fail(
        page,
        """{
        const { arrayBuffer } = Blob.prototype;
        const read = new WeakSet();
        Blob.prototype.arrayBuffer = function () {
            if (this instanceof File && read.has(this)) {
                return Promise.reject(new DOMException('', 'NotReadableError'));
            }
            read.add(this);
            return arrayBuffer.call(this);
        };
    }""",
    )
    drop(page, "#input-well", "photo.png", picture(1, 96, 64), "image/png")
    page.wait_for_selector("#input-preview:visible")
    draw_seeds(page, 1, 2)
    assert download(page)["img"]
