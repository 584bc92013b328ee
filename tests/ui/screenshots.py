"""Takes the screenshots of docs/page.md: `python tests/ui/screenshots.py [URL of a server]`."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file

from ui.browsing import FLAGS, draw, find_chromium, ready, until
from ui.fake_server import FakeServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
SIZES = {"phone": (390, 844), "laptop": (1366, 768), "wide": (1920, 1080)}
WIDEST = 1366  # pixels of a kept picture
LARGEST = 180_000  # bytes
PATIENCE = 600.0  # seconds: a real model may draw on a processor
PROMPTS = (
    "a yellow house in the snow at sunset",
    "a green boat by the sea on a sunny day",
    "a purple robot in a city at night",
    "a pink flower in the desert",
    "a blue rocket on mars at night",
    "a red cat on a meadow at sunset",
    "a white lighthouse by the sea at night",
)


@contextmanager
def opened(browser: Browser, url: str, size: str, scheme: str) -> Iterator[Page]:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        is_mobile=size == "phone",
        has_touch=size == "phone",
    )
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    page.goto(f"{url}/")
    ready(page)
    yield page
    context.close()


def keep(page: Page, name: str) -> None:
    """Save what is seen; in 256 colours where all of them would take too many bytes."""
    from PIL import Image

    page.mouse.move(0, 0)
    page.locator(".fields").evaluate("(fields) => fields.scrollTo(0, 0)")
    page.wait_for_timeout(500)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    if image.width > WIDEST:
        image = image.resize(
            (WIDEST, image.height * WIDEST // image.width), Image.Resampling.LANCZOS
        )
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.png"
    image.save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        palette = image.quantize(256)
        image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(
            path, optimize=True
        )
    print(f"{path.name}: {path.stat().st_size // 1000} kB")


def fill(page: Page) -> None:
    """Make a few pictures, each the same on every visit."""
    for number, prompt in enumerate(PROMPTS):
        page.fill("#seed", str(number + 1))
        draw(page, prompt)
    page.locator(".message").evaluate_all("(all) => all.forEach((one) => one.remove())")


def pick(page: Page) -> None:
    """Open the picker, with two LoRAs chosen."""
    page.keyboard.press("Escape")  # the comparison
    page.select_option("#model", "dreamshaper_8")
    page.click("#loras")
    for name in ("watercolour", "ink"):
        page.click(f"#picker .part[data-name={name}]")
    page.click("#picker .word >> nth=0")


def paint(page: Page) -> None:
    """Open the painter, with a part of a picture marked."""
    page.click("#act-repaint")
    page.wait_for_selector("#painter[open]")
    box = page.locator(".paint-view").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 90, y + 20)
    page.mouse.down()
    for dx, dy in ((-40, -50), (30, -60), (80, 0), (20, 30)):
        page.mouse.move(x + dx, y + dy, steps=8)
    page.mouse.up()


def take(browser: Browser, url: str) -> None:
    with opened(browser, url, "phone", "light") as page:
        keep(page, "phone-first-visit-light")
    with opened(browser, url, "laptop", "light") as page:
        fill(page)
        keep(page, "laptop-picture-light")
        page.click("#act-compare")
        page.wait_for_selector("#compare:visible")
        page.locator(".message").evaluate_all("(all) => all.forEach((one) => one.remove())")
        keep(page, "laptop-compare-light")
        page.keyboard.press("Escape")
        paint(page)
        keep(page, "laptop-painter-light")
        page.keyboard.press("Escape")
        page.wait_for_selector("#painter", state="hidden")
        if "dreamshaper_8" in page.locator("#model option").all_inner_texts():
            pick(page)
            keep(page, "laptop-picker-light")
    with opened(browser, url, "laptop", "dark") as page:
        fill(page)
        page.get_by_role("button", name="3:2").click()
        page.fill("#n", "5")
        page.click("#generate")
        until(lambda: 0 < page.locator(".tile.done").count() < 5, within=PATIENCE)
        keep(page, "laptop-variations-dark")
    with opened(browser, url, "wide", "dark") as page:
        fill(page)
        keep(page, "wide-picture-dark")
        page.emulate_media(color_scheme="light")
        keep(page, "wide-picture-light")
    with opened(browser, url, "phone", "dark") as page:
        fill(page)
        keep(page, "phone-picture-dark")


def main() -> None:
    from playwright.sync_api import sync_playwright

    enhancers = [{"name": "styles", "label": "Styles"}]
    with (
        FakeServer(step_seconds=0.05, enhancers=enhancers).serve() as fake,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(FLAGS))
        take(browser, sys.argv[1] if len(sys.argv) > 1 else fake.url)
        browser.close()


if __name__ == "__main__":
    main()
