"""The plugin that serves the web page."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from imagine_core.web.marks import marks_of
from imagine_plugins import page


def routes() -> list[BaseRoute]:
    registered: list[BaseRoute] = []
    page.register_routes(register=registered.append)
    return registered


def ask(path: str, method: str = "GET", **options: Any) -> httpx.Response:
    async def call() -> httpx.Response:
        app = Starlette(routes=routes())
        app.router.redirect_slashes = False  # as in the application
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **options)

    return asyncio.run(call())


def test_the_page_is_at_the_root() -> None:
    answer = ask("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text.startswith("<!doctype html>")


def test_every_file_that_the_page_names_is_served_with_its_type() -> None:
    text = ask("/").text + ask("/js/parts.js").text.replace("'", '"')
    assets = page.read_assets(page.page_folder())
    named = [path for path in assets if path != "/" and f'"{path[1:]}"' in text]
    assert len(named) == len(assets) - 1
    for path in named:
        answer = ask(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == assets[path].media_type
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_policy_allows_the_pages_own_files_and_server_and_nothing_else() -> None:
    policy = ask("/").headers["content-security-policy"]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split("; ")}
    assert rules["default-src"] == ["'none'"]
    for kind in ("script-src", "style-src", "connect-src"):
        assert rules[kind] == ["'self'"]
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == ["'none'"]
    assert rules["require-trusted-types-for"] == ["'script'"]
    assert rules["trusted-types"] == ["imagine-parts"]
    assert "unsafe" not in policy


def test_a_browser_that_has_the_file_is_told_so() -> None:
    first = ask("/js/app.js")
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    for known in (tag, f'"other", W/{tag}', "*"):
        again = ask("/js/app.js", headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    assert ask("/js/app.js", headers={"if-none-match": '"other"'}).status_code == 200


def test_the_tag_follows_the_contents(tmp_path: Path) -> None:
    file = tmp_path / "imagine-ui.html"
    file.write_text("one")
    first = page.read_assets(tmp_path)["/"]
    file.write_text("two")
    second = page.read_assets(tmp_path)["/"]
    assert (first.body, second.body) == (b"one", b"two")
    assert first.etag != second.etag


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/js/../../pyproject.toml",
        "/js/%2e%2e/%2e%2e/pyproject.toml",
        "/js/..%2f..%2fpyproject.toml",
        "/js/",
        "/js",
        "/imagine_plugins/page.py",
        "//etc/passwd",
        "/js/app.js/",
        "/js/app.js%00.html",
    ],
)
def test_a_path_reaches_nothing_but_the_pages_files(path: str) -> None:
    assert ask(path).status_code == 404


def test_other_files_beside_the_page_are_not_served(tmp_path: Path) -> None:
    (tmp_path / "imagine-ui.html").touch()
    (tmp_path / "notes.md").touch()
    (tmp_path / ".env").touch()
    assert set(page.read_assets(tmp_path)) == {"/"}


def test_the_page_cannot_be_written_to() -> None:
    assert ask("/", "POST").status_code == 405


def test_head_answers_as_get_does_without_the_body() -> None:
    answer = ask("/", "HEAD")
    assert answer.status_code == 200
    assert answer.content == b""


def test_the_page_opens_without_a_key() -> None:
    """It is where a person enters the key."""
    assert all(marks_of(route).without_key for route in routes())


def test_an_installed_package_has_the_page_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "imagine_plugins"
    (package / "ui").mkdir(parents=True)
    monkeypatch.setattr(page, "__file__", str(package / "page.py"))
    assert page.page_folder() == package / "ui"
