"""Names of a cloud's models, which some programs cannot change."""

from __future__ import annotations

from typing import Any

import pytest

from calls import app_of, ask
from imagine_core.engine import Engine
from imagine_core.settings import ServerSettings

BODY: dict[str, Any] = {"prompt": "red", "size": "64x64", "steps": 2, "n": 1}
PATH = "/v1/images/generations"


@pytest.mark.parametrize("name", ["dall-e-3", "gpt-image-1", "chatgpt-image-latest", "DALL-E-2"])
def test_they_mean_the_default_model_unless_the_server_is_strict(engine: Engine, name: str) -> None:
    body = {**BODY, "model": name}
    answer = ask(app_of(engine), "POST", PATH, json=body)
    assert answer.status_code == 200
    default = engine.catalogue.default().name
    assert answer.json()["model"] == default
    assert answer.json()["warnings"] == [
        f"there is no model {name!r} here: {default!r} draws instead"
    ]
    strict = ask(app_of(engine, ServerSettings(strict_models=True)), "POST", PATH, json=body)
    assert strict.status_code == 404
    assert strict.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("strict", [False, True])
def test_other_unknown_names_are_refused_and_known_ones_draw(
    engine: Engine,
    strict: bool,  # noqa: FBT001
) -> None:
    app = app_of(engine, ServerSettings(strict_models=strict))
    assert ask(app, "POST", PATH, json={**BODY, "model": "tinny"}).status_code == 404
    known = ask(app, "POST", PATH, json={**BODY, "model": "tiny"})
    assert (known.json()["model"], known.json()["warnings"]) == ("tiny", [])
