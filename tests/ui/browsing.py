"""Finding a browser, and the steps that many tests of the page take with it."""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ui.fake_server import FakeServer

FOLDER = Path(__file__).parents[2] / "ui"
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")

OpenPage = Callable[..., "Page"]
Json = dict[str, Any]


def find_chromium() -> str | None:
    """The browser: `TEST_CHROMIUM`, else the first that is on the path."""
    given = os.environ.get("TEST_CHROMIUM")
    return given or next((path for name in NAMES if (path := shutil.which(name))), None)


def ready(page: Page) -> None:
    """Wait until the page has read what the server offers."""
    page.wait_for_selector("#server-status[data-state=ready]")
    page.locator("#sampler option").nth(1).wait_for(state="attached")


def connect(page: Page, url: str) -> None:
    """Enter the address of a server, as a person does."""
    page.click("#server-status")
    page.fill("#address", url)
    page.keyboard.press("Enter")


def visit(open_page: OpenPage, url: str, place: str = "http", model: str = "tiny") -> Page:
    """Open the page at a real server, or as a file that is told its address."""
    page = open_page(place)
    if place == "http":
        page.goto(f"{url}/")
    else:
        ready(page)
        connect(page, url)
    page.locator(f"#model option[value={model}]").wait_for(state="attached")
    page.locator("#server-note", has_text=url).wait_for()  # and not of the server before
    ready(page)
    return page


def small(page: Page, *, steps: int = 6) -> None:
    """Ask for little of the fake model."""
    for field, value in {"width": 128, "height": 64, "steps": steps}.items():
        page.fill(f"#{field}", str(value))
    page.select_option("#model", "tiny")
    page.select_option("#sampler", "test euler")


def start(page: Page, prompt: str = "a boat") -> None:
    """Begin a picture that something holds up."""
    page.fill("#prompt", prompt)
    page.click("#generate")
    page.wait_for_selector("#cancel:visible")


def draw(page: Page, prompt: str = "a boat", *, count: int = 1) -> None:
    """Make pictures, and wait until they are in the gallery."""
    before = page.locator(".thumb").count()
    page.fill("#prompt", prompt)
    page.fill("#n", str(count))
    page.click("#generate")
    page.locator(".thumb").nth(before + count - 1).wait_for()
    page.wait_for_selector("#generate:visible")


def enhance(page: Page, prompt: str) -> str:
    """Have the prompt made better by the table, which works everywhere."""
    page.fill("#prompt", prompt)
    if page.is_visible("#enhancer"):
        page.select_option("#enhancer", "table")
    page.click("#enhance")
    page.wait_for_selector("#enhance-undo:visible")
    until(lambda: page.input_value("#prompt") != prompt)
    return page.input_value("#prompt")


def save_settings(page: Page, folder: Path) -> Path:
    """Save the settings, as a file in `folder`."""
    with page.expect_download() as download:
        page.click("#save-settings")
    file = folder / "settings.json"
    download.value.save_as(file)
    return file


def drop(page: Page, target: str, name: str, data: bytes, kind: str = "") -> None:
    """Drop a file from outside the browser."""
    page.evaluate(
        """([target, name, data, type]) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, { type }));
            const options = { dataTransfer, bubbles: true, cancelable: true };
            for (const event of ['dragover', 'drop']) {
                document.querySelector(target).dispatchEvent(new DragEvent(event, options));
            }
        }""",
        [target, name, base64.b64encode(data).decode(), kind],
    )


def drag(page: Page, source: str, target: str) -> None:
    """Drag with the mouse, over the page and onto a target that may appear on the way."""
    page.hover(source)
    page.mouse.down()
    page.mouse.move(400, 300, steps=3)
    page.hover(target)
    page.hover(target)
    page.mouse.up()


def until(holds: Callable[[], object], *, within: float = 30.0) -> None:
    """Wait for something; the page's policy forbids the evaluation that Playwright's wait uses."""
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, f"still not so after {within} s"
        time.sleep(0.02)


def message(page: Page, text: str, kind: str | None = None) -> None:
    """Wait for a message that holds `text`."""
    where = f".message[data-kind={kind}]" if kind else ".message"
    page.locator(where, has_text=text).first.wait_for()


def asked(fake: FakeServer) -> Json:
    """The last request that the server got."""
    return fake.requests[-1]
