"""The page against a live server with the bundled model: real pictures, from both places."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

from programs import serving_doodle
from ui.browsing import (
    OpenPage,
    drag,
    draw,
    drop,
    enhance,
    message,
    ready,
    save_settings,
    start,
    until,
    visit,
)  # fmt: skip

if TYPE_CHECKING:
    from playwright.sync_api import Page, Response

LARGEST = 150_000  # bytes
SLOW = 120.0  # seconds: for a busy machine to load the model and draw
PLACES = pytest.mark.parametrize("place", ["http", "file"])
IMAGINE = (sys.executable, "-m", "imagine_core")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving_doodle(tmp_path_factory.mktemp("models")) as (address, _):
        yield address


def come(open_page: OpenPage, url: str, place: str) -> Page:
    """Visit the page, and ask for little."""
    page = visit(open_page, url, place, "doodle")
    page.context.set_default_timeout(SLOW * 1000)
    until(lambda: offered(page) == sorted(get(f"{url}/samplers")["samplers"]), within=SLOW)
    for field, value in {"width": 96, "height": 64, "steps": 2}.items():
        page.fill(f"#{field}", str(value))
    return page


def offered(page: Page) -> list[str]:
    """The samplers on the page; opened as a file, it may still have those of another server."""
    options = page.locator("#sampler option")
    return sorted(options.evaluate_all("(all) => all.map((one) => one.value)"))


def get(url: str) -> Any:
    return httpx.get(url, timeout=SLOW).json()


def values(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("Imagine.form.values()")
    return found


def downloaded(page: Page) -> tuple[bytes, dict[str, Any]]:
    """The shown picture, downloaded: its pixels, and its settings."""
    with page.expect_download() as download:
        page.click("#act-download")
    with Image.open(download.value.path()) as image:
        return image.convert("RGB").tobytes(), json.loads(image.info["meta"])


@PLACES
def test_one_click_draws_a_picture_with_previews_and_it_reproduces(
    open_page: OpenPage, url: str, place: str
) -> None:
    from PIL import Image

    page = visit(open_page, url, place, "doodle")
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


@pytest.mark.parametrize("place", ["file"])
def test_variations_fill_a_grid_and_stay_in_the_gallery(
    open_page: OpenPage, url: str, place: str
) -> None:
    page = come(open_page, url, place)
    page.fill("#seed", "7")
    draw(page, "a red cat", count=3)
    assert page.locator("#tiles .tile.done").count() == 3
    page.reload()
    ready(page)
    labels = page.locator(".thumb").evaluate_all("(all) => all.map((one) => one.ariaLabel)")
    assert sorted(labels) == [f"a red cat, seed {seed}" for seed in (7, 8, 9)]
    page.locator(".thumb").last.click()
    page.keyboard.press("ArrowLeft")
    page.click("#act-compare")
    page.get_by_role("slider", name="Compare").press("Home")
    assert page.inner_text("#compare-tag-a") != page.inner_text("#compare-tag-b")
    page.keyboard.press("Escape")
    page.click("#act-delete")
    until(lambda: page.locator(".thumb").count() == 2)


@pytest.mark.parametrize("place", ["http"])
def test_a_locked_seed_draws_the_same_picture_and_a_random_one_another(
    open_page: OpenPage, url: str, place: str
) -> None:
    page = come(open_page, url, place)
    draw(page, "a blue boat")
    first, meta = downloaded(page)
    page.click("text=Lock")
    assert page.input_value("#seed") == meta["seed"]
    draw(page, "a blue boat")
    assert downloaded(page)[0] == first
    page.click("text=Random")
    draw(page, "a blue boat")
    assert downloaded(page)[0] != first


@pytest.mark.parametrize("place", ["file"])
def test_the_picture_of_imagine_run_is_dropped_and_drawn_again(
    open_page: OpenPage, url: str, tmp_path: Path, place: str
) -> None:
    from PIL import Image

    file = tmp_path / "rocket.png"
    asked = ["run", "a blue rocket on mars", "-a", url, "-w", "64", "-h", "96", "-n", "3"]
    subprocess.run(
        [*IMAGINE, *asked, "--seed", str(2**64 - 1), "-o", str(file)],
        check=True,
        capture_output=True,
        timeout=SLOW,
    )
    page = come(open_page, url, place)
    drop(page, "#stage", file.name, file.read_bytes(), "image/png")
    message(page, "Loaded rocket.png.", "good")
    draw(page, values(page)["prompt"])
    pixels, meta = downloaded(page)
    with Image.open(file) as image:
        assert pixels == image.convert("RGB").tobytes()
        written = json.loads(image.info["meta"])
    kept = ("prompt", "neg", "model", "width", "height", "steps", "seed", "sampler", "guidance")
    assert {name: meta[name] for name in kept} == {name: written[name] for name in kept}


@pytest.mark.parametrize("place", ["http"])
def test_a_picture_of_the_gallery_is_dragged_back_as_input_and_as_settings(
    open_page: OpenPage, url: str, place: str
) -> None:
    page = come(open_page, url, place)
    page.fill("#seed", "5")
    draw(page, "a yellow house")
    drag(page, ".thumb", "#drop [data-do=input]")
    page.wait_for_selector("#input-preview:visible")
    page.fill("#strength", "0.5")
    draw(page, "a green house")
    assert downloaded(page)[1]["strength"] == 0.5
    page.click("#reset")
    drag(page, ".thumb:last-child", "#drop [data-do=restore]")
    message(page, "Settings restored.")
    found = values(page)
    assert (found["prompt"], found["seed"], found["steps"]) == ("a yellow house", "5", 2)
    assert page.is_hidden("#input-preview")


@pytest.mark.parametrize("place", ["file"])
def test_hires_draws_and_settings_are_saved_and_loaded(
    open_page: OpenPage, url: str, tmp_path: Path, place: str
) -> None:
    page = come(open_page, url, place)
    page.get_by_role("button", name="3:2").click()
    page.fill("#width", "96")
    page.fill("#height", "64")
    page.click("#swap")
    page.click("#more > summary")
    page.check("#hires-on")
    draw(page, "a white lighthouse")
    meta = downloaded(page)[1]
    assert (meta["width"], meta["height"], meta["hires"]) == (64, 96, 1.5)
    page.click("#seed-reuse")
    before = values(page)
    file = save_settings(page, tmp_path)
    page.click("#reset")
    page.set_input_files("#settings-file", file)
    message(page, "Loaded settings.json.", "good")
    assert values(page) == before
    page.locator(".thumb").nth(1).wait_for()  # the picture came with them


@pytest.mark.parametrize("place", ["http"])
def test_a_better_prompt_is_drawn_and_undone(open_page: OpenPage, url: str, place: str) -> None:
    page = come(open_page, url, place)
    better = enhance(page, "a fox")
    draw(page, better)
    meta = downloaded(page)[1]
    assert (meta["prompt"], meta["original_prompt"]) == (better, "a fox")
    page.click("#enhance-undo")
    assert page.input_value("#prompt") == "a fox"


@pytest.mark.parametrize("place", ["file"])
def test_a_page_that_was_left_finds_its_picture_again(
    open_page: OpenPage, url: str, place: str
) -> None:
    page = come(open_page, url, place)
    page.fill("#steps", "20")
    start(page, "a pink flower")
    until(lambda: "of 20" in page.inner_text("#saying"), within=SLOW)
    page.reload()
    message(page, "that you left behind is finished", "good")
    assert page.locator(".thumb").count() == 1


@pytest.mark.parametrize("place", ["http"])
def test_cancel_stops_a_long_picture(open_page: OpenPage, url: str, place: str) -> None:
    page = come(open_page, url, place)
    page.fill("#steps", "900")
    start(page, "a blue rocket on mars")
    until(lambda: "of 900" in page.inner_text("#saying"), within=SLOW)
    page.keyboard.press("Escape")
    message(page, "Cancelled.")
    until(lambda: not get(f"{url}/ps")["jobs"], within=SLOW)


def test_a_server_that_is_killed_in_the_middle_is_a_lost_connection(
    open_page: OpenPage, tmp_path: Path
) -> None:
    with serving_doodle(tmp_path) as (url, process):
        page = come(open_page, url, "file")
        page.fill("#steps", "900")
        start(page, "a blue rocket on mars")
        until(lambda: "of 900" in page.inner_text("#saying"), within=SLOW)
        process.kill()
        message(page, "The connection was lost.", "bad")
        page.wait_for_selector("#server-status[data-state=away]")
        assert page.is_visible("#generate")


@pytest.mark.parametrize("place", ["file"])
def test_what_the_server_offers_is_on_the_page(open_page: OpenPage, url: str, place: str) -> None:
    page = come(open_page, url, place)
    readme = {"ddim", "euler", "euler a", "heun", "lms", "dpm++ 2m", "dpm++ 2s", "dpm++ sde"}
    assert readme | {"dpm2", "dpm2 a"} <= set(offered(page))
    details = {one["name"]: one for one in get(f"{url}/samplers")["details"]}
    page.select_option("#sampler", "euler a")
    schedules = page.locator("#schedule option").all_inner_texts()
    assert schedules == details["euler a"]["schedules"]
    limits = get(f"{url}/models")["limits"]
    shown = {name: page.get_attribute(f"#{name}", "max") for name in ("steps", "n")}
    assert shown == {"steps": str(limits["steps"]), "n": str(limits["images"])}


@PLACES
def test_a_part_is_repainted_the_rest_stays_and_the_result_is_enlarged(
    open_page: OpenPage, url: str, place: str
) -> None:
    page = come(open_page, url, place)
    draw(page, "a red boat")
    before, _ = downloaded(page)
    page.click("#act-repaint")
    page.wait_for_selector("#painter[open]")
    page.locator("#brush-size").fill("24")
    page.focus(".paint-view")
    page.keyboard.press("Space")  # in the middle of 96 x 64
    page.keyboard.press("Escape")
    page.wait_for_selector("#mask_blur:visible")
    page.fill("#mask_blur", "0")
    page.select_option("#mask_fill", "noise")
    page.fill("#strength", "1")
    draw(page, "a blue house")
    after, meta = downloaded(page)
    assert Image.open(io.BytesIO(base64.b64decode(meta["mask"]))).size == (96, 64)
    changed = [at // 3 for at in range(len(before)) if before[at] != after[at]]
    places = [(at % 96 - 48, at // 96 - 32) for at in changed]
    assert len(set(places)) > 50
    assert max(x * x + y * y for x, y in places) <= 13**2
    page.click("#act-enlarge")
    page.wait_for_selector("#enlarge[open]")
    page.locator("#enlarge-upscaler option").nth(1).wait_for(state="attached")
    page.click("#enlarge .primary")
    page.wait_for_selector("#compare:visible")
    page.keyboard.press("Escape")
    large, meta = downloaded(page)
    assert len(large) == 4 * len(after)
    assert meta["prompt"] == "a blue house"


def test_a_second_pass_keeps_the_larger_picture(open_page: OpenPage, url: str) -> None:
    page = come(open_page, url, "http")
    page.click("#more > summary")
    page.check("#hires-on")
    page.wait_for_selector("#hires_steps:visible")
    page.fill("#hires", "2")
    page.check("#keep_size")
    page.fill("#hires_steps", "3")
    page.fill("#subseed_strength", "0.3")
    page.select_option("#tiling", "true")
    page.check("#vae_tiling")
    draw(page)
    pixels, meta = downloaded(page)
    assert len(pixels) == 192 * 128 * 3
    assert (meta["hires"], meta["keep_size"], meta["hires_steps"]) == (2, True, 3)
    assert (meta["tiling"], meta["vae_tiling"], meta["subseed_strength"]) == (True, True, 0.3)


def test_a_first_visit_is_under_150_kb_with_all_that_the_server_says(
    open_page: OpenPage, url: str
) -> None:
    page = open_page()
    page.goto("about:blank")
    answers: list[Response] = []

    def note(answer: Response) -> None:
        answers.append(answer)

    page.context.on("response", note)
    page.goto(f"{url}/")
    ready(page)
    page.wait_for_load_state("networkidle")
    sizes = {answer.url: len(answer.body()) for answer in answers}
    assert {f"{url}/", f"{url}/samplers", f"{url}/js/app.js"} <= set(sizes)
    assert sum(sizes.values()) < LARGEST
