"""What else a picture is made with: a second pass, a variation of a seed, no seams, tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ui.browsing import asked, draw, message, ready

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ui.fake_server import FakeServer

OF_HIRES = ("keep_size", "hires_upscaler", "hires_steps", "hires_strength", "hires_sampler")
ALL = {
    "hires": 2,
    "keep_size": True,
    "hires_upscaler": "nearest",
    "hires_steps": 9,
    "hires_strength": 0.5,
    "hires_sampler": "heun",
}


def switch_on(page: Page) -> None:
    page.click("#more > summary")
    page.check("#hires-on")
    page.wait_for_selector("#hires_steps:visible")
    page.locator("#hires_upscaler option").nth(1).wait_for(state="attached")


def fill(page: Page) -> None:
    switch_on(page)
    page.fill("#hires", "2")
    page.check("#keep_size")
    page.select_option("#hires_upscaler", "nearest")
    page.fill("#hires_steps", "9")
    page.fill("#hires_strength", "0.5")
    page.select_option("#hires_sampler", "heun")


def sent(fake: FakeServer) -> dict[str, object]:
    return {name: asked(fake).get(name) for name in ("hires", *OF_HIRES)}


def test_the_second_pass_opens_with_the_hires_fix_and_is_sent_with_it(
    page: Page, fake: FakeServer
) -> None:
    draw(page)
    assert not set(OF_HIRES) & set(asked(fake))
    fill(page)
    draw(page)
    assert sent(fake) == ALL
    page.uncheck("#hires-on")
    page.wait_for_selector("#hires_steps", state="hidden")
    draw(page)
    assert not {"hires", *OF_HIRES} & set(asked(fake))


def test_as_many_steps_and_the_same_sampler_are_not_sent(page: Page, fake: FakeServer) -> None:
    switch_on(page)
    draw(page)
    assert "hires_steps" not in asked(fake)
    assert "hires_sampler" not in asked(fake)
    assert asked(fake)["hires_strength"] == 0.35


def test_all_of_it_is_there_at_the_next_visit_and_from_the_gallery(
    page: Page, fake: FakeServer
) -> None:
    fill(page)
    draw(page)
    page.reload()
    ready(page)
    draw(page)
    assert sent(fake) == ALL
    page.click("#reset")
    draw(page)
    assert asked(fake).get("hires") is None
    page.locator(".thumb").nth(1).click()
    page.click("#act-restore")
    message(page, "Settings restored.")
    draw(page)
    assert sent(fake) == ALL
    page.click("#more > summary")
    page.wait_for_selector("#hires_steps:visible")
    assert page.input_value("#hires_steps") == "9"
    draw(page)
    assert sent(fake) == ALL


def test_a_server_without_upscalers_has_the_usual_one(page: Page, fake: FakeServer) -> None:
    fake.upscalers = None
    page.click("#more > summary")
    page.check("#hires-on")
    page.wait_for_selector("#hires_upscaler:visible")
    assert page.locator("#hires_upscaler option").all_inner_texts() == ["Lanczos"]
    draw(page)
    assert asked(fake)["hires_upscaler"] == "lanczos"


def test_a_number_of_steps_that_is_none_is_refused_before_it_is_sent(
    page: Page, fake: FakeServer
) -> None:
    switch_on(page)
    page.fill("#hires_steps", "0")
    page.fill("#prompt", "a boat")
    page.click("#generate")
    page.wait_for_selector("#hires_steps-error:visible")
    assert fake.requests == []


# ---------------------------------------------------------------------------------- variations


def test_a_variation_is_sent_with_its_seed_and_strength(page: Page, fake: FakeServer) -> None:
    draw(page)
    assert not {"subseed", "subseed_strength"} & set(asked(fake))
    assert page.is_hidden("#subseed")
    page.fill("#seed", "5")
    page.fill("#subseed_strength", "0.25")
    page.fill("#subseed", "18446744073709551615")
    draw(page)
    body = asked(fake)
    assert (body["seed"], body["subseed"]) == ("5", "18446744073709551615")
    assert body["subseed_strength"] == 0.25


def test_several_variations_keep_the_seed_and_count_the_other(page: Page, fake: FakeServer) -> None:
    page.fill("#seed", "5")
    page.fill("#subseed_strength", "0.25")
    page.fill("#subseed", "7")
    draw(page, count=3)
    assert {body["seed"] for body in fake.requests} == {"5"}
    assert sorted(body["subseed"] for body in fake.requests) == ["7", "8", "9"]


def test_a_drawn_variation_seed_is_kept_with_the_picture(page: Page, fake: FakeServer) -> None:
    page.fill("#subseed_strength", "0.25")
    draw(page)
    drawn = asked(fake)["subseed"]
    page.click("#reset")
    page.click("#act-restore")
    page.wait_for_selector("#subseed:visible")
    assert page.input_value("#subseed") == drawn


def test_a_variation_seed_that_is_none_is_refused(page: Page, fake: FakeServer) -> None:
    page.fill("#subseed_strength", "0.25")
    page.fill("#subseed", "many")
    page.fill("#prompt", "a boat")
    page.click("#generate")
    page.wait_for_selector("#subseed-error:visible")
    assert fake.requests == []


# ------------------------------------------------------------------------------ seams and tiles


@pytest.mark.parametrize(
    ("choice", "value"), [("true", True), ('"x"', "x"), ('"y"', "y")], ids=["both", "x", "y"]
)
def test_a_seamless_picture_is_asked_for_and_asked_for_again(
    page: Page, fake: FakeServer, choice: str, value: object
) -> None:
    page.click("#more > summary")
    page.select_option("#tiling", choice)
    page.check("#vae_tiling")
    draw(page)
    assert (asked(fake)["tiling"], asked(fake)["vae_tiling"]) == (value, True)
    page.reload()
    ready(page)
    draw(page)
    assert (asked(fake)["tiling"], asked(fake)["vae_tiling"]) == (value, True)
    page.click("#reset")
    draw(page)
    assert not {"tiling", "vae_tiling"} & set(asked(fake))
