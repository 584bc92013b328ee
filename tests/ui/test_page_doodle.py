"""The page against a live server with the bundled model: real pictures, from both places."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import imagine_plugins
from ui.browsing import OpenPage, connect, message, ready, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

MODEL = Path(imagine_plugins.__file__).parent / "doodle" / "models" / "doodle"
SLOW = 120.0  # seconds: for a busy machine to load the model and draw


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a process of its own, as a user starts it."""
    if not MODEL.exists():
        pytest.skip("needs the bundled model doodle, which this checkout does not have yet")
    empty = tmp_path_factory.mktemp("models")
    command = [sys.executable, "-m", "imagine_core", "serve", "--host", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(
        [*command, "-d", "cpu", "--models", str(empty)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "IMAGINE_API_KEY": ""},
    ) as process:
        assert process.stderr is not None
        found = (re.search(r"http://[\w.:]+", line) for line in process.stderr)
        try:
            yield next(match[0] for match in found if match)
        finally:
            process.terminate()
            process.stderr.close()


def visit(open_page: OpenPage, url: str, place: str) -> Page:
    page = open_page(place)
    if place == "http":
        page.goto(f"{url}/")
    else:
        ready(page)
        connect(page, url)
    page.locator("#model option[value=doodle]").wait_for(state="attached")
    ready(page)
    return page


@pytest.mark.parametrize("place", ["http", "file"])
def test_one_click_draws_a_picture_with_previews_and_it_reproduces(
    open_page: OpenPage, url: str, place: str
) -> None:
    from PIL import Image

    page = visit(open_page, url, place)
    page.fill("#steps", "8")
    page.click("#first")
    page.locator("#tiles img[alt^=Preview]").first.wait_for(timeout=SLOW * 1000)
    page.wait_for_selector("#tools:visible", timeout=SLOW * 1000)
    with page.expect_download() as download:
        page.click("#act-download")
    with Image.open(download.value.path()) as image:
        image.load()
        assert image.size == (512, 512)
        colours = image.convert("RGB").resize((16, 16)).getcolors(256)
        meta = json.loads(image.info["meta"])
    assert colours is not None
    assert len(colours) > 20  # a picture, and no empty canvas
    assert (meta["model"], meta["steps"]) == ("doodle", 8)
    assert meta["seed"] == page.inner_text("#shown-seed")


def test_cancel_stops_a_long_picture(open_page: OpenPage, url: str) -> None:
    page = visit(open_page, url, "http")
    page.fill("#steps", "500")
    page.fill("#prompt", "a blue rocket on mars")
    page.click("#generate")
    until(lambda: "of 500" in page.inner_text("#saying"), within=SLOW)
    page.keyboard.press("Escape")
    message(page, "Cancelled.")
    running = "fetch('/ps').then((reply) => reply.json()).then((status) => status.jobs.length)"
    until(lambda: page.evaluate(running) == 0, within=SLOW)


def test_every_sampler_of_the_server_is_on_the_page(open_page: OpenPage, url: str) -> None:
    page = visit(open_page, url, "http")
    offered = page.locator("#sampler option").evaluate_all("(all) => all.map((one) => one.value)")
    names = "fetch('/samplers').then((reply) => reply.json()).then((body) => body.samplers)"
    assert sorted(offered) == sorted(page.evaluate(names))
    readme = {"ddim", "euler", "euler a", "heun", "lms", "dpm++ 2m", "dpm++ 2s", "dpm++ sde"}
    assert readme | {"dpm2", "dpm2 a"} <= set(offered)
