"""The unchanged page offers what plugins add."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from programs import serving
from strangers import install_example
from ui.browsing import draw, ready

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def test_a_stranger_s_sampler_can_be_chosen_and_draws(browser: Browser, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    install_example(packages, "imagine-sampler-rk4")
    variables = {"PYTHONPATH": str(packages), "IMAGINE_API_KEY": ""}
    context = browser.new_context()
    context.set_default_timeout(60_000)
    with serving(tmp_path / "models", step=0, **variables) as (url, _):
        page = context.new_page()
        page.goto(url)
        ready(page)
        assert page.locator("#sampler option[value=rk4]").text_content() == "RK4"
        page.select_option("#sampler", "rk4")
        with page.expect_request("**/generate") as asked:
            draw(page)
        assert '"sampler":"rk4"' in str(asked.value.post_data)
    context.close()
