"""What the chosen model draws with by itself: shown, left to the server, and the user's kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ui.browsing import OpenPage, asked, draw, drop, message, ready, save_settings, until
from ui.fake_server import picture

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ui.fake_server import FakeServer

OWN = ("width", "height", "steps", "guidance", "sampler")
FLUX: dict[str, Any] = {"width": 1024, "height": 768, "steps": 4, "guidance": 1, "sampler": "heun"}


@pytest.fixture
def flow(open_page: OpenPage, fake: FakeServer) -> Page:
    """The page at a server that has a model with defaults of its own beside the usual ones."""
    fake.models.append({"name": "flux", "family": "flux", "size": 1000, "defaults": FLUX})
    opened = open_page()
    ready(opened)
    return opened


def shown(page: Page) -> dict[str, str]:
    return {name: page.input_value(f"#{name}") for name in OWN}


def as_shown(values: dict[str, Any]) -> dict[str, str]:
    return {name: str(values[name]) for name in OWN}


USUAL = {"width": "512", "height": "512", "steps": "25", "guidance": "7", "sampler": "dpm++ 2m"}


def test_a_models_own_values_are_shown_and_left_to_the_server(flow: Page, fake: FakeServer) -> None:
    flow.select_option("#model", "flux")
    assert shown(flow) == as_shown(FLUX)
    assert flow.get_by_label("Steps, slider").input_value() == "4"
    assert flow.is_disabled("#neg")  # with a guidance of 1
    draw(flow)
    assert set(OWN) & set(asked(fake)) == set()
    assert asked(fake)["model"] == "flux"
    flow.select_option("#model", "doodle")
    assert shown(flow) == USUAL
    draw(flow)
    assert {name: str(asked(fake)[name]) for name in OWN} == USUAL  # that server says nothing of it


def test_what_the_user_has_set_is_sent_and_stays_with_another_model(
    flow: Page, fake: FakeServer
) -> None:
    flow.fill("#steps", "30")
    flow.select_option("#sampler", "euler a")
    flow.select_option("#model", "flux")
    assert shown(flow) == {**as_shown(FLUX), "steps": "30", "sampler": "euler a"}
    draw(flow)
    sent = {name: asked(fake)[name] for name in OWN if name in asked(fake)}
    assert sent == {"steps": 30, "sampler": "euler a"}
    flow.fill("#steps", "4")  # the model's own again
    flow.fill("#width", "640")  # and with it the height
    draw(flow)
    sent = {name: asked(fake)[name] for name in OWN if name in asked(fake)}
    assert sent == {"width": 640, "height": 768, "sampler": "euler a"}
    flow.select_option("#model", "doodle")
    assert shown(flow) == {**USUAL, "sampler": "euler a", "width": "640", "height": "768"}


def test_the_models_own_values_are_followed_after_a_reload_too(flow: Page) -> None:
    flow.select_option("#model", "flux")
    flow.fill("#guidance", "2.5")
    flow.reload()
    ready(flow)
    assert shown(flow) == {**as_shown(FLUX), "guidance": "2.5"}
    flow.select_option("#model", "doodle")
    assert shown(flow) == {**USUAL, "guidance": "2.5"}
    flow.click("#reset")
    assert shown(flow) == USUAL


def test_a_pictures_settings_are_all_that_it_was_drawn_with(
    flow: Page, fake: FakeServer, tmp_path: Path
) -> None:
    flow.select_option("#model", "flux")
    draw(flow)
    saved = json.loads(save_settings(flow, tmp_path).read_text())["meta"]
    assert {name: saved[name] for name in OWN} == FLUX
    assert "4 steps" in flow.inner_text("#caption")
    flow.select_option("#model", "doodle")
    flow.fill("#steps", "9")
    flow.click("#act-restore")
    message(flow, "Settings restored.")
    assert shown(flow) == as_shown(FLUX)
    draw(flow)
    assert {name: asked(fake)[name] for name in OWN} == FLUX  # whatever the server's are by then


def test_a_restored_picture_of_the_old_models_size_keeps_its_size(
    page: Page, fake: FakeServer
) -> None:
    page.select_option("#model", "sdxl_base")
    page.fill("#width", "512")
    page.fill("#height", "512")
    draw(page)
    page.click("#reset")
    assert page.input_value("#width") == "512"  # of the server's choice
    page.click("#act-restore")
    message(page, "Settings restored.")
    draw(page)
    assert (asked(fake)["model"], asked(fake)["width"]) == ("sdxl_base", 512)


@pytest.mark.parametrize("nonsense", [{"steps": 0}, {"steps": "4"}, [], "x", {"width": 1e9}])
def test_defaults_that_are_none_are_ignored(
    open_page: OpenPage, fake: FakeServer, nonsense: object
) -> None:
    fake.models[0]["defaults"] = nonsense
    page = open_page()
    ready(page)
    assert shown(page) == USUAL


# ------------------------------------------------------------------- the size of the input picture


def give(page: Page, width: int, height: int) -> None:
    drop(page, "#input-well", "start.png", picture(1, width, height), "image/png")
    page.locator("#input-text", has_text=f"{width} \u00d7 {height}").wait_for()


def size(page: Page) -> tuple[int, int]:
    return int(page.input_value("#width")), int(page.input_value("#height"))


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ((768, 512), (768, 512)),
        ((515, 341), (512, 344)),  # multiples of 8
        ((2000, 1000), (728, 360)),  # as many pixels as the model was trained for
        ((40, 96), (64, 96)),  # the smallest that the server draws
    ],
)
def test_the_size_is_that_of_the_input_picture_as_the_model_can_draw_it(
    page: Page, fake: FakeServer, given: tuple[int, int], taken: tuple[int, int]
) -> None:
    give(page, *given)
    assert size(page) == taken
    draw(page)
    assert (asked(fake)["width"], asked(fake)["height"]) == taken
    page.click("#input-remove")
    assert size(page) == (512, 512)


def test_a_size_that_the_user_has_chosen_stays_and_the_pictures_is_offered(page: Page) -> None:
    page.fill("#width", "704")
    give(page, 768, 512)
    assert size(page) == (704, 512)
    page.get_by_role("button", name="Draw in its own size, 768 \u00d7 512").click()
    assert size(page) == (768, 512)
    assert page.get_by_role("button", name="Draw in its").count() == 0
    page.fill("#width", "704")
    give(page, 2000, 1000)
    page.get_by_role("button", name="Draw in its proportions, 728 \u00d7 360").click()
    assert size(page) == (728, 360)


def test_the_pictures_size_is_not_remembered_without_the_picture(page: Page) -> None:
    give(page, 768, 512)
    give(page, 512, 768)
    assert size(page) == (512, 768)
    page.reload()
    ready(page)
    until(lambda: size(page) == (512, 512))
    page.select_option("#model", "sdxl_base")
    assert size(page) == (1024, 1024)
