"""Admission: a request is resolved once, its pictures decoded within one bound."""

from __future__ import annotations

import asyncio
import base64
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from calls import SMALL, app_of, ask
from engines import RED
from imagine_core import GenerationRequest
from imagine_core.engine import Engine
from imagine_core.engine.admission import Admitted
from imagine_core.errors import Busy, FieldError, RequestError, ShuttingDown, UnknownName
from imagine_core.pictures import images
from imagine_core.settings import Limits, Settings
from imagine_core.testing import build_test_engine


def png(size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", size, "red").save(buffer, "PNG")
    return buffer.getvalue()


def admitted(engine: Engine, **fields: Any) -> Admitted:
    return asyncio.run(engine.admit(GenerationRequest(**{"prompt": "red", **fields})))


def refused(engine: Engine, *errors: FieldError, **fields: Any) -> dict[str, str]:
    request = GenerationRequest(**{"prompt": "red", **fields})
    with pytest.raises(RequestError) as caught:
        asyncio.run(engine.admit(request, errors=errors))
    return {error.field: error.message for error in caught.value.fields}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the pictures that were decoded."""
    lengths: list[int] = []
    decode = images._decode

    def counted(data: bytes) -> Image.Image:
        lengths.append(len(data))
        return decode(data)

    monkeypatch.setattr(images, "_decode", counted)
    return lengths


def test_names_and_the_seed_are_settled(engine: Engine) -> None:
    found = admitted(engine, sampler="TEST EULER")
    assert found.request.sampler == found.sampler.name == "test euler"
    assert found.request.model == found.info.name
    assert found.request.noise_schedule == "default"
    assert found.request.seed is not None
    assert 0 <= found.request.seed < 2**63
    assert admitted(engine, sampler="test euler").request.seed != found.request.seed


def test_a_seed_that_was_given_stays(engine: Engine) -> None:
    assert admitted(engine, sampler="test euler", seed=2**64 - 1).request.seed == 2**64 - 1


def test_what_was_admitted_is_made_as_it_is(engine: Engine) -> None:
    async def seed_of(request: GenerationRequest) -> int:
        found = await engine.admit(request)
        assert found.request.seed is not None
        events = [event async for event in engine.generate(found)]
        assert events[-1].request == found.request  # type: ignore[union-attr]
        return found.request.seed

    assert asyncio.run(seed_of(RED)) == RED.seed


def test_a_picture_is_decoded_once(engine: Engine, decoded: list[int]) -> None:
    data = png((64, 32))
    body = {**SMALL, "img": base64.b64encode(data).decode(), "sampler": "test euler"}
    assert ask(app_of(engine), "POST", "/generate", json=body).status_code == 200
    assert decoded == [len(data)]


def test_a_picture_has_the_size_of_the_request_and_a_remark_if_that_distorts_it(
    engine: Engine,
) -> None:
    found = admitted(
        engine, sampler="test euler", width=128, height=64, init_image=png(), strength=0.5
    )
    assert found.init_image is not None
    assert found.init_image.size == (128, 64)
    assert "distorted" in found.warnings[0]


def test_everything_that_is_wrong_is_told_at_once(engine: Engine) -> None:
    unread = FieldError("steps", "must be a whole number, not a string")
    errors = refused(engine, unread, width=7, guidance_scale=-1, init_image=b"GIF89a")
    assert list(errors) == ["width", "steps", "guidance_scale", "init_image"]  # as in the table
    assert errors["steps"] == unread.message


def test_names_are_looked_up_only_for_a_request_that_can_be_served(engine: Engine) -> None:
    assert set(refused(engine, sampler="eulr", width=7)) == {"width"}
    with pytest.raises(UnknownName):
        admitted(engine, sampler="eulr")


def test_no_more_than_two_requests_are_looked_at_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2)
    decode = images._decode

    def slow(data: bytes) -> Image.Image:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait(30)  # so that two always run, and a third would show
        with lock:
            running -= 1
        return decode(data)

    monkeypatch.setattr(images, "_decode", slow)

    async def many() -> None:
        request = GenerationRequest(prompt="red", sampler="test euler", init_image=png())
        await asyncio.gather(*(engine.admit(request) for _ in range(12)))

    asyncio.run(many())
    assert most == 2


def test_a_strength_of_less_than_a_step_is_remarked_on(engine: Engine) -> None:
    fields: dict[str, Any] = {
        "sampler": "test euler",
        "init_image": png(),
        "width": 64,
        "height": 64,
    }
    found = admitted(engine, **fields, strength=0.01, steps=4)
    assert found.warnings == (
        "strength 0.01 of 4 steps is no whole one: one runs, as with strength 0.25",
    )
    assert admitted(engine, **fields, strength=0.25, steps=4).warnings == ()
    assert admitted(engine, **fields, strength=0, steps=4).warnings == ()


def test_pictures_wait_to_be_decoded_only_up_to_the_limit_of_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(queue=3)
    settings = Settings(models=tmp_path / "m", limits=limits)
    engine = build_test_engine(tmp_path / "m", settings=settings)
    decodes, decode = threading.Event(), images._decode

    def slow(data: bytes) -> Image.Image:
        decodes.wait(30)
        return decode(data)

    monkeypatch.setattr(images, "_decode", slow)

    async def many() -> list[object]:
        request = GenerationRequest(prompt="red", sampler="test euler", init_image=png())
        tasks = [asyncio.create_task(engine.admit(request)) for _ in range(4)]
        with pytest.raises(Busy):
            await tasks[3]
        decodes.set()
        return list(await asyncio.gather(*tasks[:3]))

    assert len(asyncio.run(many())) == 3
    engine.close()


def test_an_engine_that_was_closed_admits_nothing(engine: Engine, tmp_path: Path) -> None:
    del tmp_path
    engine.start()
    engine.close()
    with pytest.raises(ShuttingDown):
        admitted(engine, sampler="test euler")


def test_fields_that_change_nothing_are_warned_of(engine: Engine) -> None:
    fields = {"sampler": "test euler", "mask_blur": 8.0, "hires_keeps": True}
    assert admitted(engine, **fields).warnings == (
        "keep_size changes nothing without hires",
        "mask_blur changes nothing without mask or extend",
    )
    assert admitted(engine, sampler="test euler", subseed=5).warnings == (
        "subseed changes nothing without subseed_strength",
    )
    assert admitted(engine, sampler="test euler", subseed=5, subseed_strength=0.5).warnings == ()
