"""Fixtures: a browser, a fake server, and the page opened from either of its two places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ui.browsing import FLAGS, FOLDER, OpenPage, find_chromium, ready
from ui.fake_server import FakeServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page


# Playwright's loop occupies this thread while open: close it after each module, so that other
# tests can use asyncio.
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
    """The errors of the page's scripts; a test that expects one clears the list."""
    return []


@pytest.fixture
def open_page(browser: Browser, fake: FakeServer, faults: list[str]) -> Iterator[OpenPage]:
    """Opens the page in its own browser, and checks for script errors at the end."""
    contexts = []

    def note(line: ConsoleMessage) -> None:
        # Many tests provoke refused or failed requests; other errors are our mistakes.
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
