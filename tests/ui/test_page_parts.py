"""The parts of the page that are loaded once they are needed, and what a first visit comes to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ui.browsing import FOLDER, OpenPage, draw, drop, message, ready, start, until

if TYPE_CHECKING:
    from playwright.sync_api import Page, Response, Route

    from ui.fake_server import FakeServer

LARGEST = 150_000
SHOWN = {"css/shown.css", "js/tools.js", "js/stage.js", "js/shown.js"}
PARTS = {
    "shown": SHOWN,
    "compare": SHOWN | {"css/compare.css", "js/compare.js"},
    "keys": {"js/keys.js"},
    "zones": {"css/zones.css", "js/zones.js"},
    "files": {"js/exif.js", "js/png.js", "js/tags.js", "js/infotext.js"}
    | {"js/settings.js", "js/files.js"},
    "run": SHOWN | {"js/stream.js", "js/jobs.js", "js/progress.js", "js/run.js"},
    "picker": {"css/later.css", "js/fields.js", "css/rows.css", "css/picker.css", "js/words.js"}
    | {"js/rows.js", "js/picker.js"},
    "more": {"css/later.css", "js/fields.js", "js/vae.js", "js/more.js"},
    "hires": {"css/later.css", "js/fields.js", "js/hires.js"},
    "hints": {"css/later.css", "js/fields.js", "css/rows.css", "js/hints.js"},
    "repaint": {"css/later.css", "js/fields.js", "js/mask.js", "js/view.js", "css/painter.css"}
    | {"js/painter.js", "js/repaint.js"},
    "enlarge": {"css/later.css", "js/fields.js", "js/stream.js", "js/enlarge.js"},
}
LOADED = """[...document.querySelectorAll('head script, head link[rel=stylesheet]')].map((one) =>
    (one.src || one.href).split('/').slice(-2).join('/'))"""


def loaded(page: Page) -> set[str]:
    """The scripts and styles that the page has by now."""
    return set(page.evaluate(LOADED))


def test_a_first_visit_is_under_150_kb_in_all(open_page: OpenPage, fake: FakeServer) -> None:
    """The page, its scripts and styles, and what the server says of itself."""
    page = open_page()
    page.goto("about:blank")
    answers: list[Response] = []

    def note(answer: Response) -> None:
        answers.append(answer)

    page.context.on("response", note)
    page.goto(f"{fake.url}/")
    ready(page)
    page.wait_for_load_state("networkidle")
    sizes = {answer.url.removeprefix(fake.url): len(answer.body()) for answer in answers}
    assert {"/", "/js/app.js", "/css/form.css", "/icon.svg", "/models"} <= set(sizes)
    assert sum(sizes.values()) < LARGEST


def test_a_first_visit_loads_none_of_the_later_parts(page: Page) -> None:
    every = {path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("*s/*")}
    assert loaded(page) == every - set().union(*PARTS.values())


@pytest.mark.parametrize("place", ["http", "file"])
def test_each_part_is_loaded_where_it_is_needed(
    open_page: OpenPage, place: str, tmp_path: Path
) -> None:
    page = open_page(place)
    ready(page)
    before = loaded(page)
    page.keyboard.press("?")
    page.wait_for_selector("#keys[open]")
    page.keyboard.press("Escape")
    assert loaded(page) - before == PARTS["keys"]
    page.click("#loras")
    page.wait_for_selector("#picker[open]")
    page.keyboard.press("Escape")
    assert loaded(page) - before == PARTS["keys"] | PARTS["picker"]
    file = tmp_path / "s.json"
    file.write_text('{"prompt": "a mill"}')
    page.set_input_files("#settings-file", file)
    message(page, "Loaded s.json.")
    assert loaded(page) - before == PARTS["keys"] | PARTS["picker"] | PARTS["files"]
    draw(page, count=2)
    page.locator(".thumb").first.click()
    page.click("#act-compare")
    page.wait_for_selector("#compare:visible")
    now = ("keys", "picker", "files", "run", "compare")
    assert loaded(page) - before == set().union(*(PARTS[name] for name in now))
    page.click("#more > summary")
    page.wait_for_selector("#clip")
    assert PARTS["more"] <= loaded(page)
    page.check("#hires-on")
    page.wait_for_selector("#hires_steps")
    assert PARTS["hires"] <= loaded(page)
    page.click("#act-input")
    page.wait_for_selector("#mask")
    assert PARTS["repaint"] <= loaded(page)
    page.select_option("#model", "dreamshaper_8")
    page.click("#controls")
    page.click("#picker .part >> nth=0")
    page.keyboard.press("Escape")
    page.wait_for_selector(".control")
    assert PARTS["hints"] <= loaded(page)
    page.click("#act-enlarge")
    page.wait_for_selector("#enlarge[open]")
    page.keyboard.press("Escape")
    drop(page, "#stage", "s.json", b'{"prompt": "a mill"}', "application/json")
    until(lambda: PARTS["zones"] <= loaded(page))
    assert loaded(page) - before == set().union(*PARTS.values())


def test_what_is_under_more_is_sent_and_refused_before_it_is_opened(
    page: Page, fake: FakeServer
) -> None:
    drop(
        page, "#stage", "s.json", b'{"prompt": "a mill", "clip": 2, "hires": 2}', "application/json"
    )
    message(page, "Loaded s.json.")
    draw(page)
    assert (fake.requests[0]["clip"], fake.requests[0]["hires"]) == (2, 2)
    assert not PARTS["more"] & loaded(page)
    wrong = [{"field": "clip", "message": "must be at most 1"}]
    fake.refuse = (422, {"message": "x", "fields": wrong})
    page.click("#generate")
    page.locator("#clip-error", has_text="must be at most 1").wait_for()
    assert page.input_value("#clip") == "2"
    assert page.is_checked("#hires-on")
    page.fill("#clip", "1")
    assert page.is_hidden("#clip-error")
    assert page.locator(".message[data-kind=bad]").count() == 0


def test_a_drop_on_a_new_page_is_not_lost(page: Page) -> None:
    drop(page, "#stage", "s.json", b'{"prompt": "dropped"}', "application/json")
    message(page, "Loaded s.json.")
    assert page.input_value("#prompt") == "dropped"


def test_what_saves_pictures_is_there_before_the_server_goes(
    page: Page, fake: FakeServer, tmp_path: Path
) -> None:
    draw(page)
    until(lambda: PARTS["files"] | PARTS["compare"] <= loaded(page))
    page.context.set_offline(True)
    with page.expect_download() as download:
        page.click("#act-download")
    download.value.save_as(tmp_path / "kept.png")
    assert (tmp_path / "kept.png").read_bytes().startswith(b"\x89PNG")
    assert fake.requests != []


def test_a_part_that_does_not_load_is_told_and_tried_again(page: Page) -> None:
    def refuse(route: Route) -> None:
        route.abort()

    page.route("**/js/rows.js", refuse)
    page.click("#loras")
    message(page, "No answer from http://127.0.0.1", "bad")
    page.unroute("**/js/rows.js", refuse)
    page.click("#loras")
    page.wait_for_selector("#picker[open]")
    assert [path for path in page.evaluate(LOADED) if path == "js/words.js"] == ["js/words.js"]


def test_a_run_is_cancelled_before_its_script_has_come(page: Page, fake: FakeServer) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/js/stream.js", hold)
    start(page)
    until(lambda: page.evaluate("1") and held)  # the browser's news arrive during a call
    page.keyboard.press("Escape")
    message(page, "Cancelled.", "info")
    held[0].continue_()
    page.wait_for_selector("#generate:visible")
    until(lambda: PARTS["run"] <= loaded(page))
    assert fake.requests == []
    draw(page)
    assert len(fake.requests) == 1


def test_no_other_script_can_name_a_script(page: Page, faults: list[str]) -> None:
    page.evaluate(
        """() => setTimeout(() => {
            globalThis.outcomes = ['imagine-parts', 'other', 'default'].map((name) => {
                try {
                    return trustedTypes.createPolicy(name, { createScriptURL: String }) && 'done';
                } catch { return 'refused'; }
            });
        })"""
    )
    until(lambda: page.evaluate("globalThis.outcomes?.length") == 3)
    assert page.evaluate("globalThis.outcomes") == ["refused"] * 3
    faults.clear()  # the console tells of each
