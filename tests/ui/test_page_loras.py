"""LoRAs, embeddings and VAEs on the page: found, chosen, sent, restored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ui.browsing import OpenPage, asked, connect, draw, drop, message, ready, until
from ui.test_page_files import load, png_with, values

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from ui.fake_server import FakeServer


@pytest.fixture
def page(page: Page) -> Page:
    """The page, with a model that takes everything."""
    page.select_option("#model", "dreamshaper_8")
    return page


def pick(page: Page, *names: str) -> None:
    """Choose LoRAs with the picker."""
    open_picker(page)
    for name in names:
        part(page, name).click()
    page.keyboard.press("Escape")


def open_picker(page: Page, kind: str = "LoRAs") -> None:
    page.click("#loras")
    page.locator("#picker[open]").get_by_text(kind, exact=True).click()
    page.locator("#picker .part").first.wait_for()


def part(page: Page, name: str) -> Locator:
    return page.locator(f"#picker .part[data-name='{name}']")


def listed(page: Page) -> list[str]:
    return page.locator("#picker .part-name").all_inner_texts()


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("group", name=name, exact=True)


def note(page: Page) -> str:
    return page.inner_text("#picker > .note")


# ----------------------------------------------------------------------------------- choosing


def test_the_picker_lists_what_fits_the_model_with_its_family_and_words(page: Page) -> None:
    open_picker(page)
    assert listed(page) == ["watercolour", "ink"]
    assert note(page) == "2 LoRAs for dreamshaper_8."
    assert part(page, "watercolour").inner_text().endswith("Stable Diffusion 1 · 37.9 MB · rank 16")
    words = page.locator("#picker li").first.locator(".word").all_inner_texts()
    assert words == ["watercolour style", "wet paper"]


def test_what_does_not_fit_is_shown_on_demand_with_the_reason(page: Page) -> None:
    open_picker(page)
    page.get_by_role("button", name="Show 2 that do not fit").click()
    assert listed(page) == ["watercolour", "ink", "pixels_xl", "torn"]
    assert part(page, "pixels_xl").is_disabled()
    assert part(page, "torn").is_disabled()
    reasons = page.locator("#picker .why").all_inner_texts()
    assert reasons == [
        "For SDXL; dreamshaper_8 is Stable Diffusion 1.",
        "the file is cut short; fetch it again",
    ]
    page.get_by_role("button", name="Hide 2 that do not fit").click()
    assert listed(page) == ["watercolour", "ink"]


def test_a_chosen_lora_is_sent_with_the_weight_of_its_slider(page: Page, fake: FakeServer) -> None:
    pick(page, "watercolour", "ink")
    page.get_by_label("Weight of watercolour, slider").fill("-0.35")
    assert page.get_by_label("Weight of watercolour", exact=True).input_value() == "-0.35"
    page.get_by_label("Weight of ink", exact=True).fill("2.5")
    draw(page)
    expected = [{"name": "watercolour", "weight": -0.35}, {"name": "ink", "weight": 2.5}]
    assert asked(fake)["loras"] == expected
    assert "watercolour -0.35" in page.inner_text("#caption")


def test_without_any_nothing_is_said_of_them(page: Page, fake: FakeServer) -> None:
    draw(page)
    assert {"loras", "vae", "decoder"} & set(asked(fake)) == set()


def test_a_second_click_takes_it_out_again(page: Page) -> None:
    open_picker(page)
    part(page, "ink").click()
    assert part(page, "ink").get_attribute("aria-pressed") == "true"
    part(page, "ink").click()
    assert part(page, "ink").get_attribute("aria-pressed") == "false"
    assert values(page)["loras"] == []


def test_a_double_click_on_the_slider_is_a_weight_of_1(page: Page) -> None:
    pick(page, "ink")
    slider = page.get_by_label("Weight of ink, slider")
    slider.fill("0.2")
    slider.dblclick()
    assert values(page)["loras"] == [{"name": "ink", "weight": 1}]
    assert page.get_by_label("Weight of ink", exact=True).input_value() == "1"


def test_a_removed_row_is_gone_and_the_next_has_the_focus(page: Page) -> None:
    pick(page, "watercolour", "ink")
    page.get_by_role("button", name="Remove watercolour").click()
    assert [use["name"] for use in values(page)["loras"]] == ["ink"]
    assert page.get_by_role("button", name="Remove ink").evaluate(
        "(button) => button === document.activeElement"
    )
    page.keyboard.press("Enter")
    assert page.locator("#loras:focus").count() == 1
    assert page.locator(".lora").count() == 0


def test_a_weight_that_is_none_is_refused_before_it_is_sent(page: Page, fake: FakeServer) -> None:
    pick(page, "ink")
    page.fill("#prompt", "a boat")
    for weight in ("", "101"):
        page.get_by_label("Weight of ink", exact=True).fill(weight)
        page.click("#generate")
        assert page.inner_text("#loras-error") == "A weight is a number from -100 to 100."
    assert fake.requests == []


def test_what_the_server_refuses_is_said_beside_them(page: Page, fake: FakeServer) -> None:
    pick(page, "ink")
    problem = {"field": "loras", "message": "'ink' is for SDXL"}
    fake.refuse = (422, {"message": "x", "fields": [problem]})
    page.fill("#prompt", "a boat")
    page.click("#generate")
    until(lambda: page.inner_text("#loras-error") == "'ink' is for SDXL")


def test_rows_that_do_not_fit_another_model_are_marked_and_stay(
    page: Page, fake: FakeServer
) -> None:
    pick(page, "ink")
    assert row(page, "ink").locator(".why").inner_text() == ""
    page.select_option("#model", "sdxl_base")
    why = "For Stable Diffusion 1 and Stable Diffusion 2; sdxl_base is SDXL."
    assert row(page, "ink").locator(".why").inner_text() == why
    page.select_option("#model", "doodle")
    assert row(page, "ink").locator(".why").inner_text() == "doodle takes none."
    draw(page)
    assert asked(fake)["loras"] == [{"name": "ink", "weight": 1}]
    page.select_option("#model", "dreamshaper_8")
    assert row(page, "ink").locator(".why").inner_text() == ""


def test_they_are_there_again_at_the_next_visit(page: Page) -> None:
    pick(page, "watercolour")
    page.get_by_label("Weight of watercolour, slider").fill("0.5")
    page.wait_for_timeout(400)  # until the form is saved
    page.reload()
    ready(page)
    row(page, "watercolour").wait_for()
    assert values(page)["loras"] == [{"name": "watercolour", "weight": 0.5}]
    row(page, "watercolour").locator(".word").first.wait_for()


def test_reset_takes_them_out_and_undo_brings_them_back(page: Page) -> None:
    pick(page, "ink")
    page.get_by_label("Weight of ink, slider").fill("0.5")
    page.click("#reset")
    assert page.locator(".lora").count() == 0
    page.get_by_role("button", name="Undo").click()
    assert values(page)["loras"] == [{"name": "ink", "weight": 0.5}]
    assert page.get_by_label("Weight of ink, slider").input_value() == "0.5"


# -------------------------------------------------------------------------------------- words

CALLS = {
    "": ("", "wet paper"),
    "a cat": ("", "a cat, wet paper"),
    "a cat, ": ("", "a cat, wet paper"),
    "a red | cat": ("", "a red, wet paper, cat"),
    "a r|ed cat": ("", "a red, wet paper, cat"),
    "a cat|, a dog": ("", "a cat, wet paper, a dog"),
    "| a cat": ("", "wet paper, a cat"),
    "a cat\n|a dog": ("", "a cat\nwet paper, a dog"),
}


@pytest.mark.parametrize("before", CALLS)
def test_a_trigger_word_goes_to_the_caret_and_a_second_click_takes_it_out(
    page: Page, before: str
) -> None:
    pick(page, "watercolour")
    text = before.replace("|", "")
    page.fill("#prompt", text)
    at = before.index("|") if "|" in before else len(text)
    page.evaluate("(at) => document.querySelector('#prompt').setSelectionRange(at, at)", at)
    word = row(page, "watercolour").get_by_role("button", name="wet paper")
    assert word.get_attribute("aria-pressed") == "false"
    word.click()
    assert page.input_value("#prompt") == CALLS[before][1]
    assert word.get_attribute("aria-pressed") == "true"
    word.click()
    assert "wet paper" not in page.input_value("#prompt")
    assert word.get_attribute("aria-pressed") == "false"


TAKEN = {
    "wet paper": "",
    "a cat, wet paper": "a cat",
    "wet paper, a cat": "a cat",
    "a, Wet Paper, b": "a, b",
    "a wet paper boat": "a boat",
    "a, (wet paper:1.2), b": "a, b",
    "a\nwet paper\nb": "a\n\nb",
}


@pytest.mark.parametrize("before", TAKEN)
def test_a_word_that_is_taken_out_leaves_the_prompt_in_order(page: Page, before: str) -> None:
    pick(page, "watercolour")
    page.fill("#prompt", before)
    row(page, "watercolour").get_by_role("button", name="wet paper").click()
    assert page.input_value("#prompt") == TAKEN[before]


def test_a_word_is_one_click_away_in_the_picker_too(page: Page) -> None:
    open_picker(page)
    word = page.locator("#picker .word", has_text="wet paper")
    word.click()
    assert page.input_value("#prompt") == "wet paper"
    assert word.get_attribute("aria-pressed") == "true"
    word.click()
    assert page.input_value("#prompt") == ""
    assert word.get_attribute("aria-pressed") == "false"


def test_a_word_inside_another_is_not_that_word(page: Page, fake: FakeServer) -> None:
    fake.parts["lora"][1]["details"] = {"triggers": ["1girl", "c++ (odd) [x]"]}
    pick(page, "ink")
    page.fill("#prompt", "11girls")
    girl = row(page, "ink").get_by_role("button", name="1girl")
    assert girl.get_attribute("aria-pressed") == "false"
    odd = row(page, "ink").get_by_role("button", name="c++ (odd) [x]")
    odd.click()
    assert page.input_value("#prompt") == "11girls, c++ (odd) [x]"
    odd.click()
    assert page.input_value("#prompt") == "11girls"


def test_an_embedding_goes_into_the_prompt_that_was_used_last(page: Page) -> None:
    page.fill("#prompt", "a hand")
    open_picker(page, "Embeddings")
    assert listed(page) == ["badhands"]
    part(page, "badhands").click()
    assert page.input_value("#prompt") == "a hand, badhands"
    part(page, "badhands").click()
    assert page.input_value("#prompt") == "a hand"
    page.keyboard.press("Escape")
    page.fill("#neg", "blurry")
    open_picker(page, "Embeddings")
    part(page, "badhands").click()
    assert (page.input_value("#prompt"), page.input_value("#neg")) == ("a hand", "blurry, badhands")
    page.locator("#picker").get_by_text("Prompt", exact=True).click()
    assert part(page, "badhands").get_attribute("aria-pressed") == "false"


def test_a_tag_in_the_prompt_stays_there_and_is_no_token(page: Page, fake: FakeServer) -> None:
    page.fill("#prompt", "a cat <lora:ink:0.8>")
    assert page.inner_text("#tokens") == "≈ 2 of 75 tokens"
    draw(page, "a cat <lora:ink:0.8>")
    assert asked(fake)["prompt"] == "a cat <lora:ink:0.8>"


# ----------------------------------------------------------------------------------- restoring

USES: list[dict[str, Any]] = [
    {"name": "ink", "weight": 0.8},
    {
        "name": "elsewhere",
        "weight": -1,
        "text_weight": 0.5,
        "start": 0.2,
        "end": 0.75,
        "blocks": "MIDD",
    },
]


def test_the_metadata_of_a_picture_restores_them(
    page: Page, fake: FakeServer, tmp_path: Path
) -> None:
    meta = {"prompt": "a mill", "loras": USES, "vae": "ft-mse", "decoder": "fast"}
    file = tmp_path / "mill.png"
    file.write_bytes(png_with(meta=json.dumps(meta)))
    load(page, file)
    message(page, "Loaded mill.png.", "good")
    found = values(page)
    assert {key: found[key] for key in meta} == meta
    why = row(page, "elsewhere").locator(".why")
    until(lambda: why.inner_text() == "Not among the LoRAs of this server.")
    said = row(page, "elsewhere").locator(".note").inner_text()
    assert said == "text encoders 0.5, from 20% to 75% of the steps, blocks MIDD"
    draw(page, "a mill")
    assert asked(fake)["loras"] == USES


def test_a_name_as_other_programs_write_it_is_that_of_the_server(page: Page) -> None:
    uses = [{"name": "styles\\Ink.safetensors"}, {"name": "toner"}]
    data = json.dumps({"prompt": "a mill", "loras": uses}).encode()
    drop(page, "#stage", "s.json", data, "application/json")
    why = row(page, "toner").locator(".why")
    until(lambda: why.inner_text() == "Not among the LoRAs of this server.")
    assert row(page, "styles\\Ink.safetensors").locator(".why").inner_text() == ""


def test_the_tags_of_an_infotext_become_rows(page: Page) -> None:
    infotext = (
        "a castle, <lora:ink:0.6:0.8> (tower:1.2) <lora:watercolour>\nNegative prompt: fog\n"
        'Steps: 20, Sampler: Euler a, Seed: 9, Size: 64x64, Lora hashes: "ink: 12, watercolour: 3"'
    )
    drop(page, "#stage", "castle.png", png_with(parameters=infotext), "image/png")
    message(page, "Loaded castle.png.", "good")
    assert page.input_value("#prompt") == "a castle,  (tower:1.2)"
    assert values(page)["loras"] == [
        {"name": "ink", "weight": 0.8, "text_weight": 0.6},
        {"name": "watercolour", "weight": 1},
    ]
    row(page, "watercolour").wait_for()


def test_a_picture_without_any_takes_them_out(page: Page) -> None:
    pick(page, "ink")
    infotext = "a mill\nSteps: 20, Sampler: Euler a, Seed: 9, Size: 64x64"
    drop(page, "#stage", "mill.png", png_with(parameters=infotext), "image/png")
    message(page, "Loaded mill.png.", "good")
    assert values(page)["loras"] == []
    assert page.locator(".lora").count() == 0


def test_settings_that_are_no_pictures_leave_them(page: Page) -> None:
    pick(page, "ink")
    drop(page, "#stage", "s.json", b'{"prompt": "a mill", "steps": 3}', "application/json")
    message(page, "Loaded s.json.")
    assert values(page)["loras"] == [{"name": "ink", "weight": 1}]


def test_the_gallery_restores_them(page: Page) -> None:
    pick(page, "ink")
    page.get_by_label("Weight of ink, slider").fill("0.3")
    draw(page, "a mill")
    page.get_by_label("Weight of ink, slider").fill("0.9")
    page.click("#act-restore")
    message(page, "Settings restored.")
    assert values(page)["loras"] == [{"name": "ink", "weight": 0.3}]
    assert page.get_by_label("Weight of ink, slider").input_value() == "0.3"
    page.get_by_role("button", name="Remove ink").click()
    page.click("#act-restore")
    row(page, "ink").wait_for()
    assert values(page)["loras"] == [{"name": "ink", "weight": 0.3}]


BROKEN: list[Any] = [
    "ink",
    [{"weight": 1}],
    [{"name": " "}],
    [{"name": "ink", "weight": "1"}],
    [{"name": "ink", "weight": 1e9}],
    [{"name": "ink", "start": -1}],
    [{"name": "ink", "__proto__": 1}],
    [{"name": "ink", "constructor": 1}],
    [{"name": "ink", "colour": 1}],
    [None],
    [{"name": "ink"}] * 33,
]


@pytest.mark.parametrize("loras", BROKEN, ids=lambda loras: str(loras)[:24])
def test_a_list_that_is_none_is_left_out_by_name(page: Page, loras: Any) -> None:
    data = json.dumps({"prompt": "a mill", "loras": loras}).encode()
    drop(page, "#stage", "odd.json", data, "application/json")
    message(page, "Not taken over, because of its value: loras.", "warn")
    assert values(page)["loras"] == []


# -------------------------------------------------------------------------------- many and none


def many(fake: FakeServer, count: int) -> None:
    fake.parts["lora"] = [
        {
            "name": f"style {number:03}",
            "kind": "lora",
            "family": "sd1",
            "fits": ["sd1"],
            "size": 10**7,
            "details": {"triggers": [f"call {number:03}", "paper", "ink", "wash"]},
        }
        for number in range(count)
    ]


def test_among_500_one_is_found_at_once(page: Page, fake: FakeServer) -> None:
    many(fake, 500)
    open_picker(page)
    until(lambda: note(page) == "500 LoRAs for dreamshaper_8.")
    assert 0 < page.locator("#picker .part").count() <= 120  # more of them as one scrolls
    took = page.evaluate(
        """() => {
            const find = document.querySelector('#picker input[type=search]');
            const began = performance.now();
            for (const text of ['4', '49', '49 styl', 'call 497', '']) {
                find.value = text;
                find.dispatchEvent(new Event('input', { bubbles: true }));
            }
            return (performance.now() - began) / 5;
        }"""
    )
    assert took < 100  # milliseconds a key
    page.fill("#picker input[type=search]", "")
    page.keyboard.type("CALL 497")
    assert listed(page) == ["style 497"]
    assert note(page) == "1 LoRA found for dreamshaper_8."
    page.keyboard.press("Enter")
    assert values(page)["loras"] == [{"name": "style 497", "weight": 1}]


def test_scrolling_brings_the_rest(page: Page, fake: FakeServer) -> None:
    many(fake, 150)
    open_picker(page)
    until(lambda: note(page) == "150 LoRAs for dreamshaper_8.")

    def all_there() -> bool:
        page.locator("#picker .part").last.scroll_into_view_if_needed()
        return page.locator("#picker .part").count() == 150

    until(all_there)
    part(page, "style 149").click()
    assert values(page)["loras"] == [{"name": "style 149", "weight": 1}]


def test_without_any_it_says_where_they_belong(page: Page, fake: FakeServer) -> None:
    fake.parts["lora"] = fake.parts["embedding"] = []
    page.click("#loras")
    page.wait_for_selector("#picker[open]")
    until(lambda: "into the folder loras in its models folder" in note(page))
    assert "imagine pull" in note(page)
    page.locator("#picker").get_by_text("Embeddings", exact=True).click()
    assert "into the folder embeddings in its models folder" in note(page)


def test_a_file_that_is_put_there_is_listed_when_it_is_opened_again(
    page: Page, fake: FakeServer
) -> None:
    open_picker(page)
    page.keyboard.press("Escape")
    fake.parts["lora"].append({"name": "new", "kind": "lora", "family": "sd1", "fits": ["sd1"]})
    page.click("#loras")
    until(lambda: "new" in listed(page))


@pytest.mark.parametrize(("family", "fits"), [("sd1-inpaint", "sd1"), ("sd", "sdxl"), ("sd1", "")])
def test_what_the_server_takes_for_a_family_fits(
    open_page: OpenPage, fake: FakeServer, family: str, fits: str
) -> None:
    fake.models[1]["family"] = family
    fake.parts["lora"] = [{"name": "one", "kind": "lora", "fits": fits.split()}]
    page = open_page()
    ready(page)
    page.select_option("#model", "dreamshaper_8")
    open_picker(page)
    assert listed(page) == ["one"]


def test_a_model_that_takes_none_is_said_to(page: Page) -> None:
    page.select_option("#model", "doodle")
    page.click("#loras")
    until(lambda: note(page) == "No LoRA for doodle.")
    page.get_by_role("button", name="Show 4 that do not fit").click()
    assert page.locator("#picker .why").first.inner_text() == "doodle takes none."


def test_nothing_of_a_lora_becomes_html(page: Page, fake: FakeServer) -> None:
    markup = "<img src=x onerror=document.title=1>"
    fake.parts["lora"] = [
        {
            "name": markup,
            "kind": "lora",
            "family": markup,
            "fits": ["sd1"],
            "details": {"triggers": [markup, 7, None], "ranks": markup},
        },
        {"name": "odd", "kind": "lora", "fits": None, "details": None, "problem": markup},
    ]
    pick(page, markup)
    assert row(page, markup).locator(".word").all_inner_texts() == [markup]
    assert page.locator("[onerror]").count() == 0
    assert page.title() == "Imagine"


def test_a_server_that_knows_no_embeddings_has_its_loras(page: Page, fake: FakeServer) -> None:
    del fake.parts["embedding"]
    open_picker(page)
    assert listed(page) == ["watercolour", "ink"]
    page.locator("#picker").get_by_text("Embeddings", exact=True).click()
    until(lambda: "status 500" in note(page))


def test_without_a_server_the_picker_says_so(page: Page, fake: FakeServer) -> None:
    fake.key = "secret"
    page.click("#loras")
    until(lambda: note(page) == "this server wants its API key")
    page.keyboard.press("Escape")
    fake.key = None
    open_picker(page)
    assert listed(page) == ["watercolour", "ink"]


def test_a_page_opened_as_a_file_has_the_loras_of_its_server(
    open_page: OpenPage, fake: FakeServer
) -> None:
    page = open_page("file")
    ready(page)
    connect(page, fake.url)
    page.select_option("#model", "dreamshaper_8")
    pick(page, "ink")
    draw(page)
    assert asked(fake)["loras"] == [{"name": "ink", "weight": 1}]


# ------------------------------------------------------------------------------------ by keys


def test_all_of_it_works_with_the_keyboard_alone(page: Page) -> None:
    page.focus("#loras")
    page.keyboard.press("Enter")
    page.locator("#picker .part").first.wait_for()
    assert page.locator("#picker input[type=search]:focus").count() == 1
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.locator("#picker .part[data-name=ink]:focus").count() == 1
    page.keyboard.press("Space")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.locator("#picker input[type=search]:focus").count() == 1
    page.keyboard.press("Escape")
    page.wait_for_selector("#picker", state="hidden")
    assert page.locator("#loras:focus").count() == 1
    page.keyboard.press("Tab")
    page.keyboard.type("0.5")
    assert values(page)["loras"] == [{"name": "ink", "weight": 0.5}]
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert values(page)["loras"] == [{"name": "ink", "weight": 0.55}]


# ---------------------------------------------------------------------------------------- VAEs

VAES: list[dict[str, Any]] = [
    {"name": "ft-mse", "kind": "vae", "family": "sd1", "fits": ["sd1", "sd2"]},
    {"name": "xl-fix", "kind": "vae", "family": "sdxl", "fits": ["sdxl"]},
    {
        "name": "taesd",
        "kind": "vae",
        "family": "sd1",
        "fits": ["sd1"],
        "details": {"decoder": "fast"},
    },
]


def offers(page: Page, *choices: str) -> None:
    """The VAEs that the page offers, once its fields under More are there."""
    options = page.locator("#vae option:not([hidden])")
    until(lambda: options.all_inner_texts() == [*choices])


def test_vaes_are_offered_where_there_are_any_for_the_model(
    open_page: OpenPage, fake: FakeServer
) -> None:
    fake.parts["vae"] = [dict(vae) for vae in VAES]
    page = open_page()
    ready(page)
    page.click("#more > summary")
    page.wait_for_selector("#clip")
    assert page.is_hidden("#vae")  # doodle takes none
    assert page.is_hidden("#decoder")
    page.select_option("#model", "dreamshaper_8")
    offers(page, "The model's", "ft-mse")
    page.select_option("#vae", "ft-mse")
    page.check("#decoder")
    draw(page)
    assert (asked(fake)["vae"], asked(fake)["decoder"]) == ("ft-mse", "fast")
    page.select_option("#model", "sdxl_base")
    offers(page, "The model's", "ft-mse", "xl-fix")
    said = "For Stable Diffusion 1 and Stable Diffusion 2; sdxl_base is SDXL."
    assert page.inner_text("#vae-why") == said
    assert page.inner_text("#decoder-why") == "This server has no fast decoder for sdxl_base."
    page.uncheck("#decoder")
    assert page.is_hidden("#decoder")


def test_a_model_with_a_vae_of_its_sidecar_can_draw_without_it(
    open_page: OpenPage, fake: FakeServer
) -> None:
    fake.models[1]["vae"] = "ft-mse"
    page = open_page()
    ready(page)
    page.click("#more > summary")
    page.select_option("#model", "dreamshaper_8")
    offers(page, "The model's", "The one in the model")
    page.select_option("#vae", "none")
    draw(page)
    assert asked(fake)["vae"] == "none"


def test_a_server_without_vaes_has_no_control_for_them(page: Page) -> None:
    page.click("#more > summary")
    page.wait_for_selector("#clip")
    assert page.is_hidden("#vae")
    assert page.is_hidden("#decoder")
