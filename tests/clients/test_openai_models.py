"""The Python package `openai` lists the models, and asks for those of the cloud."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest
from openai import OpenAI

from clients.native import PROMPT, SEED, SIZE, Live, same
from clients.replies import OWN, extra, pictures
from imagine_core.settings import ServerSettings
from slow_server import Server


def test_models_can_be_listed_and_looked_up(client: OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert {"doodle", "twin"} == set(models)
    found = client.models.retrieve("twin")
    assert found == models["twin"]
    assert (found.object, found.id) == ("model", "twin")
    assert isinstance(found.created, int)
    assert found.owned_by


def test_a_model_that_there_is_not_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("doodl")
    assert "doodle" in caught.value.message


def test_the_model_that_is_named_draws(client: OpenAI) -> None:
    response = client.images.generate(prompt=PROMPT, model="twin", size=SIZE, extra_body=OWN)
    assert extra(response, "model") == "twin"


@pytest.mark.parametrize("name", ["gpt-image-1", "dall-e-2", "dall-e-3"])
def test_names_of_the_clouds_models_draw_with_the_default_and_say_so(
    live: Live, client: OpenAI, name: str
) -> None:
    response = client.images.generate(prompt=PROMPT, model=name, size=SIZE, extra_body=OWN)
    assert same(pictures(response), live.draw(seed=SEED))
    assert extra(response, "model") == "doodle"
    (warning,) = extra(response, "warnings")
    assert name in warning
    assert "doodle" in warning


def test_a_strict_server_refuses_names_of_the_clouds_models(tmp_path: Path) -> None:
    server = Server(
        tmp_path / "models", server=ServerSettings(host="127.0.0.1", strict_models=True)
    )
    with server.running(), OpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
        for name in ("dall-e-3", "gpt-image-1"):
            with pytest.raises(openai.NotFoundError, match=name) as caught:
                client.images.generate(prompt=PROMPT, model=name, size="64x64")
            assert caught.value.code == "model_not_found"
