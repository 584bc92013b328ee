"""Fixtures: live servers with the bundled model, and clients of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI
from webuiapi import WebUIApi

import imagine_plugins.doodle
from clients.native import Live, Pixels
from clients.webui import client_of
from programs import KEY, serving_doodle


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a copy of doodle called "twin"."""
    folder = tmp_path_factory.mktemp("models")
    (package,) = imagine_plugins.doodle.__path__
    (folder / "twin").symlink_to(Path(package) / "models" / "doodle")
    return folder


@pytest.fixture(scope="session")
def live(models: Path) -> Iterator[Live]:
    """A server that anybody may use."""
    with serving_doodle(models, "--default-model", "doodle") as (url, _):
        yield Live(url)


@pytest.fixture(scope="session")
def locked(models: Path) -> Iterator[Live]:
    """A server that wants a key."""
    with serving_doodle(models, "--default-model", "doodle", key=KEY) as (url, _):
        yield Live(url, KEY)


@pytest.fixture(scope="session")
def house(live: Live) -> Pixels:
    """A picture to start from."""
    (picture,) = live.draw(seed=99)
    return picture


@pytest.fixture
def client(live: Live) -> Iterator[OpenAI]:
    """The Python package, which repeats nothing by itself."""
    with OpenAI(base_url=f"{live.url}/v1", api_key="not needed", max_retries=0) as client:
        yield client


@pytest.fixture
def api(live: Live) -> Iterator[WebUIApi]:
    """The Python package for A1111's API; at the end, the server's model is doodle again."""
    with client_of(live) as api:
        yield api
        api.set_options({"sd_model_checkpoint": "doodle"})
