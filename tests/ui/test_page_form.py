"""The form of the page: its contents, disabled controls, and requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ui.browsing import OpenPage, asked, connect, draw, drop, message, ready, until
from ui.fake_server import picture

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ui.fake_server import FakeServer


LABELS = (
    *("Prompt", "Negative prompt", "Width", "Height", "Steps", "Guidance scale", "Clip skip"),
    *("Sampler", "Schedule", "Seed", "Strength", "Stream every N steps", "Model"),
    *("Imagine Server Address", "Hires scale", "Variations"),
)


def test_every_parameter_has_a_control_with_its_name(page: Page) -> None:
    page.click("#more > summary")
    page.click("#server > summary")
    missing = [label for label in LABELS if not page.get_by_label(label, exact=True).is_visible()]
    assert missing == []


def test_without_a_change_the_defaults_of_the_readme_are_sent(page: Page, fake: FakeServer) -> None:
    draw(page)
    expected = {"width": 512, "height": 512, "steps": 25, "guidance": 7, "sampler": "dpm++ 2m"}
    expected |= {"neg": "", "clip": 1, "schedule": "default", "stream": 1}
    assert {key: asked(fake)[key] for key in expected} == expected


def test_what_is_entered_is_what_is_sent(page: Page, fake: FakeServer) -> None:
    page.fill("#neg", "blurry")
    page.fill("#width", "640")
    page.fill("#height", "384")
    page.fill("#steps", "12")
    page.fill("#guidance", "5.5")
    page.select_option("#model", "dreamshaper_8")
    page.select_option("#sampler", "euler a")
    page.select_option("#schedule", "karras")
    page.fill("#seed", "18446744073709551615")
    page.click("#more summary")
    page.fill("#clip", "2")
    page.check("#hires-on")
    page.fill("#hires", "1.25")
    page.fill("#stream", "3")
    page.select_option("#preview", "vae")
    page.check("#deterministic")
    draw(page, "a house by the sea")
    expected = {
        "prompt": "a house by the sea",
        "neg": "blurry",
        "width": 640,
        "height": 384,
        "steps": 12,
        "guidance": 5.5,
        "model": "dreamshaper_8",
        "sampler": "euler a",
        "schedule": "karras",
        "seed": "18446744073709551615",
        "clip": 2,
        "hires": 1.25,
        "stream": 3,
        "preview": "vae",
        "deterministic": True,
        "progress": True,
    }
    assert {key: asked(fake).get(key) for key in expected} == expected


def test_a_slider_and_its_number_are_one_value(page: Page) -> None:
    page.get_by_label("Steps, slider").fill("40")
    assert page.input_value("#steps") == "40"
    page.fill("#steps", "10")
    assert page.get_by_label("Steps, slider").input_value() == "10"


def test_fractions_between_the_arrows_steps_are_fine(page: Page, fake: FakeServer) -> None:
    page.fill("#guidance", "7.123")
    draw(page)
    assert asked(fake)["guidance"] == 7.123
    page.fill("#steps", "7.5")
    page.click("#generate")
    assert page.inner_text("#steps-error") != ""


# -------------------------------------------------------------------- what the server offers


def test_a_third_party_sampler_appears_and_is_sent(open_page: OpenPage, fake: FakeServer) -> None:
    fake.samplers.append(
        {
            "name": "restart",
            "label": "Restart",
            "evaluations": 3,
            "stochastic": True,
            "schedules": ["default", "polyexponential"],
            "plugin": "imagine-restart",
        }
    )
    page = open_page()
    ready(page)
    page.select_option("#sampler", label="Restart")
    note = page.inner_text("#sampler-note")
    assert note == "3 evaluations a step, adds noise on the way, from imagine-restart"
    page.select_option("#schedule", "polyexponential")
    draw(page)
    assert (asked(fake)["sampler"], asked(fake)["schedule"]) == ("restart", "polyexponential")


def test_the_schedules_are_those_of_the_sampler(page: Page) -> None:
    page.select_option("#sampler", "euler a")
    assert page.locator("#schedule option").all_inner_texts() == ["default", "karras"]
    page.select_option("#sampler", "heun")
    assert page.is_disabled("#schedule")
    assert page.inner_text("#schedule-why") == "Heun has one schedule."


def test_the_limits_are_those_of_the_server(page: Page) -> None:
    page.fill("#steps", "201")
    page.fill("#prompt", "a boat")
    page.click("#generate")
    assert "200" in page.inner_text("#steps-error")
    assert page.locator("#steps:focus").count() == 1


def test_other_limits_of_a_server_hold_without_a_change_to_the_page(
    open_page: OpenPage, fake: FakeServer
) -> None:
    fake.limits |= {"images": 3, "smallest": 128, "multiple": 64, "prompt": 9, "body": 1000}
    page = open_page()
    ready(page)
    page.locator("#prompt").press_sequentially("a boat at sea")
    assert page.input_value("#prompt") == "a boat at"
    page.fill("#n", "4")
    page.fill("#width", "96")
    page.fill("#height", "200")
    drop(page, "#input-well", "start.png", picture(1, 96, 64), "image/png")
    page.wait_for_selector("#input-preview:visible")
    page.click("#generate")
    for field, words in {"n": "3", "width": "128", "height": "192", "img": "1 kB"}.items():
        assert words in page.inner_text(f"#{field}-error")
    assert fake.requests == []


def test_a_picture_beyond_the_servers_pixels_is_refused_before_it_is_sent(
    page: Page, fake: FakeServer
) -> None:
    page.fill("#width", "4096")
    page.fill("#height", "1032")
    page.fill("#prompt", "a boat")
    page.click("#generate")
    assert page.inner_text("#width-error") == "This server draws at most 4,194,304 pixels."
    assert fake.requests == []


def test_a_model_that_cannot_serve_is_shown_and_cannot_be_chosen(
    open_page: OpenPage, fake: FakeServer
) -> None:
    fake.models.append({"name": "detail_lora", "family": "lora", "problem": "it is a LoRA"})
    page = open_page()
    ready(page)
    option = page.locator("#model option[value=detail_lora]")
    assert option.inner_text() == "detail_lora (unusable)"
    assert option.get_attribute("disabled") is not None


def test_the_servers_choice_of_model_is_named(page: Page) -> None:
    assert page.inner_text("#model option:checked") == "The server's choice: doodle"
    assert page.inner_text("#model-note").endswith("at its best at 512 \u00d7 512")


def test_choosing_a_model_follows_its_size_and_its_clip_layers(page: Page) -> None:
    page.select_option("#model", "sdxl_base")
    assert (page.input_value("#width"), page.input_value("#height")) == ("1024", "1024")
    assert "SDXL" in page.inner_text("#model-note")
    page.select_option("#model", "doodle")
    page.click("#more > summary")
    assert page.get_attribute("#clip", "max") == "3"


def test_a_size_that_somebody_chose_stays_when_the_model_changes(page: Page) -> None:
    page.fill("#width", "704")
    page.select_option("#model", "sdxl_base")
    assert page.input_value("#width") == "704"


# ------------------------------------------------------------ controls that do not apply


@pytest.mark.parametrize(
    ("name", "why"),
    [("strength", "For an input picture."), ("hires", "")],
)
def test_what_does_not_apply_at_first_is_off(page: Page, name: str, why: str) -> None:
    page.click("#more > summary")
    page.wait_for_selector("#hires")
    assert page.is_disabled(f"#{name}")
    assert page.text_content(f"#{name}-why") == why


def test_the_negative_prompt_is_off_without_guidance(page: Page) -> None:
    page.fill("#guidance", "1")
    assert page.is_disabled("#neg")
    assert "guidance scale is 1 or less" in page.inner_text("#neg-why")
    page.fill("#guidance", "1.5")
    assert page.is_enabled("#neg")


def test_clip_skip_is_off_for_a_model_with_one_layer(open_page: OpenPage, fake: FakeServer) -> None:
    fake.models[0]["clip_layers"] = 1
    page = open_page()
    ready(page)
    page.click("#more > summary")
    assert page.is_disabled("#clip")
    assert page.is_disabled("[data-of=clip]")
    assert page.inner_text("#clip-why") == "This model's text encoder has one layer."


def test_hires_is_off_where_the_server_draws_no_larger(page: Page) -> None:
    page.click("#more > summary")
    page.check("#hires-on")
    assert page.get_attribute("#hires", "max") == "4"  # 2048 x 2048 of 512 x 512
    page.fill("#width", "2048")
    page.fill("#height", "2048")
    assert page.is_disabled("#hires-on")
    assert page.is_disabled("#hires")
    assert "already as large as this server draws" in page.inner_text("#hires-why")


def test_there_is_no_last_seed_to_reuse_at_first(page: Page) -> None:
    assert page.is_disabled("#seed-reuse")
    assert "once there is one" in str(page.get_attribute("#seed-reuse", "title"))


def test_without_a_server_nothing_is_said_of_what_it_has(open_page: OpenPage) -> None:
    page = open_page("file")
    ready(page)
    page.select_option("#sampler", "euler a")
    page.select_option("#schedule", "karras")
    page.select_option("#model", "doodle")
    kept = "Object.values(localStorage).join()"
    until(lambda: all(word in page.evaluate(kept) for word in ("euler a", "karras", "doodle")))
    page.evaluate("localStorage['imagine.address'] = JSON.stringify('http://127.0.0.1:9')")
    page.reload()
    page.wait_for_selector("#server-status[data-state=away]")
    chosen = [page.inner_text(f"#{name} option:checked") for name in ("sampler", "schedule")]
    assert [*chosen, page.inner_text("#model option:checked")] == ["euler a", "karras", "doodle"]
    assert page.is_disabled("#enhance")
    assert page.inner_text("#enhance-why") == "Enhance is off. The server has not answered yet."


def test_a_sampler_that_the_server_lacks_is_kept_and_remarked_on(page: Page) -> None:
    page.evaluate("Imagine.form.fill({ sampler: 'restart' })")
    assert page.inner_text("#sampler option:checked") == "restart (not on this server)"
    assert page.inner_text("#sampler-note") == "This server has no such sampler."
    page.select_option("#sampler", "heun")
    assert page.inner_text("#sampler-note").startswith("2 evaluations a step")


def test_the_kind_of_preview_is_off_without_previews(page: Page) -> None:
    page.click("#more summary")
    page.fill("#stream", "0")
    assert page.is_disabled("#preview")
    assert page.inner_text("#preview-why") == "No previews are asked for."


# ------------------------------------------------------------------------------------ size


def test_presets_keep_the_number_of_pixels_and_swap_turns_them(page: Page) -> None:
    page.get_by_role("button", name="16:9").click()
    assert (page.input_value("#width"), page.input_value("#height")) == ("672", "384")
    page.click("#swap")
    assert (page.input_value("#width"), page.input_value("#height")) == ("384", "672")
    page.get_by_role("button", name="3:2").click()
    assert (page.input_value("#width"), page.input_value("#height")) == ("416", "640")
    pressed = page.locator("#presets [aria-pressed=true]").all_inner_texts()
    assert pressed == ["3:2"]


def test_a_size_far_from_the_training_is_remarked_on(page: Page) -> None:
    page.fill("#width", "2048")
    assert "512 \u00d7 512" in page.inner_text("#size-note")


# ------------------------------------------------------------------------------------ seed


def test_a_random_seed_is_another_each_time_and_a_locked_one_the_same(
    page: Page, fake: FakeServer
) -> None:
    draw(page)
    draw(page)
    first, second = (request["seed"] for request in fake.requests)
    assert first != second
    page.click("text=Lock")
    draw(page)
    draw(page)
    assert fake.requests[2]["seed"] == fake.requests[3]["seed"] == second


def test_the_last_seed_can_be_reused(page: Page, fake: FakeServer) -> None:
    draw(page)
    page.click("#seed-reuse")
    assert page.input_value("#seed") == asked(fake)["seed"]
    draw(page)
    assert fake.requests[0]["seed"] == fake.requests[1]["seed"]


def test_a_seed_that_is_none_is_refused_beside_its_field(page: Page, fake: FakeServer) -> None:
    page.fill("#prompt", "a boat")
    page.fill("#seed", "18446744073709551616")
    page.click("#generate")
    assert "0 to 2^64 - 1" in page.inner_text("#seed-error")
    assert fake.requests == []


# ---------------------------------------------------------------------------------- prompt


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        # What CLIP's own tokenizer makes of them, without its start and end marks.
        ("a red cat on a meadow at sunset", 8),
        ("a photo of an astronaut riding a horse on mars, epic, cinematic, detailed", 16),
        ("1girl, solo, 8k", 7),
    ],
)
def test_the_token_count_is_about_that_of_clip(page: Page, prompt: str, count: int) -> None:
    page.select_option("#model", "dreamshaper_8")
    page.fill("#prompt", prompt)
    shown = page.inner_text("#tokens")
    estimate = int(shown.split()[1])
    assert abs(estimate - count) <= 1
    assert shown == f"≈ {estimate} of 75 tokens"


def test_weights_are_no_tokens_and_long_prompts_are_counted_in_chunks(page: Page) -> None:
    page.select_option("#model", "sdxl_base")
    page.fill("#prompt", "(cat:1.3)")
    assert page.inner_text("#tokens") == "≈ 1 of 75 tokens"
    page.fill("#prompt", "cat " * 80)
    assert page.inner_text("#tokens") == "≈ 80 in 2 chunks of 75 tokens"
    page.select_option("#model", "doodle")
    assert page.inner_text("#tokens") == "≈ 80 tokens"  # its chunks are of another length


def test_an_idea_fills_the_prompt(page: Page) -> None:
    page.click("#surprise")
    assert len(page.input_value("#prompt").split()) > 3


def test_an_empty_prompt_is_asked_for(page: Page, fake: FakeServer) -> None:
    page.click("#generate")
    assert page.inner_text("#prompt-error") == "Say what to draw."
    assert page.get_attribute("#prompt", "aria-invalid") == "true"
    assert fake.requests == []


def test_without_an_enhancer_the_button_is_off_and_says_why(page: Page) -> None:
    assert page.is_disabled("#enhance")
    assert "no prompt enhancer" in page.inner_text("#enhance-why")


def test_an_enhancer_that_is_not_there_is_off_and_says_why(
    open_page: OpenPage, fake: FakeServer
) -> None:
    fake.enhancers = [{"name": "ollama", "problem": "Ollama does not answer; start it"}]
    page = open_page()
    ready(page)
    assert page.is_disabled("#enhance")
    assert "Ollama does not answer" in page.inner_text("#enhance-why")


def test_enhance_improves_the_prompt_and_undo_brings_it_back(
    open_page: OpenPage, fake: FakeServer
) -> None:
    fake.enhancers = [
        {"name": "styles"},
        {"name": "ollama", "label": "Ollama"},
        {"name": "gone", "problem": "it does not answer"},
    ]
    page = open_page()
    ready(page)
    page.fill("#prompt", "a boat")
    page.fill("#neg", "dark")
    assert page.locator("#enhancer option").count() == 2
    page.select_option("#enhancer", label="Enhance with: Ollama")
    page.click("#enhance")
    page.wait_for_selector("#enhance-undo:visible")
    assert page.input_value("#prompt") == "a boat, golden light, detailed"
    assert page.input_value("#neg") == "blurry, dull"
    assert fake.enhanced[0] == {"prompt": "a boat", "neg": True, "enhancer": "ollama"}
    page.click("#enhance")
    until(lambda: page.input_value("#prompt").count("golden light") == 2)
    page.click("#enhance-undo")
    assert page.input_value("#prompt") == "a boat, golden light, detailed"
    page.click("#enhance-undo")
    assert (page.input_value("#prompt"), page.input_value("#neg")) == ("a boat", "dark")
    assert page.is_hidden("#enhance-undo")


# ------------------------------------------------------------------------ errors and memory


def test_the_fields_that_the_server_refuses_are_marked_with_its_words(
    page: Page, fake: FakeServer
) -> None:
    fields = [
        {"field": "clip", "message": "must be at most 2"},
        {"field": "width", "message": "must be a multiple of 64"},
        {"field": "colour", "message": "is no field of this page"},
    ]
    problem = {"type": "invalid_request", "message": "two fields", "fields": fields}
    fake.refuse = (422, problem)
    page.fill("#prompt", "a boat")
    page.click("#generate")
    message(page, "colour: is no field of this page", "bad")
    assert page.inner_text("#width-error") == "must be a multiple of 64"
    assert page.inner_text("#clip-error") == "must be at most 2"  # its section opened
    fake.refuse = None
    draw(page)
    assert page.text_content("#width-error") == ""


def test_a_mark_goes_once_its_cause_is_mended(page: Page) -> None:
    page.fill("#width", "4096")
    page.fill("#height", "1032")
    page.fill("#steps", "201")
    page.click("#generate")
    assert page.inner_text("#prompt-error") == "Say what to draw."
    page.click("#surprise")
    assert page.inner_text("#prompt-error") == ""
    assert page.get_attribute("#prompt", "aria-invalid") is None
    page.fill("#height", "512")  # which mends the width
    assert page.inner_text("#width-error") == ""
    assert "200" in page.inner_text("#steps-error")
    page.fill("#steps", "0")
    assert "1" in page.inner_text("#steps-error")  # wrong in another way
    page.fill("#steps", "20")
    assert page.locator("#form [aria-invalid]").count() == 0


def test_what_the_server_refused_is_marked_until_it_is_changed(
    page: Page, fake: FakeServer
) -> None:
    wrong = [
        {"field": "width", "message": "too wide"},
        {"field": "sampler", "message": "is for another model"},
        {"field": "steps", "message": "too many"},
    ]
    fake.refuse = (422, {"message": "x", "fields": wrong})
    page.fill("#prompt", "a boat")
    page.click("#generate")
    message(page, "see the marked fields", "bad")
    page.fill("#prompt", "a house")
    page.fill("#steps", "24")
    left = page.locator("#form .error:visible").all_inner_texts()
    assert left == ["too wide", "is for another model"]
    page.fill("#height", "256")
    page.select_option("#model", "sdxl_base")
    assert page.locator("#form .error:visible").count() == 0
    assert page.locator(".message").count() == 0


def test_a_hint_that_was_missing_is_no_longer_asked_for(page: Page, fake: FakeServer) -> None:
    page.select_option("#model", "dreamshaper_8")
    page.click("#controls")
    page.click("#picker .part >> nth=0")
    page.get_by_role("button", name="Done").click()
    page.fill("#prompt", "a boat")
    page.click("#generate")
    page.locator("#controls-error", has_text="Give canny a picture.").wait_for()
    drop(page, ".control", "hint.png", picture(1, 96, 64), "image/png")
    page.wait_for_selector("#controls-error", state="hidden")
    assert fake.requests == []


def test_messages_of_what_is_mended_go(open_page: OpenPage, fake: FakeServer) -> None:
    page = open_page("file")
    ready(page)
    drop(page, "#input-well", "torn.png", b"\x89PNG", "image/png")
    message(page, "torn.png is not a picture", "bad")
    drop(page, "#input-well", "whole.png", picture(1, 96, 64), "image/png")
    page.wait_for_selector(".message", state="hidden")
    connect(page, "http://127.0.0.1:9")
    page.fill("#prompt", "a boat")
    page.click("#generate")
    message(page, "No answer from http://127.0.0.1:9", "bad")
    connect(page, fake.url)
    page.wait_for_selector(".message", state="hidden")
    ready(page)


def test_the_form_survives_a_reload(page: Page) -> None:
    page.fill("#prompt", "a lighthouse")
    page.fill("#steps", "33")
    page.select_option("#sampler", "heun")
    page.fill("#seed", "7")
    page.reload()  # at once
    ready(page)
    values = [page.input_value(f"#{name}") for name in ("prompt", "steps", "sampler", "seed")]
    assert values == ["a lighthouse", "33", "heun", "7"]


def test_reset_goes_back_to_the_defaults_and_can_be_undone(page: Page) -> None:
    page.fill("#prompt", "a lighthouse")
    page.fill("#steps", "33")
    page.click("#reset")
    assert (page.input_value("#prompt"), page.input_value("#steps")) == ("", "25")
    page.get_by_role("button", name="Undo").click()
    assert (page.input_value("#prompt"), page.input_value("#steps")) == ("a lighthouse", "33")


def test_the_served_page_talks_to_its_own_server_and_says_why(page: Page, fake: FakeServer) -> None:
    page.click("#server-status")
    assert page.input_value("#address") == fake.url
    assert page.is_disabled("#address")
    assert "talks to no other" in page.inner_text("#address-why")


def test_the_whole_seed_can_be_seen(page: Page) -> None:
    page.fill("#seed", str(2**64 - 1))
    sides = page.evaluate("(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])(seed)")
    assert sides[0] == sides[1]


def test_a_page_opened_as_a_file_takes_any_address(open_page: OpenPage, fake: FakeServer) -> None:
    page = open_page("file")
    ready(page)
    connect(page, "not an address at all")
    message(page, "That is no address", "bad")
    connect(page, fake.url.removeprefix("http://"))
    ready(page)
    assert page.input_value("#address") == fake.url


def test_a_key_is_asked_for_and_sent(open_page: OpenPage, fake: FakeServer) -> None:
    fake.key = "sesame"
    page = open_page()
    message(page, "wants its API key", "bad")
    page.get_by_role("button", name="Enter the key").click()
    page.keyboard.type("sesame")
    page.keyboard.press("Enter")
    ready(page)
    draw(page)
    assert len(fake.requests) == 1
    page.reload()
    ready(page)
