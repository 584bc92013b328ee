"""The page as a whole: accessible, fast, quiet on the network, steady."""

from __future__ import annotations

import importlib.resources
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from ui.browsing import FOLDER, OpenPage, draw, ready, start, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ui.fake_server import FakeServer

SIZES = {"phone": (390, 844), "laptop": (1366, 768), "wide": (1920, 1080)}


# ------------------------------------------------------------------------------ accessible


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    package = importlib.resources.files("axe_playwright_python")
    return package.joinpath("axe.min.js").read_text("utf-8")


def violations(page: Page, axe: str) -> list[str]:
    """What axe-core finds that is serious or critical: the rule and where."""
    page.evaluate(axe)
    # A colour in the middle of a fade is not the colour that is read.
    page.evaluate("Promise.all(document.getAnimations().map((a) => a.finish?.()))")
    found: list[dict[str, Any]] = page.evaluate(
        "axe.run({ resultTypes: ['violations'] }).then((result) => result.violations)"
    )
    return [
        f"{rule['id']}: {node['html'][:120]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_serious(
    open_page: OpenPage, fake: FakeServer, axe: str, scheme: str, size: str
) -> None:
    width, height = SIZES[size]
    page = open_page(
        color_scheme=scheme,
        viewport={"width": width, "height": height},
        bypass_csp=True,  # for axe, which is no part of the page
        reduced_motion="reduce",
    )
    ready(page)
    assert violations(page, axe) == []
    page.click("#more > summary")
    page.click("#server > summary")
    fake.warnings = ["a remark"]
    draw(page)
    draw(page, count=2)
    fake.hold_at_step = 3
    page.click("#generate")
    until(lambda: fake.steps_done % 25 == 4)
    assert violations(page, axe) == []
    page.click("#cancel")
    page.locator(".thumb").nth(1).click()
    page.click("#act-compare")
    page.wait_for_selector("#compare:visible")
    fake.refuse = (422, {"message": "x", "fields": [{"field": "steps", "message": "too many"}]})
    page.click("#generate")
    page.wait_for_selector("#steps-error:visible")
    assert violations(page, axe) == []
    page.click("#show-keys")
    assert violations(page, axe) == []
    page.keyboard.press("Escape")
    page.select_option("#model", "dreamshaper_8")
    page.click("#loras")
    page.click("#picker .part >> nth=0")
    page.click("#picker .picker-scroll > button")
    assert violations(page, axe) == []
    page.locator("#picker").get_by_text("Embeddings", exact=True).click()
    assert violations(page, axe) == []
    page.keyboard.press("Escape")
    page.select_option("#model", "sdxl_base")
    page.wait_for_selector(".lora.odd")
    assert violations(page, axe) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [*SIZES, "narrow"])
def test_axe_finds_nothing_serious_in_what_comes_later(
    open_page: OpenPage, fake: FakeServer, axe: str, scheme: str, size: str
) -> None:
    width, height = {**SIZES, "narrow": (360, 740)}[size]
    page = open_page(
        color_scheme=scheme,
        viewport={"width": width, "height": height},
        bypass_csp=True,  # for axe, which is no part of the page
        reduced_motion="reduce",
    )
    ready(page)
    page.select_option("#model", "dreamshaper_8")
    draw(page)
    page.click("#act-repaint")
    page.wait_for_selector("#painter[open]")
    page.keyboard.press("Space")
    page.locator("#painter summary").click()
    assert violations(page, axe) == []
    page.keyboard.press("Escape")
    page.wait_for_selector(".frame:visible")
    page.check("#mask_padding-on")
    page.fill("#extend-top", "64")
    page.fill("#subseed_strength", "0.2")
    page.click("#more > summary")
    page.check("#hires-on")
    page.wait_for_selector("#hires_steps:visible")
    page.click("#controls")
    page.click("#picker .part >> nth=0")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Use the input picture").click()
    page.get_by_label("Preprocessor").select_option("canny")
    page.click(".hint-look")
    page.wait_for_selector(".hint-preview:visible")
    assert violations(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click("#act-enlarge")
    page.wait_for_selector("#enlarge[open]")
    fake.hold_enlarging = True
    page.click("#enlarge .primary")
    page.get_by_text("Enlarging 2 of 4").wait_for()
    assert violations(page, axe) == []


FOCUS = """() => {
    const element = document.activeElement;
    const name = element.id || element.dataset.of || element.tagName.toLowerCase();
    const around = element.closest('label, .count, .compare') ?? element;
    const drawn = [element, element.nextElementSibling, around].some(
        (one) => one && getComputedStyle(one).outlineStyle !== 'none');
    return [name, drawn];
}"""


def test_everything_is_reached_by_the_tab_key_and_shows_its_focus(page: Page) -> None:
    draw(page)
    page.click("#more > summary")
    page.evaluate("document.activeElement.blur()")
    seen: dict[str, bool] = {}
    for _ in range(90):
        page.keyboard.press("Tab")
        name, drawn = page.evaluate(FOCUS)
        if name != "body":  # between the last element and the first
            seen[name] = drawn
    wanted = {
        "prompt",
        "neg",
        "loras",
        "width",
        "swap",
        "height",
        "steps",
        "guidance",
        "sampler",
        "schedule",
    }
    wanted |= {"seed", "input-file", "clip", "hires-on", "stream", "preview", "deterministic"}
    wanted |= {
        "surprise",
        "model",
        "save-settings",
        "settings-file",
        "reset",
        "n",
        "generate",
        "act-restore",
    }
    wanted |= {"act-compare", "act-download", "act-delete", "gallery-clear", "server-status"}
    assert wanted - set(seen) == set()
    assert [name for name, drawn in seen.items() if not drawn] == []


def test_the_keys_that_work_anywhere_are_listed_and_work(page: Page) -> None:
    page.click("h1")
    page.keyboard.press("?")
    page.wait_for_selector("#keys[open]")
    page.keyboard.press("/")  # not while the list is open
    page.keyboard.press("Escape")
    page.wait_for_selector("#keys", state="hidden")
    assert page.locator("#prompt:focus").count() == 0
    page.keyboard.press("/")
    assert page.locator("#prompt:focus").count() == 1
    page.keyboard.type("a/b?")
    assert page.input_value("#prompt") == "a/b?"


def test_a_finished_variation_opens_by_key_and_the_tab_key_leads_on(page: Page) -> None:
    draw(page, count=2)
    page.locator("#tiles .tile").first.focus()
    page.keyboard.press("Tab")
    assert page.locator("#tiles .tile").nth(1).evaluate("(it) => it === document.activeElement")
    page.keyboard.press("Space")
    page.wait_for_selector("#shown .tile:visible")


def test_progress_is_told_to_screen_readers_in_quarters_and_not_in_steps(
    page: Page, fake: FakeServer
) -> None:
    fake.step_seconds = 0.02
    page.evaluate(
        """() => {
            globalThis.said = [];
            const region = document.getElementById('announce');
            const all = { childList: true, characterData: true, subtree: true };
            new MutationObserver(() => said.push(region.textContent)).observe(region, all);
        }"""
    )
    draw(page)
    said = page.evaluate("said")
    assert said[-1] == "1 picture finished."
    assert any(text.startswith("50% done.") for text in said)
    assert len(said) < 14


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_wider_than_the_window(open_page: OpenPage, size: str) -> None:
    width, height = SIZES[size]
    page = open_page(viewport={"width": width, "height": height})
    ready(page)
    draw(page, "a boat with averyveryveryveryveryverylongwordwithoutanyspaces" * 3)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if size != "phone":  # elsewhere only the form and the gallery scroll
        assert page.evaluate("document.documentElement.scrollHeight") <= height
    box = page.locator("#tiles img").last.bounding_box()
    assert box is not None
    assert box["width"] == pytest.approx(box["height"], abs=1)  # 512 x 512 stays square
    assert box["width"] > 250


def test_the_page_is_dark_where_the_system_is_and_light_where_it_is_not(
    open_page: OpenPage,
) -> None:
    page = open_page(color_scheme="light")
    colours = "(({ backgroundColor, color }) => [backgroundColor, color])(getComputedStyle(%s))"

    def brightness(element: str) -> list[int]:
        found: list[str] = page.evaluate(colours % element)
        return [sum(map(int, re.findall(r"\d+", colour)[:3])) // 3 for colour in found]

    for element in ("document.body", "document.getElementById('prompt')"):
        page.emulate_media(color_scheme="light")
        paper, ink = brightness(element)
        assert paper - ink > 150
        page.emulate_media(color_scheme="dark")
        paper, ink = brightness(element)
        assert ink - paper > 150


# ---------------------------------------------------------------------------------- steady


@pytest.mark.parametrize(("size", "count"), [("phone", 1), ("laptop", 1), ("wide", 1), ("wide", 4)])
def test_nothing_moves_while_pictures_stream(
    open_page: OpenPage, fake: FakeServer, size: str, count: int
) -> None:
    """From the moment that the run starts until it is finished; thumbnails make room, of course."""
    width, height = SIZES[size]
    page = open_page(viewport={"width": width, "height": height})
    ready(page)
    fake.hold_at_step = 2
    page.fill("#n", str(count))
    start(page)
    until(lambda: fake.steps_done == count)
    before = places(page)
    page.evaluate(
        """() => {
            globalThis.shifts = [];
            const note = (list) => shifts.push(...list.getEntries().flatMap((e) => e.sources));
            new PerformanceObserver(note).observe({ type: 'layout-shift' });
        }"""
    )
    fake.released.set()
    page.wait_for_selector("#generate:visible")
    draw(page, count=count)
    assert places(page) == before
    moved = page.evaluate("shifts.map(({ node }) => node?.id || node?.className || node?.nodeName)")
    assert [name for name in moved if not name.startswith("thumb")] == []


def places(page: Page) -> list[object]:
    """Where the tiles of a run are."""
    return [tile.bounding_box() for tile in page.locator("#tiles .tile").all()]


# ----------------------------------------------------------------------- quiet, and steady


@pytest.mark.parametrize("place", ["http", "file"])
def test_nobody_but_the_server_is_asked_for_anything(
    open_page: OpenPage, fake: FakeServer, place: str
) -> None:
    page = open_page(place)
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    page.reload()
    ready(page)
    draw(page)
    own = (fake.url, FOLDER.as_uri(), "blob:", "data:")
    assert [url for url in asked if not url.startswith(own)] == []
    assert len(asked) > 10


def test_the_policy_stops_a_script_that_was_smuggled_in(page: Page, faults: list[str]) -> None:
    # The attacks run from a timer: while Playwright evaluates, eval is allowed.
    page.evaluate(
        """() => setTimeout(() => {
            globalThis.outcomes = [
                () => { document.body.innerHTML = '<b>x</b>'; },
                () => { document.write('<b>x</b>'); },
                () => { setTimeout('globalThis.ran = 1'); },
                () => { new Function('globalThis.ran = 1')(); },
                () => { document.body.append(document.createElement('script')).src = 'x'; },
            ].map((attack) => { try { return attack() ?? 'done'; } catch { return 'refused'; } });
        })"""
    )
    until(lambda: page.evaluate("globalThis.outcomes?.length") == 5)
    assert page.evaluate("globalThis.outcomes") == ["refused"] * 5
    assert page.evaluate("globalThis.ran") is None
    faults.clear()  # the console tells of each


def test_memory_of_old_pictures_is_given_back(page: Page) -> None:
    """Every blob that is shown has a URL; those of replaced pictures must be revoked."""
    page.evaluate(
        """() => {
            globalThis.alive = new Set();
            const { createObjectURL, revokeObjectURL } = URL;
            URL.createObjectURL = (blob) => {
                const url = createObjectURL.call(URL, blob);
                alive.add(url);
                return url;
            };
            URL.revokeObjectURL = (url) => {
                alive.delete(url);
                revokeObjectURL.call(URL, url);
            };
        }"""
    )
    for _ in range(3):
        draw(page)
        page.locator(".thumb").last.click()
    page.locator(".thumb").first.click()
    until(lambda: page.evaluate("alive.size") <= 4)


def test_the_documentation_says_what_each_script_is_for() -> None:
    """The gallery, the form, the stream reader and the settings each have a file of their own."""
    text = (FOLDER.parent / "docs" / "page.md").read_text()
    table = "".join(line for line in text.splitlines(keepends=True) if line.startswith("| `"))
    names = {path.name for path in (FOLDER / "js").iterdir()}
    assert {name for name in names if f"`{name}`" not in table} == set()
    assert {"gallery.js", "form.js", "stream.js", "settings.js"} <= names


def test_every_script_is_listed_once_and_every_listed_one_is_there() -> None:
    page = (FOLDER / "imagine-ui.html").read_text()
    later = (FOLDER / "js" / "parts.js").read_text()
    kept = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.*s*")}
    listed = re.findall(r"[\"']((?:js|css)/\w+\.\w+|icon\.svg)[\"']", page + later)
    assert sorted(set(listed)) == sorted(kept)
    assert sorted(listed) == sorted([*kept, "icon.svg"])  # which the header shows, too
    assert "https://" not in page
    assert json.dumps(page).count("http://") == 1  # the default address, as a placeholder
