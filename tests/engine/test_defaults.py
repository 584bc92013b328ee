"""What a request gets that leaves it to its model."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagine_core import GenerationRequest, ModelInfo
from imagine_core.engine import Engine
from imagine_core.engine.admission import Admitted
from imagine_core.engine.defaults import resolved
from imagine_core.errors import RequestError
from imagine_core.settings import Limits
from imagine_core.testing import FakePlugin

ASKED = GenerationRequest(prompt="red")
TURBO = ModelInfo(
    name="turbo",
    path=Path("turbo"),
    loader="fake",
    family="z-image",
    size=1,
    recommended_size=(1024, 768),
    defaults={"steps": 9, "guidance_scale": 1.0, "sampler": "euler"},
)


def test_what_neither_a_request_nor_its_model_says_is_usual() -> None:
    found = resolved(ASKED, None, Limits())
    assert (found.width, found.height, found.steps) == (512, 512, 25)
    assert (found.guidance_scale, found.sampler) == (7.0, "dpm++ 2m")
    assert found.distilled_guidance is None


def test_a_model_has_values_of_its_own_which_a_request_overrides() -> None:
    found = resolved(ASKED, TURBO, Limits())
    assert (found.width, found.height, found.steps) == (1024, 768, 9)
    assert (found.guidance_scale, found.sampler) == (1.0, "euler")
    said: dict[str, Any] = {"width": 64, "steps": 1, "guidance_scale": 0.0, "sampler": "heun"}
    found = resolved(replace(ASKED, **said), TURBO, Limits())
    assert (found.width, found.height, found.steps) == (64, 768, 1)
    assert (found.guidance_scale, found.sampler) == (0.0, "heun")


def test_a_request_that_says_nothing_keeps_to_the_servers_limits() -> None:
    limits = Limits(pixels=512 * 512, steps=4)
    found = resolved(ASKED, TURBO, limits)
    assert (found.width, found.height, found.steps) == (584, 440, 4)
    assert found.width * found.height <= limits.pixels
    wide = resolved(replace(ASKED, width=1024), TURBO, limits)
    assert (wide.width, wide.height) == (1024, 256)
    asked = resolved(replace(ASKED, width=1024, height=1024, steps=9), TURBO, limits)
    assert (asked.width, asked.height, asked.steps) == (1024, 1024, 9), "it is told instead"


@pytest.fixture
def own(fake: FakePlugin, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the fake loader says of its models beside the usual."""
    said: dict[str, Any] = {}
    recognise = fake.loader.recognise

    def changed(path: Path) -> ModelInfo | None:
        info = recognise(path)
        return info and replace(info, **said)

    monkeypatch.setattr(fake.loader, "recognise", changed)
    return said


def admitted(engine: Engine, **fields: Any) -> Admitted:
    return asyncio.run(engine.admit(GenerationRequest(**{"prompt": "red", **fields})))


def test_a_request_is_admitted_with_the_values_of_its_model(
    own: dict[str, Any], engine: Engine
) -> None:
    own |= {"recommended_size": (64, 128), "defaults": {"steps": 3, "sampler": "test euler"}}
    found = admitted(engine)
    assert (found.request.width, found.request.height, found.request.steps) == (64, 128, 3)
    assert found.request.sampler == found.sampler.name == "test euler"
    assert found.work[1:] == (64, 128)


def test_a_distilled_guidance_changes_nothing_in_models_that_read_none(
    own: dict[str, Any], engine: Engine
) -> None:
    found = admitted(engine, sampler="test euler", distilled_guidance=3.5)
    assert found.request.distilled_guidance is None
    assert found.warnings == (
        "distilled_guidance changes nothing: 'tiny' reads no guidance itself",
    )


def test_a_distilled_model_is_told_its_own_guidance_unless_a_request_says_another(
    own: dict[str, Any], engine: Engine
) -> None:
    own |= {"guidance": "distilled", "defaults": {"distilled_guidance": 2.5}}
    assert admitted(engine, sampler="test euler").request.distilled_guidance == 2.5
    asked = admitted(engine, sampler="test euler", distilled_guidance=4.0)
    assert asked.request.distilled_guidance == 4.0


def test_a_model_without_clip_skip_says_so(own: dict[str, Any], engine: Engine) -> None:
    own |= {"clip_layers": 1}
    with pytest.raises(RequestError, match="knows no clip skip"):
        admitted(engine, sampler="test euler", clip_skip=2)
