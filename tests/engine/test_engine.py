"""The engine with one request, and with many: results and refusals."""

from __future__ import annotations

import asyncio
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engines import RED, mixed, pixels, png, together, until
from gates import Gate
from imagine_core import (
    Conditioning,
    GenerationResult,
    PhaseEvent,
    StepEvent,
)
from imagine_core.engine import Engine, loading, stepping, worker
from imagine_core.errors import (
    Busy,
    RequestError,
    UnknownName,
    UnusableModel,
)
from imagine_core.noise import RectifiedFlow
from imagine_core.settings import Limits, Settings
from imagine_core.testing import (
    FakeClock,
    FakeModel,
    FakePlugin,
    build_test_engine,
    collect,
    draw_one,
)


def test_the_picture_is_what_the_prompt_asks_for(engine: Engine) -> None:
    result = draw_one(engine, replace(RED, steps=50, guidance_scale=1.0))
    wanted = (np.array(FakeModel.colour("red")[:3]).clip(-1, 1) + 1) * 127.5
    assert np.abs(pixels(result).mean(axis=(0, 1)) - wanted).max() < 12


class FlowModel(FakeModel):
    """A model of pictures in one colour that was trained on straight lines."""

    noise = RectifiedFlow()  # type: ignore[assignment]

    def predict(
        self, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        colour = conditioning.context.mean(dim=1)[:, :, None, None].expand_as(latents)
        return torch.stack(
            [
                self.noise.prediction(latent, float(timestep), original)
                for latent, timestep, original in zip(latents, timesteps, colour, strict=True)
            ]
        )


def test_a_flow_model_draws_with_the_samplers_that_know_flows_and_with_no_other(
    engine: Engine, fake: FakePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognise = fake.loader.recognise
    monkeypatch.setattr(
        fake.loader, "recognise", lambda path: (i := recognise(path)) and replace(i, noise="flow")
    )
    monkeypatch.setattr(fake.loader, "load", lambda info, **_: FlowModel())
    result = draw_one(engine, replace(RED, sampler="dpm++ 3m", guidance_scale=1.0))
    wanted = (np.array(FakeModel.colour("red")[:3]).clip(-1, 1) + 1) * 127.5
    assert np.abs(pixels(result).mean(axis=(0, 1)) - wanted).max() < 2
    with pytest.raises(RequestError, match="sampler 'unipc' cannot draw") as refused:
        draw_one(engine, replace(RED, sampler="unipc"))
    assert "take one of 'ddim', 'euler', " in str(refused.value)


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_a_blank_prompt_draws(engine: Engine, prompt: str) -> None:
    result = draw_one(engine, replace(RED, prompt=prompt))
    assert result.images[0].image.size == (RED.width, RED.height)
    assert result.request.prompt == prompt


def test_events_come_in_order_and_every_step_is_told(engine: Engine) -> None:
    events = asyncio.run(collect(engine, RED))
    phases = [event.phase for event in events if isinstance(event, PhaseEvent)]
    assert phases == ["queued", "loading", "encoding", "denoising", "decoding"]
    steps = [(event.step, event.steps) for event in events if isinstance(event, StepEvent)]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert isinstance(events[-1], GenerationResult)


@pytest.mark.parametrize(("steps", "every"), [(7, 1), (7, 2), (7, 3), (7, 7), (7, 9), (1, 1)])
def test_previews_come_every_so_many_steps_and_never_for_the_last(
    engine: Engine, steps: int, every: int
) -> None:
    events = asyncio.run(collect(engine, replace(RED, steps=steps, preview_every=every)))
    previews = [e.step for e in events if isinstance(e, StepEvent) and e.preview is not None]
    assert previews == list(range(every, steps, every))
    assert len(previews) == (steps - 1) // every


def test_a_full_preview_has_the_size_of_the_picture(engine: Engine) -> None:
    events = asyncio.run(collect(engine, replace(RED, preview_every=1, preview="vae")))
    first = next(e for e in events if isinstance(e, StepEvent))
    assert first.preview is not None
    assert first.preview.size == (64, 64)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(engine: Engine) -> None:
    first, again, other = (draw_one(engine, replace(RED, seed=s)) for s in (7, 7, 8))
    assert first.images[0].image.tobytes() == again.images[0].image.tobytes()
    assert first.images[0].image.tobytes() != other.images[0].image.tobytes()


def test_seeds_keep_all_64_bits_and_wrap_around(engine: Engine) -> None:
    result = draw_one(engine, replace(RED, seed=2**64 - 1, images=2))
    assert [image.seed for image in result.images] == [2**64 - 1, 0]
    alone = draw_one(engine, replace(RED, seed=0))
    assert pixels(result, 1).tobytes() == pixels(alone).tobytes()


def test_a_seed_is_drawn_where_none_is_given(engine: Engine) -> None:
    seeds = {draw_one(engine, replace(RED, seed=None)).images[0].seed for _ in range(3)}
    assert len(seeds) == 3


def test_the_request_in_the_result_has_every_name_resolved(engine: Engine) -> None:
    request = draw_one(engine, replace(RED, seed=None, sampler="TEST Euler")).request
    assert (request.model, request.sampler) == ("tiny", "test euler")
    assert request.seed is not None


@pytest.mark.parametrize(("guidance", "rows"), [(0.0, 1), (0.5, 1), (1.0, 1), (1.01, 2), (7.0, 2)])
def test_guidance_of_one_or_less_costs_one_row_a_step(
    engine: Engine, fake: FakePlugin, guidance: float, rows: int
) -> None:
    draw_one(engine, replace(RED, guidance_scale=guidance))
    assert fake.loader.models[0].forwards == [rows] * RED.steps


def test_guidance_and_negative_prompt_move_the_picture_apart(engine: Engine) -> None:
    plain = pixels(draw_one(engine, replace(RED, guidance_scale=1.0))).mean(axis=(0, 1))
    guided = pixels(
        draw_one(engine, replace(RED, guidance_scale=2.0, negative_prompt="blue"))
    ).mean(axis=(0, 1))
    away = np.array(FakeModel.colour("red")[:3]) - np.array(FakeModel.colour("blue")[:3])
    moved = guided - plain
    clear = np.abs(away) > 0.06
    assert (np.sign(moved[clear]) == np.sign(away[clear])).all()


def test_sizes_that_the_latent_does_not_divide_come_out_as_asked(
    engine: Engine, fake: FakePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeModel, "downsampling", 16)
    result = draw_one(engine, replace(RED, width=72, height=88))
    assert result.images[0].image.size == (72, 88)


def test_warnings_of_the_encoder_reach_the_result_once(engine: Engine) -> None:
    result = draw_one(engine, replace(RED, prompt="word " * 80, images=2))
    assert result.warnings == ("prompt: 2 chunks",)


def test_timings_cover_every_phase(engine: Engine) -> None:
    timings = draw_one(engine, RED).timings
    assert set(timings) == {"queued", "loading", "encoding", "denoising", "decoding"}


def test_memory_is_kept_while_pictures_are_made_and_goes_back_when_all_is_quiet(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SWEEP_SECONDS", 600.0)
    draw_one(engine, RED)  # measures what it takes, for which memory is given back as well
    trims: list[bool] = []
    monkeypatch.setattr(loading, "trim", lambda: trims.append(True))
    draw_one(engine, RED)
    assert not trims
    monkeypatch.setattr(worker, "SWEEP_SECONDS", 0.01)
    draw_one(engine, RED)
    asyncio.run(until(lambda: trims))


def test_img2img_keeps_more_of_the_picture_the_less_strength_it_has(engine: Engine) -> None:
    start = png((200, 30, 90))
    distances = []
    for strength in (0.0, 0.3, 0.8):
        request = replace(RED, steps=20, init_image=start, strength=strength)
        picture = pixels(draw_one(engine, request)).astype(float)
        distances.append(np.abs(picture - (200, 30, 90)).mean())
    assert distances[0] < 1.5
    assert distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize(("steps", "strength", "run"), [(10, 0.5, 5), (10, 1.0, 10), (3, 0.2, 1)])
def test_img2img_runs_steps_times_strength(
    engine: Engine, fake: FakePlugin, steps: int, strength: float, run: int
) -> None:
    request = replace(RED, steps=steps, strength=strength, init_image=png((9, 9, 9)))
    events = asyncio.run(collect(engine, request))
    assert [e.step for e in events if isinstance(e, StepEvent)] == list(range(1, run + 1))
    assert len(fake.loader.models[0].forwards) == run


def test_strength_without_a_picture_changes_nothing(engine: Engine) -> None:
    a, b = (draw_one(engine, replace(RED, strength=s)) for s in (0.1, 0.9))
    assert pixels(a).tobytes() == pixels(b).tobytes()


def test_the_hires_fix_refines_a_larger_picture_and_returns_the_size_asked_for(
    engine: Engine, fake: FakePlugin
) -> None:
    shapes = []
    fake.loader.before = id
    model_predict = FakeModel.predict

    def spy(self: FakeModel, latents, timesteps, conditioning):  # type: ignore[no-untyped-def]
        shapes.append(tuple(latents.shape[2:]))
        return model_predict(self, latents, timesteps, conditioning)

    FakeModel.predict = spy  # type: ignore[method-assign]
    try:
        events = asyncio.run(collect(engine, replace(RED, steps=10, hires_scale=1.5)))
    finally:
        FakeModel.predict = model_predict  # type: ignore[method-assign]
    assert shapes == [(8, 8)] * 10 + [(12, 12)] * 3
    steps = [(e.step, e.steps) for e in events if isinstance(e, StepEvent)]
    assert steps == [(n, 13) for n in range(1, 14)]
    result = events[-1]
    assert isinstance(result, GenerationResult)
    assert result.images[0].image.size == (64, 64)


def test_requests_of_one_size_share_forwards_once_it_is_measured_that_it_pays(
    engine: Engine, fake: FakePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forward takes as long with many rows as with few."""
    clock = FakeClock()
    monkeypatch.setattr(stepping, "time", types.SimpleNamespace(perf_counter=clock))
    fake.loader.before = lambda rows: clock.advance(0.01)
    together(engine, mixed(16))
    forwards = fake.loader.models[0].forwards
    assert max(forwards[:2]) <= 2  # so far it has measured nothing
    forwards.clear()
    requests = mixed(16)
    together(engine, requests)
    evaluations = sum(int(r.steps * r.strength) if r.init_image else r.steps for r in requests)
    assert evaluations / len(forwards) >= 3


def test_a_picture_in_company_is_the_picture_alone(roomy: Engine, fake: FakePlugin) -> None:
    requests = mixed(16)
    crowd = together(roomy, requests)
    assert max(fake.loader.models[0].forwards) >= 8
    for request, shared in zip(requests, crowd, strict=True):
        alone = pixels(draw_one(roomy, request)).astype(int)
        assert np.abs(pixels(shared).astype(int) - alone).max() <= 1


def test_a_deterministic_request_never_shares(roomy: Engine, fake: FakePlugin) -> None:
    request = replace(RED, deterministic=True, images=2, guidance_scale=7.0)
    results = together(roomy, [request] * 8)
    assert max(fake.loader.models[0].forwards) == 2
    assert len({pixels(result).tobytes() for result in results}) == 1


def test_sizes_take_turns(
    engine: Engine, fake: FakePlugin, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    monkeypatch.setattr(stepping, "time", types.SimpleNamespace(perf_counter=clock))

    def step(rows: int) -> None:
        gate(rows)
        clock.advance(0.01)

    fake.loader.before = step
    long, short = replace(RED, steps=60), replace(RED, steps=5, width=128, guidance_scale=1.0)

    async def main() -> int:
        gate.hold_after(3)
        slow = asyncio.create_task(collect(engine, long))
        await until(lambda: gate.begun == 4)
        quick = asyncio.create_task(collect(engine, short))
        await gate.step_until(lambda: len(engine.status().jobs) == 2)
        begun = gate.begun
        gate.open()
        await asyncio.gather(slow, quick)
        return begun

    begun = asyncio.run(main())
    # Guidance takes two rows; of twelve more forwards at least every other one is the short one's.
    assert fake.loader.models[0].forwards[: begun + 12].count(1) == 5


def test_two_models_are_served_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.fake").write_bytes(b"x")
    engine = build_test_engine(folder)
    try:
        results = together(engine, [replace(RED, model=name) for name in ("one", "two") * 3])
        assert [result.request.model for result in results] == ["one", "two"] * 3
    finally:
        engine.close(grace=0)


BAD: list[tuple[dict[str, object], set[str]]] = [
    ({"width": 63, "height": 8, "steps": 0}, {"width", "height", "steps"}),
    ({"width": 8192, "height": 8192}, {"width", "height"}),
    ({"guidance_scale": float("nan"), "strength": 1.1}, {"guidance_scale", "strength"}),
    ({"guidance_scale": float("inf")}, {"guidance_scale"}),
    ({"seed": 2**64}, {"seed"}),
    ({"seed": -2, "images": 0}, {"seed", "images"}),
    ({"clip_skip": 0, "preview_every": -1}, {"clip_skip", "preview_every"}),
    ({"clip_skip": 13}, {"clip_skip"}),
    ({"hires_scale": 0.9}, {"hires_scale"}),
    ({"hires_scale": 7.9, "width": 512, "height": 512}, {"hires_scale"}),
    ({"steps": 1001, "images": 17}, {"steps", "images"}),
]


@pytest.mark.parametrize(("changes", "fields"), BAD)
def test_bad_fields_are_named_all_at_once(
    engine: Engine, changes: dict[str, object], fields: set[str]
) -> None:
    with pytest.raises(RequestError) as caught:
        draw_one(engine, replace(RED, **changes))  # type: ignore[arg-type]
    assert {error.field for error in caught.value.fields} == fields


def test_unknown_names_are_refused_with_the_nearest(engine: Engine) -> None:
    with pytest.raises(UnknownName, match="'test euler'"):
        draw_one(engine, replace(RED, sampler="test eulr"))
    with pytest.raises(UnknownName, match="'tiny'"):
        draw_one(engine, replace(RED, model="tiney"))


def test_a_model_that_cannot_serve_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.fake").write_bytes(b"x")
    engine = build_test_engine(tmp_path)
    with pytest.raises(UnusableModel, match="get another one"):
        draw_one(engine, replace(RED, model="broken"))
    engine.close(grace=0)


def test_a_full_queue_refuses_and_serves_again_when_it_has_room(
    tmp_path: Path, fake: FakePlugin, gate: Gate
) -> None:
    settings = Settings(models=tmp_path, max_rows=2, limits=Limits(queue=1))
    engine = build_test_engine(tmp_path, fake, settings=settings)

    async def main() -> None:
        gate.hold_after(1)
        running = asyncio.create_task(collect(engine, replace(RED, steps=60)))
        await until(lambda: gate.begun == 2)
        waiting = asyncio.create_task(collect(engine, RED))
        await gate.step_until(lambda: len(engine.status().jobs) == 2)
        with pytest.raises(Busy) as caught:
            await collect(engine, RED)
        assert caught.value.retry_after >= 1
        gate.open()
        await asyncio.gather(running, waiting)
        await collect(engine, RED)

    try:
        asyncio.run(main())
    finally:
        engine.close(grace=0)
