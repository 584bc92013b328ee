"""The page against the real server, engine and all; only the model's weights are a fake."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calls import app_of, live
from imagine_core import SamplerSpec, hookimpl
from imagine_core.settings import ServerSettings
from imagine_core.testing import FakePlugin, build_test_engine, euler
from ui.browsing import OpenPage, connect, draw, message, ready, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from imagine_core.engine import Engine

PLACES = pytest.mark.parametrize("place", ["http", "file"])


class Stranger:
    """Somebody's plugin with a sampler."""

    @hookimpl
    def register_samplers(self, register: Callable[[SamplerSpec], None]) -> None:
        register(SamplerSpec(name="stranger", label="Stranger's Way", sample=euler))


@pytest.fixture
def plugin() -> FakePlugin:
    return FakePlugin()


@pytest.fixture
def engine(tmp_path: Path, plugin: FakePlugin) -> Iterator[Engine]:
    built = build_test_engine(tmp_path / "models", plugin, extra=[("stranger", Stranger())])
    yield built
    built.close(grace=0)


@pytest.fixture
def url(engine: Engine) -> Iterator[str]:
    with live(app_of(engine), on_stop=engine.close) as address:
        yield address


def visit(open_page: OpenPage, url: str, place: str = "http") -> Page:
    """Open the page at the real server, or as a file that is told its address."""
    page = open_page(place)
    if place == "http":
        page.goto(f"{url}/")
    else:
        ready(page)
        connect(page, url)
    page.locator("#model option[value=tiny]").wait_for(state="attached")
    ready(page)
    page.fill("#width", "128")
    page.fill("#height", "64")
    page.fill("#steps", "6")
    page.select_option("#model", "tiny")
    page.select_option("#sampler", "test euler")
    return page


@PLACES
def test_a_picture_is_drawn_and_carries_its_settings(
    open_page: OpenPage, url: str, place: str
) -> None:
    from PIL import Image

    page = visit(open_page, url, place)
    page.fill("#seed", str(2**64 - 1))
    draw(page, "red")
    assert page.inner_text("#shown-seed") == str(2**64 - 1)
    assert page.locator(".message[data-kind=warn]").count() == 0
    with page.expect_download() as download:
        page.click("#act-download")
    with Image.open(download.value.path()) as image:
        image.load()
        assert image.size == (128, 64)
        meta = json.loads(image.info["meta"])
        assert image.info["parameters"].startswith("red\nSteps: 6, Sampler: Test Euler")
    assert (meta["seed"], meta["model"], meta["sampler"]) == (str(2**64 - 1), "tiny", "test euler")
    page.click("#reset")
    page.set_input_files("#settings-file", download.value.path())
    until(lambda: page.input_value("#prompt") == "red")
    assert page.input_value("#steps") == "6"


@PLACES
def test_cancel_frees_the_engine_within_a_step(
    open_page: OpenPage, url: str, engine: Engine, plugin: FakePlugin, place: str
) -> None:
    page = visit(open_page, url, place)
    page.fill("#steps", "500")
    plugin.loader.before = lambda _rows: time.sleep(0.05)
    page.fill("#prompt", "red")
    page.click("#generate")
    until(lambda: any(job.step > 2 for job in engine.status().jobs))
    until(lambda: "of 500" in page.inner_text("#saying"))
    page.keyboard.press("Escape")
    message(page, "Cancelled.")
    until(lambda: not engine.status().jobs, within=0.5)


def test_variations_share_the_engines_forwards(
    open_page: OpenPage, url: str, plugin: FakePlugin
) -> None:
    page = visit(open_page, url)
    plugin.loader.before = lambda _rows: time.sleep(0.02)
    draw(page, "red", count=4)
    rows = plugin.loader.models[0].forwards
    assert max(rows) > 2  # more than one picture (two rows with guidance) at a time
    assert page.locator(".tile.done").count() == 4


def test_the_server_names_the_fields_that_it_refuses(open_page: OpenPage, url: str) -> None:
    page = visit(open_page, url)
    page.click("#more > summary")
    page.evaluate("Imagine.dom.byId('clip').max = 100")  # as an older catalogue might have it
    page.fill("#clip", "99")
    page.fill("#prompt", "red")
    page.click("#generate")
    page.wait_for_selector("#clip-error:visible, .message[data-kind=bad]")
    assert page.locator(".thumb").count() == 0


def test_previews_stream_and_img2img_counts_its_own_steps(open_page: OpenPage, url: str) -> None:
    page = visit(open_page, url)
    draw(page, "red")
    page.click("#act-input")
    page.wait_for_selector("#input-preview:visible")
    page.fill("#strength", "0.5")
    lines: list[str] = []
    page.on("response", lambda reply: lines.append(reply.url))
    page.evaluate(
        """() => {
            const { generate } = Imagine.stream;
            globalThis.events = [];
            const { Progress } = Imagine.progress;
            const take = Progress.prototype.take;
            Progress.prototype.take = function (index, event, now) {
                events.push({ ...event, img: Boolean(event.img) });
                return take.call(this, index, event, now);
            };
        }"""
    )
    draw(page, "blue")
    events = page.evaluate("events")
    steps = [(event["step"], event["steps"]) for event in events if event.get("step")]
    assert steps[-1] == (3, 3)  # half of six
    assert any(event["img"] for event in events)
    assert {"queued", "denoising"} <= {event["status"] for event in events}


def test_a_strangers_sampler_is_on_the_page(open_page: OpenPage, url: str) -> None:
    page = visit(open_page, url)
    page.select_option("#sampler", label="Stranger's Way")
    draw(page, "red")
    assert "stranger" in page.inner_text("#caption")


def test_the_server_enhances_a_prompt_without_a_language_model(
    open_page: OpenPage, url: str
) -> None:
    page = visit(open_page, url)
    if page.is_disabled("#enhance"):
        pytest.skip(page.inner_text("#enhance-why"))
    page.fill("#prompt", "a fox")
    page.click("#enhance")
    page.wait_for_selector("#enhance-undo:visible")
    assert "fox" in page.input_value("#prompt")
    assert page.input_value("#prompt") != "a fox"


def test_the_page_opens_without_the_key_and_asks_for_it(
    open_page: OpenPage, engine: Engine
) -> None:
    settings = ServerSettings(host="127.0.0.1", api_key="sesame")
    with live(app_of(engine, settings), on_stop=engine.close) as url:
        page = open_page()
        page.goto(f"{url}/")
        message(page, "wants its API key", "bad")
        page.get_by_role("button", name="Enter the key").click()
        page.keyboard.type("sesame")
        page.keyboard.press("Enter")
        page.locator("#model option[value=tiny]").wait_for(state="attached")


def test_a_server_that_stops_in_the_middle_is_told_apart_from_an_error(
    open_page: OpenPage, engine: Engine, plugin: FakePlugin
) -> None:
    with live(app_of(engine), on_stop=lambda: engine.close(grace=0)) as url:
        page = visit(open_page, url)
        page.fill("#steps", "500")
        plugin.loader.before = lambda _rows: time.sleep(0.05)
        page.fill("#prompt", "red")
        page.click("#generate")
        until(lambda: any(job.step > 2 for job in engine.status().jobs))
    page.locator(".message[data-kind=bad]").wait_for()
    text = page.inner_text(".message[data-kind=bad]")
    assert "shutting down" in text or "connection was lost" in text
