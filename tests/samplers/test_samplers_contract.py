"""The engine's contract, for every registered sampler; a new row is tested automatically."""

from __future__ import annotations

import asyncio
import io
import itertools
import threading
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from imagine_core import GenerationEvent, GenerationRequest, GenerationResult
from imagine_core.settings import Settings
from imagine_core.testing import (
    FakePlugin,
    build_test_engine,
    check_sampler,
    draw_one,
)
from imagine_core.testing.sampler_driving import GAUSSIAN, SMALL, task_of
from samplers.driving import PLUGINS, drive, names, registry

ORDER = {
    "ddim": 1,
    "deis": 2,
    "dpm++ 2m": 2,
    "dpm++ 2s": 2,
    "dpm++ 3m": 3,
    "dpm2": 2,
    "euler": 1,
    "heun": 2,
    "lms": 3,  # of order 4 but for its start
    "plms": 2,  # the weights are those of even steps; sigma is not even
    "pndm": 2,
    "unipc": 3,
}
# LCM and TCD want a network that was distilled to jump along the ODE, not a denoiser.
DISTILLED = {"lcm", "tcd"}
JUMPS = "it jumps to a level between two steps, as its network was trained to; the end is no step"
EXCUSED = {
    "pndm": {"sampler-v-prediction": "it extrapolates what the model predicts, whatever that is"},
    "tcd": {"sampler-exact": JUMPS, "sampler-img2img": JUMPS, "sampler-zero-snr": JUMPS},
}
INIT = GAUSSIAN.draw(SMALL).float()
PAIRS = [(spec.name, schedule) for spec in registry() for schedule in spec.schedules]


def check(name: str, *steps: int) -> None:
    check_sampler(
        PLUGINS[registry().plugin_of(name)],
        name,
        order=ORDER.get(name, 1),
        distilled=name in DISTILLED,
        steps=steps,
        excused=EXCUSED.get(name, {}),
    )


def test_every_deterministic_sampler_has_an_order_that_is_measured() -> None:
    assert set(names(stochastic=False)) == set(ORDER)


@pytest.mark.parametrize("name", names())
def test_a_built_in_sampler_keeps_every_rule(name: str) -> None:
    check(name, 1, 2, 3, 5, 7, 20, 50)


@pytest.mark.parametrize("name", names())
def test_a_thousand_steps_end_well(name: str) -> None:
    run = drive(name, task_of(steps=1000), GAUSSIAN.denoised)
    assert run.latent.isfinite().all()
    assert run.steps[-1] == 999


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_a_thousand_steps_keep_every_rule_at_any_schedule_and_strength(name: str) -> None:
    check(name, 1000)


def test_every_sampler_in_one_batch_draws_what_each_draws_alone(tmp_path: Path) -> None:
    plain = GenerationRequest(
        prompt="red", steps=6, width=64, height=64, guidance_scale=3, seed=1, strength=0.8
    )
    picture = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(picture, "PNG")
    requests = [
        replace(plain, sampler=name, seed=number, init_image=init)
        for number, name in enumerate(names())
        for init in (None, picture.getvalue())
    ]
    fake, queued, everybody = FakePlugin(), itertools.count(1), threading.Event()
    fake.loader.before = lambda rows: everybody.wait(60)
    engine = build_test_engine(tmp_path, fake, settings=Settings(models=tmp_path, max_rows=16))

    async def draw(request: GenerationRequest) -> GenerationEvent:
        async with aclosing(engine.generate(request)) as events:
            last: GenerationEvent = await anext(events)  # it is in the queue
            if next(queued) == len(requests):
                everybody.set()
            async for event in events:
                last = event
        return last

    async def draw_all() -> list[GenerationEvent]:
        return await asyncio.gather(*map(draw, requests))

    try:
        together = asyncio.run(draw_all())
        (model,) = fake.loader.models
        assert max(model.forwards) == 16, "they did not share their forwards"
        for request, result in zip(requests, together, strict=True):
            assert isinstance(result, GenerationResult)
            alone = draw_one(engine, request)
            same = alone.images[0].image.tobytes() == result.images[0].image.tobytes()
            assert same, f"{request.sampler}, image-to-image: {request.init_image is not None}"
    finally:
        engine.close(grace=0)


@pytest.mark.parametrize(("name", "schedule"), [pair for pair in PAIRS if pair[0] != "pndm"])
def test_img2img_joins_the_schedule_where_txt2img_passes(name: str, schedule: str) -> None:
    """All but PNDM: diffusers starts that one step early, see docs/samplers.md."""
    for steps, strength in ((10, 0.5), (11, 0.8)):
        whole = drive(name, task_of(steps=steps, schedule=schedule), GAUSSIAN.denoised)
        task = task_of(steps=steps, schedule=schedule, init=INIT, strength=strength)
        first = next(registry().get(name).sample(task))
        passed = next(e for e in whole.evaluations if e.step == task.first_step)
        assert float(first.timestep) == pytest.approx(float(passed.timestep), abs=1e-3)
