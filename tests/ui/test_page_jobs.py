"""Runs of the page at the real server: left, lost, found again, waited for and cancelled."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calls import app_of, live
from gates import Gate
from imagine_core.settings import Settings
from imagine_core.testing import FakePlugin, build_test_engine
from ui.browsing import OpenPage, draw, message, ready, small, start, until, visit
from ui.steering import Line

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from imagine_core.engine import Engine

PLACES = pytest.mark.parametrize("place", ["http", "file"])
FOUND = "The picture that you left behind is finished."


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def engine(tmp_path: Path, gate: Gate) -> Iterator[Engine]:
    plugin = FakePlugin()
    plugin.loader.before = gate
    folder = tmp_path / "models"
    # One picture with guidance takes two rows: a second one waits.
    built = build_test_engine(folder, plugin, settings=Settings(models=folder, max_rows=2))
    yield built
    built.close(grace=0)


@pytest.fixture
def url(engine: Engine, gate: Gate) -> Iterator[str]:
    with live(app_of(engine), on_stop=engine.close) as address:
        yield address
        gate.open()


@pytest.fixture
def line(url: str, gate: Gate) -> Iterator[Line]:
    with Line(url).running() as between:
        yield between
        gate.open()


def come(open_page: OpenPage, url: str, place: str = "http", *, steps: int = 6) -> Page:
    page = visit(open_page, url, place)
    small(page, steps=steps)
    return page


def start_and_hold(page: Page, gate: Gate, *, after: int = 3) -> None:
    """Begin a picture, and wait until it stands at a step, and the page says so."""
    gate.hold_after(after)
    start(page)
    until(lambda: saying(page).startswith(f"Step {after} of"))


def saying(page: Page) -> str:
    return page.inner_text("#saying")


def noted(page: Page) -> list[object]:
    jobs: list[object] = page.evaluate("Imagine.dom.remember.get('jobs', [])")
    return jobs


def none_at_work(engine: Engine) -> Callable[[], bool]:
    return lambda: not engine.status().jobs


# -------------------------------------------------------------------------------------- left


@PLACES
def test_a_page_that_is_loaded_again_goes_on_with_its_run(
    open_page: OpenPage, url: str, gate: Gate, place: str
) -> None:
    page = come(open_page, url, place)
    start_and_hold(page, gate)
    page.reload()
    until(lambda: saying(page) == "Step 3 of 6")
    assert page.is_visible("#cancel")
    gate.open()
    message(page, FOUND, "good")
    page.locator("#tiles img[alt='a boat']").wait_for()
    page.wait_for_selector("#tools:visible")
    assert page.locator(".thumb").count() == 1
    page.reload()
    ready(page)
    assert (page.locator(".thumb").count(), noted(page)) == (1, [])


@PLACES
def test_a_picture_that_was_finished_meanwhile_is_there_at_the_next_visit(
    open_page: OpenPage, url: str, gate: Gate, engine: Engine, place: str
) -> None:
    page = come(open_page, url, place)
    address = page.url
    page.fill("#seed", "77")
    start_and_hold(page, gate)
    page.goto("about:blank")
    gate.open()
    until(none_at_work(engine))
    page.goto(address)
    message(page, FOUND, "good")
    assert page.inner_text("#shown-seed") == "77"
    assert "tiny" in page.inner_text("#caption")


def test_all_variations_of_a_run_that_was_left_are_found(
    open_page: OpenPage, url: str, gate: Gate
) -> None:
    page = come(open_page, url)
    page.fill("#n", "3")
    gate.hold_after(2)
    page.fill("#seed", "5")
    start(page)
    until(lambda: len(noted(page)) == 3)
    page.reload()
    page.wait_for_selector("#cancel:visible")
    gate.open()
    message(page, "The pictures that you left behind are finished.", "good")
    labels = page.locator(".thumb").evaluate_all("(all) => all.map((one) => one.ariaLabel)")
    assert sorted(labels) == ["a boat, seed 5", "a boat, seed 6", "a boat, seed 7"]
    assert page.locator("#tiles .tile.done").count() == 3


def test_another_window_leaves_a_run_to_the_one_that_began_it(
    open_page: OpenPage, url: str, gate: Gate
) -> None:
    page = come(open_page, url)
    start_and_hold(page, gate)
    other = page.context.new_page()
    other.goto(f"{url}/")
    ready(other)
    other.wait_for_timeout(1000)  # longer than it takes to find a job
    assert other.is_hidden("#cancel")
    gate.open()
    page.locator(".thumb").wait_for()
    other.reload()
    ready(other)
    assert other.locator(".thumb").count() == 1


def test_a_server_that_was_started_anew_has_kept_nothing_and_that_is_said(
    open_page: OpenPage, url: str, gate: Gate
) -> None:
    page = come(open_page, url)
    start_and_hold(page, gate)
    unknown = "remember.get('jobs').map((job) => ({ ...job, id: '0'.repeat(24) }))"
    page.evaluate(f"(({{ remember }}) => remember.set('jobs', {unknown}))(Imagine.dom)")
    page.reload()
    message(page, "did not keep the picture", "warn")
    gate.open()
    page.get_by_role("button", name="Make it again").click()
    page.locator(".thumb").wait_for()


# -------------------------------------------------------------------------------------- lost


@PLACES
def test_after_a_lost_connection_the_run_goes_on(
    open_page: OpenPage, line: Line, gate: Gate, place: str
) -> None:
    page = come(open_page, line.url, place)
    start_and_hold(page, gate)
    line.hang_up()
    gate.open()
    page.locator(".thumb").wait_for()
    page.wait_for_selector("#generate:visible")
    assert page.locator(".message[data-kind=bad]").count() == 0
    assert noted(page) == []


@PLACES
def test_a_server_that_is_out_of_reach_for_a_while_still_brings_the_picture(
    open_page: OpenPage, line: Line, gate: Gate, place: str
) -> None:
    page = come(open_page, line.url, place)
    start_and_hold(page, gate)
    line.cut()
    message(page, "The connection was lost.", "bad")
    page.wait_for_selector("#server-status[data-state=away]")
    gate.open()
    line.mend()
    message(page, FOUND, "good")
    assert page.locator(".thumb").count() == 1


def test_a_server_that_comes_back_without_the_picture_leaves_one_message(
    open_page: OpenPage, line: Line, gate: Gate
) -> None:
    page = come(open_page, line.url, "file")
    start_and_hold(page, gate)
    line.cut()
    message(page, "The connection was lost.", "bad")
    page.wait_for_selector("#server-status[data-state=away]")
    unknown = "remember.get('jobs').map((job) => ({ ...job, id: '0'.repeat(24) }))"
    page.evaluate(f"(({{ remember }}) => remember.set('jobs', {unknown}))(Imagine.dom)")
    line.mend()
    message(page, "did not keep the picture", "warn")
    assert page.locator(".message").count() == 1
    gate.open()


# ------------------------------------------------------------------------------------- queued


def test_the_place_in_the_queue_and_the_wait_are_shown(
    open_page: OpenPage, url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gate, "__call__", lambda _gate, _rows: time.sleep(0.02))
    first, second, third = (come(open_page, url, steps=steps) for steps in (900, 800, 6))
    start(first)
    until(lambda: saying(first).startswith("Step"))
    start(second)
    until(lambda: re.fullmatch(r"Waiting, about \d+ s to go", saying(second)))
    start(third)
    behind = r"Waiting, 1 ahead in the queue, about \d+ s to go"
    until(lambda: re.fullmatch(behind, saying(third)))
    assert "1 ahead in the queue" in third.inner_text("#announce")
    for page in (second, first):
        page.click("#cancel")
        message(page, "Cancelled.")
    third.locator(".thumb").wait_for()
    until(none_at_work(engine))


# ---------------------------------------------------------------------------------- cancelled


def cancel_and_count(page: Page, gate: Gate, engine: Engine) -> None:
    """Press Escape; the step that is being made is the last one."""
    begun = gate.begun
    with page.expect_response("**/cancel"):
        page.keyboard.press("Escape")
    message(page, "Cancelled.", "info")
    page.wait_for_selector("#generate:visible")
    gate.open()
    until(none_at_work(engine))
    assert gate.begun == begun
    assert noted(page) == []


@PLACES
def test_cancel_frees_the_device_at_the_end_of_the_step(
    open_page: OpenPage, url: str, gate: Gate, engine: Engine, place: str
) -> None:
    page = come(open_page, url, place, steps=900)
    start_and_hold(page, gate)
    cancel_and_count(page, gate, engine)
    draw(page)  # and the page is as ready as the server


@PLACES
def test_a_run_that_was_found_again_is_cancelled_in_the_same_way(
    open_page: OpenPage, url: str, gate: Gate, engine: Engine, place: str
) -> None:
    page = come(open_page, url, place, steps=900)
    start_and_hold(page, gate)
    page.reload()
    until(lambda: "Step 3" in saying(page))
    cancel_and_count(page, gate, engine)


def test_who_cancels_before_the_server_has_said_a_word_cancels_all_the_same(
    open_page: OpenPage, line: Line, gate: Gate, engine: Engine
) -> None:
    page = come(open_page, line.url, steps=900)
    page.evaluate("Imagine.parts.load('run').then(() => null)")
    gate.hold_after(1)
    line.answers.clear()
    start(page)
    until(lambda: engine.status().jobs)
    page.keyboard.press("Escape")
    message(page, "Cancelled.", "info")
    assert engine.status().jobs
    with page.expect_response("**/cancel"):
        line.answers.set()
    gate.open()
    until(none_at_work(engine))
    assert gate.begun <= 2  # the step that was allowed, and the one that it stood at
    assert noted(page) == []
