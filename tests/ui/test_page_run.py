"""Making pictures on the page: progress, previews, cancelling, variations, and errors."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest

from ui.browsing import OpenPage, asked, connect, draw, message, ready, start, until

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from ui.fake_server import FakeServer

PLACES = pytest.mark.parametrize("place", ["http", "file"])


# --------------------------------------------------------------------------------- a picture


@PLACES
def test_the_first_visit_makes_a_doodle_in_one_click(
    open_page: OpenPage, fake: FakeServer, place: str
) -> None:
    page = open_page(place)
    ready(page)
    page.get_by_role("button", name="Draw my first doodle").click()
    page.wait_for_selector("#tools:visible")
    assert page.get_by_role("img", name="a red cat on a meadow at sunset").is_visible()
    assert page.inner_text("#shown-seed") == asked(fake)["seed"]
    assert page.locator(".thumb").count() == 1


@PLACES
def test_previews_and_progress_show_while_the_picture_is_drawn(
    open_page: OpenPage, fake: FakeServer, place: str
) -> None:
    fake.hold_at_step, fake.step_seconds = 12, 0.03
    page = open_page(place)
    ready(page)
    start(page)
    page.get_by_role("img", name="Preview: a boat").wait_for()
    until(lambda: "Step 11 of 25" in page.inner_text("#saying"))
    assert re.search(r"about \d+ s left", page.inner_text("#saying"))
    bar = page.get_by_role("progressbar")
    assert bar.get_attribute("aria-valuenow") == "44"
    assert "Step 11 of 25" in str(bar.get_attribute("aria-valuetext"))
    assert page.title() == "44% · Imagine"
    fake.released.set()
    page.wait_for_selector("#tools:visible")
    assert page.title() == "Imagine"
    assert page.locator("#tiles img").last.get_attribute("alt") == "a boat"  # it fades in


def test_the_time_left_is_counted_from_the_pace(page: Page) -> None:
    left = page.evaluate(
        """async () => {
            await Imagine.parts.load('run');
            const progress = new Imagine.progress.Progress(1, 10);
            progress.take(0, {status: 'progress', step: 1, steps: 10}, 1000);
            const early = progress.secondsLeft(1000);
            progress.take(0, {status: 'progress', step: 4, steps: 10}, 7000);
            return [early, progress.secondsLeft(7000)];
        }"""
    )
    assert left == [None, 12]


def test_the_place_in_the_queue_is_shown(page: Page, fake: FakeServer) -> None:
    fake.queue_position, fake.hold_at_phase = 3, "queued"
    start(page)
    until(lambda: page.inner_text("#saying") == "Waiting, 3 ahead in the queue")
    assert page.inner_text("#announce") == "Waiting, 3 ahead in the queue"


def test_loading_and_finishing_are_said(page: Page, fake: FakeServer) -> None:
    fake.hold_at_phase = "loading"
    start(page)
    until(lambda: page.inner_text("#saying") == "Loading the model")


def test_without_previews_only_the_progress_shows(page: Page, fake: FakeServer) -> None:
    fake.hold_at_step = 5
    page.click("#more > summary")
    page.fill("#stream", "0")
    start(page)
    until(lambda: "Step 4 of 25" in page.inner_text("#saying"))
    assert page.locator("#tiles img").count() == 0
    fake.released.set()
    page.wait_for_selector("#tools:visible")


def test_ctrl_enter_generates_from_within_the_prompt(page: Page, fake: FakeServer) -> None:
    page.fill("#prompt", "a boat")
    page.focus("#prompt")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#tools:visible")
    assert asked(fake)["prompt"] == "a boat"


def test_what_the_server_remarks_is_shown(page: Page, fake: FakeServer) -> None:
    fake.warnings = ["the prompt was read in 2 chunks"]
    draw(page)
    message(page, "the prompt was read in 2 chunks", "warn")


# -------------------------------------------------------------------------------- cancelling


@PLACES
def test_escape_cancels_and_the_server_is_free_at_once(
    open_page: OpenPage, fake: FakeServer, place: str
) -> None:
    fake.hold_at_step = 3
    page = open_page(place)
    ready(page)
    start(page)
    until(lambda: fake.steps_done == 2)
    page.keyboard.press("Escape")
    message(page, "Cancelled.", "info")
    until(lambda: fake.running == 0)
    assert fake.steps_done == 2
    assert page.locator(".thumb").count() == 0
    assert page.is_visible("#generate")
    assert page.inner_text(".tile-word") == "Cancelled"


def test_the_cancel_button_cancels_all_variations(page: Page, fake: FakeServer) -> None:
    fake.hold_at_step = 3
    page.fill("#n", "3")
    start(page)
    until(lambda: fake.running == 3)
    page.click("#cancel")
    until(lambda: fake.running == 0)
    message(page, "Cancelled.")


# -------------------------------------------------------------------------------- variations


def test_variations_have_the_seeds_that_follow_and_show_as_they_finish(
    page: Page, fake: FakeServer
) -> None:
    fake.hold_for_seed = 1
    page.fill("#seed", str(2**64 - 2))
    page.fill("#n", "6")
    start(page)
    until(lambda: page.inner_text("#saying").startswith("5 of 6 finished"))
    assert page.locator(".tile.done").count() == 5
    fake.released.set()
    page.locator(".tile.done").nth(5).wait_for()
    page.wait_for_selector("#generate:visible")
    seeds = {int(request["seed"]) for request in fake.requests}
    assert seeds == {2**64 - 2, 2**64 - 1, 0, 1, 2, 3}  # 1 is held up, not the others
    assert page.locator(".thumb").count() == 6


def test_a_tile_of_the_grid_opens_its_picture_and_the_grid_comes_back(page: Page) -> None:
    page.fill("#seed", "40")
    draw(page, count=4)
    page.locator("#tiles .tile").nth(2).click()
    page.wait_for_selector("#shown img:visible")
    assert page.inner_text("#shown-seed") == "42"
    page.get_by_role("button", name="All variations").click()
    assert page.locator("#tiles .tile:visible").count() == 4


def test_a_picture_of_the_gallery_can_be_looked_at_during_a_run(
    page: Page, fake: FakeServer
) -> None:
    draw(page, "a house")
    fake.hold_at_step = 5
    start(page)
    page.locator(".thumb").first.click()
    page.wait_for_selector("#shown img:visible")
    fake.released.set()
    page.wait_for_selector("#generate:visible")
    assert page.locator("#caption").inner_text().startswith("a house")  # it stays
    assert page.locator(".thumb").count() == 2


# ------------------------------------------------------------------------------------ img2img


def test_an_input_picture_is_shown_sent_and_removed(
    page: Page, fake: FakeServer, tmp_path: Path
) -> None:
    from PIL import Image

    file = tmp_path / "start.png"
    Image.new("RGB", (96, 64), "red").save(file)
    page.set_input_files("#input-file", file)
    page.wait_for_selector("#input-preview:visible")
    assert "96 \u00d7 64" in page.inner_text("#input-text")
    page.fill("#strength", "0.55")
    draw(page)
    assert asked(fake)["strength"] == 0.55
    assert len(asked(fake)["img"]) > 100
    page.click("#input-remove")
    draw(page)
    assert "img" not in asked(fake)
    assert "strength" not in asked(fake)


def test_a_file_that_is_no_picture_is_no_input(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "start.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    page.set_input_files("#input-file", file)
    message(page, "start.png is not a picture", "bad")
    assert page.is_hidden("#input-preview")


# ------------------------------------------------------------------------------ what goes wrong


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_no_server_is_told_with_what_to_do(open_page: OpenPage, fake: FakeServer) -> None:
    page = open_page("file")
    ready(page)
    connect(page, f"http://127.0.0.1:{free_port()}")
    page.wait_for_selector("#server-status[data-state=away]")
    page.fill("#prompt", "a boat")
    page.click("#generate")
    message(page, "No answer from http://127.0.0.1", "bad")
    page.get_by_role("button", name="Server address", exact=True).click()
    assert page.locator("#address:focus").count() == 1
    page.fill("#address", fake.url)
    page.keyboard.press("Enter")
    ready(page)
    draw(page)


def test_a_server_that_comes_up_later_is_found(open_page: OpenPage, fake: FakeServer) -> None:
    fake.down = True
    page = open_page()
    page.wait_for_selector("#server-status[data-state=failing]")
    fake.down = False
    ready(page)


@pytest.mark.parametrize(
    ("health", "state", "text"),
    [
        ({"status": "starting", "ready": False}, "loading", "Server is getting ready"),
        ({"status": "stopping", "ready": False}, "stopping", "Server is stopping"),
        ({"status": "failed", "ready": False, "message": "no GPU"}, "failing", "no GPU"),
        ({"status": "stalled", "ready": False, "message": "'x' holds it"}, "failing", "'x' holds"),
        ({"status": "ready", "ready": True, "device": "cuda"}, "ready", "Ready on cuda"),
    ],
)
def test_the_state_of_the_server_is_shown(
    open_page: OpenPage, fake: FakeServer, health: dict[str, object], state: str, text: str
) -> None:
    fake.health = health
    page = open_page()
    pill = page.locator(f"#server-status[data-state={state}]")
    pill.wait_for()
    assert text in pill.inner_text() + str(pill.get_attribute("title"))


def test_a_lost_connection_is_told_apart_from_an_error(page: Page, fake: FakeServer) -> None:
    fake.lose_at_step = 4
    page.fill("#prompt", "a boat")
    page.click("#generate")
    message(page, "The connection was lost.", "bad")
    fake.lose_at_step = None
    page.get_by_role("button", name="Try again").click()
    page.locator(".thumb").first.wait_for()


def test_an_error_in_the_stream_is_told_in_the_servers_words(page: Page, fake: FakeServer) -> None:
    fake.fail_at_step = 4
    page.fill("#prompt", "a boat")
    page.click("#generate")
    message(page, "Error from the server: the device has no memory", "bad")
    assert page.inner_text(".tile-word") == "Not finished"


def test_a_request_that_is_refused_leaves_the_stage_as_it_was(page: Page, fake: FakeServer) -> None:
    fake.refuse = (503, {"type": "busy", "message": "the queue is full"})
    page.fill("#prompt", "a boat")
    page.click("#generate")
    message(page, "the queue is full", "bad")
    assert page.is_visible("#welcome")
    fake.refuse = None
    draw(page, "a house")
    fake.refuse = (503, {"type": "busy", "message": "the queue is full"})
    page.click("#generate")
    message(page, "the queue is full", "bad")
    page.wait_for_selector("#shown img:visible")
    assert page.inner_text(".caption-prompt") == "a house"


def test_a_full_queue_says_when_to_try_again(page: Page, fake: FakeServer) -> None:
    fake.refuse = (503, {"type": "busy", "message": "the queue is full"})
    page.fill("#prompt", "a boat")
    page.click("#generate")
    message(page, "the queue is full. It says to try again in 7 seconds.", "bad")


def test_an_internal_error_names_its_id(page: Page, fake: FakeServer) -> None:
    fake.refuse = (500, {"type": "internal", "message": "the server failed", "id": "c0ffee"})
    page.fill("#prompt", "a boat")
    page.click("#generate")
    message(page, "the server's log has more under c0ffee", "bad")


def test_what_is_no_imagine_server_is_called_so(page: Page, fake: FakeServer) -> None:
    fake.nonsense = True
    page.fill("#prompt", "a boat")
    page.click("#generate")
    message(page, "is not an Imagine server", "bad")


def test_one_failed_variation_leaves_the_finished_ones(page: Page, fake: FakeServer) -> None:
    fake.fail_for_seed, fake.step_seconds = 12, 0.002
    page.fill("#seed", "10")
    page.fill("#prompt", "a boat")
    page.fill("#n", "3")
    page.click("#generate")
    message(page, "the device has no memory", "bad")
    assert page.locator(".tile.done").count() == 2
    assert page.locator(".thumb").count() == 2
