"""How quick the page is: its first paint, and the longest that a preview keeps it from a key."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from measure import median, row

from calls import app_of, live
from imagine_core.testing import build_test_engine
from ui.browsing import FLAGS, draw, find_chromium, ready
from ui.fake_server import FakeServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
TRACED = ["toplevel", "disabled-by-default-devtools.timeline"]
VISITS, RUNS = 15, 5


def page() -> None:
    """First visits to a server of our own; pictures of 1024 x 1024 with a preview at each step."""
    with chromium() as browser:
        paints = first_paints(browser)
        tasks = longest_tasks(browser)
    row("figure", "median ms", "slowest ms")
    row("---", "---", "---")
    row("first paint of a first visit", f"{median(paints):.0f}", f"{max(paints):.0f}")
    row("longest task of the main thread", f"{median(tasks):.0f}", f"{max(tasks):.0f}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser that the tests use."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(FLAGS))
        yield browser
        browser.close()


def first_paints(browser: Browser) -> list[float]:
    """Milliseconds until something is seen, with nothing in the browser's cache."""
    paints = []
    with tempfile.TemporaryDirectory() as folder:
        engine = build_test_engine(Path(folder))
        with live(app_of(engine), on_stop=engine.close) as url:
            for _ in range(VISITS):
                with browser.new_context() as context:
                    visit = context.new_page()
                    visit.goto(f"{url}/")
                    ready(visit)
                    paints.append(float(visit.evaluate(PAINT)))
    return paints


def longest_tasks(browser: Browser) -> list[float]:
    """Milliseconds of processor time of the longest task of each of some runs."""
    longest = []
    with FakeServer().serve() as server, browser.new_context() as context:
        visit = context.new_page()
        visit.goto(f"{server.url}/")
        ready(visit)
        for field, value in {"width": 1024, "height": 1024, "steps": 10}.items():
            visit.fill(f"#{field}", str(value))
        draw(visit)  # the server's pictures are ready now, and the page's code is compiled
        server.step_seconds = 0.1
        for _ in range(RUNS):
            browser.start_tracing(page=visit, categories=TRACED)
            draw(visit)
            longest.append(longest_task(browser.stop_tracing()))
    return longest


def longest_task(trace: bytes) -> float:
    """Milliseconds of processor time, to which other work on the machine adds none."""
    events = json.loads(trace)["traceEvents"]
    main = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    return max(
        float(event["tdur"]) / 1000
        for event in events
        if event["name"].endswith("RunTask")
        and "tdur" in event
        and (event["pid"], event["tid"]) in main
    )
