"""Fixtures: a browser, a fake server, and the page opened from either of its two places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ui.browsing import FLAGS, FOLDER, OpenPage, find_chromium, ready
from ui.fake_server import FakeServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page


# Playwright's loop runs in this thread for as long as it is open: not longer than one module, so
# that the tests of others can use asyncio.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("needs Chromium: apt install chromium, or set TEST_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer().serve() as server:
        yield server


@pytest.fixture
def faults() -> list[str]:
    """What the page's scripts have failed at; a test that means it to happen clears the list."""
    return []


@pytest.fixture
def open_page(browser: Browser, fake: FakeServer, faults: list[str]) -> Iterator[OpenPage]:
    """Opens the page in a browser of its own; at the end no script of it may have failed."""
    contexts = []

    def note(line: ConsoleMessage) -> None:
        # A refused or failed request is what many tests are about; the rest are our mistakes.
        if line.type == "error" and "Failed to load resource" not in line.text:
            faults.append(line.text)

    def opener(place: str = "http", **options: Any) -> Page:
        context = browser.new_context(accept_downloads=True, **options)
        contexts.append(context)
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", note)
        if place == "http":
            page.goto(f"{fake.url}/")
        else:
            page.goto((FOLDER / "imagine-ui.html").as_uri())
            address = f"localStorage['imagine.address'] = JSON.stringify('{fake.url}')"
            page.evaluate(f"navigator.locks.query().then(() => {{ {address} }})")
            page.reload()
        return page

    yield opener
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """The page as served, with its server found."""
    opened = open_page()
    ready(opened)
    return opened
