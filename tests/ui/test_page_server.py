"""The page against the real server, engine and all; only the model's weights are a fake."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from calls import app_of, live
from imagine_core import SamplerSpec, hookimpl
from imagine_core.settings import ServerSettings
from imagine_core.testing import FakePlugin, build_test_engine, euler
from imagine_core.version import version
from programs import command
from ui.browsing import OpenPage, draw, drop, enhance, message, ready, small, start, until, visit

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


def come(open_page: OpenPage, url: str, place: str = "http") -> Page:
    page = visit(open_page, url, place)
    small(page)
    return page


def meta_of_download(page: Page) -> dict[str, Any]:
    """The settings in the shown picture, downloaded."""
    from PIL import Image

    with page.expect_download() as download:
        page.click("#act-download")
    with Image.open(download.value.path()) as image:
        meta: dict[str, Any] = json.loads(image.info["meta"])
    return meta


@PLACES
def test_a_picture_is_drawn_and_carries_its_settings(
    open_page: OpenPage, url: str, place: str
) -> None:
    from PIL import Image

    page = come(open_page, url, place)
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
def test_loras_embeddings_and_vaes_of_the_server_are_picked_drawn_with_and_restored(
    open_page: OpenPage, url: str, place: str, tmp_path: Path
) -> None:
    for name in ("loras/ink", "loras/other", "embeddings/bad", "vae/negative", "vae/fast"):
        file = tmp_path / "models" / f"{name}.fake"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"fake")
    page = come(open_page, url, place)
    page.click("#server-status")
    page.click("#connect")  # the VAEs are there only now
    page.click("#more > summary")
    page.select_option("#vae", "negative")
    page.check("#decoder")
    page.click("#loras")
    page.click("#picker .part[data-name=ink]")
    assert page.locator("#picker .part").count() == 1
    page.locator("#picker").get_by_text("Embeddings", exact=True).click()
    page.click("#picker .part[data-name=bad]")
    page.keyboard.press("Escape")
    page.get_by_label("Weight of ink, slider").fill("-0.5")
    assert page.input_value("#prompt") == "bad"
    draw(page, "red, bad <lora:ink:0.25>")
    meta = meta_of_download(page)
    assert meta["prompt"].strip() == "red, bad"
    uses = [{"name": "ink", "weight": -0.5}, {"name": "ink", "weight": 0.25}]
    assert (meta["loras"], meta["vae"], meta["decoder"]) == (uses, "negative", "fast")
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"meta": meta}))
    page.click("#reset")
    page.set_input_files("#settings-file", file)
    until(lambda: page.locator(".lora").count() == 2)
    found = page.evaluate("Imagine.form.values()")
    assert (found["loras"], found["vae"], found["decoder"]) == (uses, "negative", "fast")
    drop(page, "#stage", "s.json", b'{"loras": [{"name": "other"}]}', "application/json")
    page.fill("#prompt", "red")
    page.click("#generate")
    until(lambda: "'other' is for other" in page.inner_text("#loras-error"))


def test_variations_share_the_engines_forwards(
    open_page: OpenPage, url: str, plugin: FakePlugin
) -> None:
    page = come(open_page, url)
    together = threading.Event()

    def before(_rows: int) -> None:
        together.wait(60)
        time.sleep(0.01)

    plugin.loader.before = before
    page.fill("#steps", "30")
    page.fill("#n", "4")
    start(page, "red")
    until(lambda: page.evaluate("Imagine.dom.remember.get('jobs', []).length") == 4)  # taken on
    together.set()
    page.wait_for_selector("#generate:visible")
    rows = plugin.loader.models[0].forwards
    assert max(rows) > 2  # more than one picture (two rows with guidance) at a time
    assert page.locator(".tile.done").count() == 4


def test_the_server_names_the_fields_that_it_refuses(open_page: OpenPage, url: str) -> None:
    page = come(open_page, url)
    page.click("#more > summary")
    page.evaluate("Imagine.wrong.problems = () => []")  # the page would not have sent it
    page.fill("#clip", "99")
    page.fill("#prompt", "red")
    page.click("#generate")
    message(page, "The server cannot draw this: see the marked fields.", "bad")
    assert page.inner_text("#clip-error") != ""
    assert page.get_attribute("#clip", "aria-invalid") == "true"
    assert page.locator(".thumb").count() == 0


def test_previews_stream_and_img2img_counts_its_own_steps(open_page: OpenPage, url: str) -> None:
    page = come(open_page, url)
    draw(page, "red")
    page.click("#act-input")
    page.wait_for_selector("#input-preview:visible")
    page.fill("#strength", "0.5")
    page.evaluate(
        """() => {
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


@PLACES
def test_the_server_knows_all_that_the_page_can_send(
    open_page: OpenPage, url: str, place: str
) -> None:
    page = come(open_page, url, place)
    draw(page, "red")
    page.click("#act-input")
    page.wait_for_selector("#input-preview:visible")
    page.click("#more > summary")
    page.check("#hires-on")
    page.check("#deterministic")
    page.select_option("#preview", "vae")
    entered = {"neg": "dull", "steps": 7, "guidance": 5.5, "clip": 2, "strength": 0.65}
    entered |= {"hires": 1.5, "stream": 2, "seed": "18446744073709551615"}
    for name, value in entered.items():
        page.fill(f"#{name}", str(value))
    draw(page, "blue")
    assert page.locator(".message[data-kind=warn]").count() == 0  # such as of unknown keys
    meta = meta_of_download(page)
    assert {name: meta[name] for name in entered if name != "stream"} == {
        name: value for name, value in entered.items() if name != "stream"
    }
    assert (meta["prompt"], meta["model"], meta["width"]) == ("blue", "tiny", 128)
    assert meta["img"]  # the input picture, too


@pytest.mark.parametrize("suffix", [".png", ".json"])
def test_the_files_of_imagine_run_bring_back_settings_and_picture(
    open_page: OpenPage, url: str, tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"red{suffix}"
    asked = ["run", "a red door", "-a", url, "-m", "tiny", "-w", "128", "-h", "64", "-n", "9"]
    asked += ["--seed", str(2**64 - 1), "--neg", "dull", "-o", str(tmp_path / "red.png")]
    meta = ["--meta"] if suffix == ".json" else []
    subprocess.run(command(*asked, *meta), check=True, capture_output=True, timeout=120)
    page = visit(open_page, url)
    page.set_input_files("#settings-file", file)
    message(page, f"Loaded {file.name}.", "good")
    values = page.evaluate("Imagine.form.values()")
    assert (values["prompt"], values["neg"], values["model"]) == ("a red door", "dull", "tiny")
    assert (values["width"], values["height"], values["steps"]) == (128, 64, 9)
    assert values["seed"] == str(2**64 - 1)
    page.get_by_role("img", name="a red door").wait_for()


def test_a_strangers_sampler_is_on_the_page(open_page: OpenPage, url: str) -> None:
    page = come(open_page, url)
    page.select_option("#sampler", label="Stranger's Way")
    draw(page, "red")
    assert "stranger" in page.inner_text("#caption")


@PLACES
def test_an_enhanced_prompt_keeps_what_it_was_made_of(
    open_page: OpenPage, url: str, place: str
) -> None:
    page = come(open_page, url, place)
    better = enhance(page, "a fox")
    assert "fox" in better
    draw(page, better)
    meta = meta_of_download(page)
    assert (meta["prompt"], meta["original_prompt"]) == (better, "a fox")
    page.reload()
    ready(page)
    draw(page, better)
    assert meta_of_download(page)["original_prompt"] == "a fox"  # the form is as it was
    page.fill("#prompt", f"{better}, at night")
    draw(page, f"{better}, at night")
    assert not meta_of_download(page).get("original_prompt")  # that is what the user wrote


def test_undo_goes_back_to_the_original_even_from_restored_settings(
    open_page: OpenPage, url: str
) -> None:
    page = come(open_page, url)
    better = enhance(page, "a fox")
    draw(page, better)
    page.click("#enhance-undo")
    assert page.input_value("#prompt") == "a fox"
    assert page.is_hidden("#enhance-undo")
    draw(page, "a fox")
    assert not meta_of_download(page).get("original_prompt")
    page.locator(".thumb").nth(1).click()
    until(lambda: page.inner_text(".caption-prompt") == better)
    page.reload()
    ready(page)
    page.locator(".thumb").nth(1).click()
    until(lambda: page.inner_text(".caption-prompt") == better)
    page.click("#act-restore")
    until(lambda: page.input_value("#prompt") == better)
    page.click("#enhance-undo")
    assert page.input_value("#prompt") == "a fox"


@PLACES
def test_the_servers_version_and_device_are_shown(
    open_page: OpenPage, url: str, place: str
) -> None:
    page = come(open_page, url, place)
    assert page.inner_text("#server-status-text") == "Ready on fake"
    assert page.inner_text("#server-note") == f"Imagine {version()} on fake, at {url}"


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
        page = come(open_page, url)
        page.fill("#steps", "900")
        plugin.loader.before = lambda _rows: time.sleep(0.05)
        page.fill("#prompt", "red")
        page.click("#generate")
        until(lambda: any(job.step > 2 for job in engine.status().jobs))
    page.locator(".message[data-kind=bad]").wait_for()
    text = page.inner_text(".message[data-kind=bad]")
    assert "shutting down" in text or "connection was lost" in text
