"""Tests of imagine_core.engine and the loop behind it."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imagine_core import (
    Evaluation,
    GenerationEvent,
    GenerationRequest,
    GenerationResult,
    PhaseEvent,
    SamplerSpec,
    Sampling,
    SamplingTask,
    StepEvent,
    hookimpl,
)
from imagine_core.engine import Engine, worker
from imagine_core.errors import (
    Busy,
    GenerationFailed,
    OutOfMemory,
    RequestError,
    SettingsError,
    ShuttingDown,
    UnknownName,
    UnusableModel,
)
from imagine_core.models import loading
from imagine_core.settings import Limits, Settings
from imagine_core.testing import FakeModel, FakePlugin, build_test_engine, collect, draw_one, euler

RED = GenerationRequest(
    prompt="red",
    sampler="test euler",
    steps=4,
    guidance_scale=2.0,
    width=64,
    height=64,
    seed=1,
)


def pixels(result: GenerationResult, index: int = 0) -> np.ndarray:
    return np.asarray(result.images[index].image)


def together(engine: Engine, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
    """The results of requests that are made at the same moment."""

    async def main() -> list[GenerationResult]:
        lists = await asyncio.gather(*(collect(engine, request) for request in requests))
        return [events[-1] for events in lists]  # type: ignore[misc]

    return asyncio.run(main())


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


# -- one request -----------------------------------------------------------------------------


def test_the_picture_is_what_the_prompt_asks_for(engine: Engine) -> None:
    result = draw_one(engine, replace(RED, steps=50, guidance_scale=1.0))
    wanted = (np.array(FakeModel.colour("red")[:3]).clip(-1, 1) + 1) * 127.5
    assert np.abs(pixels(result).mean(axis=(0, 1)) - wanted).max() < 12


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
    trims: list[float] = []
    monkeypatch.setattr(loading, "trim", lambda: trims.append(time.monotonic()))
    draw_one(engine, RED)
    assert not trims
    monkeypatch.setattr(worker, "SWEEP_SECONDS", 0.01)
    draw_one(engine, RED)
    asyncio.run(until(lambda: bool(trims), seconds=30))


# -- img2img and hires -------------------------------------------------------------------------


def png(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_img2img_keeps_more_of_the_picture_the_less_strength_it_has(engine: Engine) -> None:
    start = png((200, 30, 90))
    distances = []
    for strength in (0.0, 0.3, 0.8):
        request = replace(RED, steps=20, init_image=start, strength=strength)
        picture = pixels(draw_one(engine, request)).astype(float)
        distances.append(np.abs(picture - (200, 30, 90)).mean())
    assert distances[0] < 1.5
    assert distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize(("steps", "strength", "run"), [(10, 0.5, 5), (10, 1.0, 10), (3, 0.2, 0)])
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


# -- many requests -----------------------------------------------------------------------------


def mixed(count: int) -> list[GenerationRequest]:
    return [
        replace(
            RED,
            prompt=f"prompt {n} " + "long " * (90 if n % 5 == 0 else 0),
            seed=n,
            steps=6 + n % 4,
            guidance_scale=(1.0, 1.5, 2.5)[n % 3],
            init_image=png((n * 9, 90, 200)) if n % 4 == 3 else None,
            strength=0.7,
        )
        for n in range(count)
    ]


def warm(engine: Engine, fake: FakePlugin) -> None:
    """Make forwards slow per call, not per row, and let the engine find out that sharing pays."""
    fake.loader.before = lambda rows: time.sleep(0.01)
    together(engine, mixed(16))
    fake.loader.models[0].forwards.clear()


def test_requests_of_one_size_share_forwards(engine: Engine, fake: FakePlugin) -> None:
    warm(engine, fake)
    requests = mixed(16)
    together(engine, requests)
    evaluations = sum(int(r.steps * r.strength) if r.init_image else r.steps for r in requests)
    assert evaluations / len(fake.loader.models[0].forwards) >= 3


def test_a_picture_in_company_is_the_picture_alone(engine: Engine, fake: FakePlugin) -> None:
    warm(engine, fake)
    requests = mixed(16)
    crowd = together(engine, requests)
    for request, shared in zip(requests, crowd, strict=True):
        alone = pixels(draw_one(engine, request)).astype(int)
        assert np.abs(pixels(shared).astype(int) - alone).max() <= 1


def test_a_deterministic_request_never_shares(engine: Engine, fake: FakePlugin) -> None:
    warm(engine, fake)
    request = replace(RED, deterministic=True, images=2, guidance_scale=7.0)
    results = together(engine, [request] * 8)
    assert max(fake.loader.models[0].forwards) == 2
    assert len({pixels(result).tobytes() for result in results}) == 1


def test_sizes_take_turns(engine: Engine, fake: FakePlugin) -> None:
    fake.loader.before = lambda rows: time.sleep(0.005)
    draw_one(engine, RED)
    long, short = replace(RED, steps=200), replace(RED, steps=5, width=128)

    async def main() -> bool:
        slow = asyncio.create_task(collect(engine, long))
        await until(lambda: any(job.step > 3 for job in engine.status().jobs))
        await collect(engine, short)
        return slow.done() or not slow.cancel()

    assert asyncio.run(main()) is False


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


# -- leaving -----------------------------------------------------------------------------------


def test_closing_the_iterator_frees_the_device_within_a_step(
    engine: Engine, fake: FakePlugin
) -> None:
    fake.loader.before = lambda rows: time.sleep(0.1)

    async def main() -> None:
        async with aclosing(engine.generate(replace(RED, steps=500))) as events:
            async for event in events:
                if isinstance(event, StepEvent) and event.step == 3:
                    break
        await until(lambda: engine.status().jobs == [])

    asyncio.run(main())
    assert len(fake.loader.models[0].forwards) <= 6


def test_the_others_go_on_when_one_leaves(engine: Engine, fake: FakePlugin) -> None:
    warm(engine, fake)

    async def main() -> GenerationEvent:
        leaving = asyncio.create_task(collect(engine, replace(RED, steps=500)))
        staying = asyncio.create_task(collect(engine, replace(RED, steps=60)))
        await until(lambda: len(engine.status().jobs) == 2)
        await until(lambda: all(job.step for job in engine.status().jobs))
        leaving.cancel()
        return (await staying)[-1]

    assert isinstance(asyncio.run(main()), GenerationResult)
    assert engine.status().jobs == []


def test_a_request_that_leaves_while_its_model_loads_lets_go_of_it(tmp_path: Path) -> None:
    fake = FakePlugin(load_seconds=0.2)
    engine = build_test_engine(tmp_path / "m", fake)

    async def main() -> None:
        task = asyncio.create_task(collect(engine, RED))
        await until(lambda: any(job.phase == "loading" for job in engine.status().jobs))
        task.cancel()
        await until(lambda: engine.status().jobs == [])
        await until(lambda: [row.in_use for row in engine.status().loaded] == [0])

    try:
        asyncio.run(main())
    finally:
        engine.close(grace=0)


def test_a_waiting_request_that_leaves_is_never_started(tmp_path: Path) -> None:
    fake = FakePlugin()
    fake.loader.before = lambda rows: time.sleep(0.01)
    settings = Settings(models=tmp_path, max_rows=2)
    engine = build_test_engine(tmp_path, fake, settings=settings)

    async def main() -> None:
        running = asyncio.create_task(collect(engine, replace(RED, steps=40)))
        await until(lambda: any(job.step for job in engine.status().jobs))
        waiting = asyncio.create_task(collect(engine, replace(RED, steps=40)))
        await until(lambda: [job.phase for job in engine.status().jobs][1:] == ["queued"])
        waiting.cancel()
        await running

    try:
        asyncio.run(main())
    finally:
        engine.close(grace=0)
    assert len(fake.loader.models[0].forwards) == 40


# -- refusals ----------------------------------------------------------------------------------

BAD: list[tuple[dict[str, object], set[str]]] = [
    ({"prompt": " "}, {"prompt"}),
    ({"width": 63, "height": 8, "steps": 0}, {"width", "height", "steps"}),
    ({"width": 8192, "height": 8192}, {"width", "height"}),
    ({"guidance_scale": float("nan"), "strength": 1.1}, {"guidance_scale", "strength"}),
    ({"guidance_scale": float("inf")}, {"guidance_scale"}),
    ({"seed": 2**64}, {"seed"}),
    ({"seed": -2, "images": 0}, {"seed", "images"}),
    ({"clip_skip": 0, "preview_every": -1}, {"clip_skip", "preview_every"}),
    ({"clip_skip": 13}, {"clip_skip"}),
    ({"hires_scale": 1.0}, {"hires_scale"}),
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


def test_a_full_queue_refuses_and_serves_again_when_it_has_room(tmp_path: Path) -> None:
    fake = FakePlugin()
    fake.loader.before = lambda rows: time.sleep(0.005)
    settings = Settings(models=tmp_path, max_rows=2, limits=Limits(queue=1))
    engine = build_test_engine(tmp_path, fake, settings=settings)

    async def main() -> None:
        running = asyncio.create_task(collect(engine, replace(RED, steps=60)))
        await until(lambda: any(job.step for job in engine.status().jobs))
        waiting = asyncio.create_task(collect(engine, RED))
        await until(lambda: len(engine.status().jobs) == 2)
        with pytest.raises(Busy) as caught:
            await collect(engine, RED)
        assert caught.value.retry_after >= 1
        await asyncio.gather(running, waiting)
        await collect(engine, RED)

    try:
        asyncio.run(main())
    finally:
        engine.close(grace=0)


# -- faults ------------------------------------------------------------------------------------


class FailingSampler:
    """Samplers that misbehave, each in its own way."""

    @hookimpl
    def register_samplers(self, register: Callable[[SamplerSpec], None]) -> None:
        for sample in (raises, exits, nonsense, returns):
            register(SamplerSpec(name=sample.__name__, label=sample.__name__, sample=sample))


def raises(task: SamplingTask) -> Sampling:
    yield from raises_after(task, 7, ZeroDivisionError("seven"))
    return task.noise


def raises_after(task: SamplingTask, steps: int, error: BaseException) -> Sampling:
    inner = euler(task)
    evaluation = next(inner)
    for _ in range(steps):
        evaluation = inner.send((yield evaluation))
    raise error


def exits(task: SamplingTask) -> Sampling:
    yield from raises_after(task, 2, SystemExit("enough"))
    return task.noise


def nonsense(task: SamplingTask) -> Sampling:
    yield "an evaluation"  # type: ignore[misc]
    return task.noise


def returns(task: SamplingTask) -> Sampling:
    yield Evaluation(task.noise, 999.0, 0)
    return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (
            "raises",
            "sampler 'raises' of plugin 'failing' failed at step 7: ZeroDivisionError: seven",
        ),
        ("exits", "sampler 'exits' of plugin 'failing' failed at step 2: SystemExit: enough"),
        ("nonsense", "sampler 'nonsense' of plugin 'failing' must yield Evaluation"),
        ("returns", "sampler 'returns' of plugin 'failing' returned no latent"),
    ],
)
def test_a_sampler_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, sampler: str, message: str
) -> None:
    engine = build_test_engine(tmp_path, extra=[("failing", FailingSampler())])

    async def main() -> None:
        good = asyncio.create_task(collect(engine, replace(RED, steps=30)))
        with pytest.raises(GenerationFailed, match=message):
            await collect(engine, replace(RED, sampler=sampler, steps=20))
        assert isinstance((await good)[-1], GenerationResult)

    try:
        asyncio.run(main())
    finally:
        engine.close(grace=0)


def test_a_model_that_ends_the_program_fails_only_its_own_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaves(*_arguments: object) -> None:
        sys.exit("the model has had enough")

    with monkeypatch.context() as patched:
        patched.setattr(FakeModel, "predict", leaves)
        with pytest.raises(GenerationFailed, match="SystemExit"):
            draw_one(engine, RED)
    assert draw_one(engine, RED).images


def test_a_forward_that_fails_in_company_fails_only_its_own_request(
    engine: Engine, fake: FakePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm(engine, fake)
    predict = FakeModel.predict

    def poisoned(self: FakeModel, latents, timesteps, conditioning):  # type: ignore[no-untyped-def]
        import torch

        poison = torch.tensor(FakeModel.colour("poison"))
        if (conditioning.context == poison).all(dim=-1).any():
            raise RuntimeError("shapes do not match")
        return predict(self, latents, timesteps, conditioning)

    monkeypatch.setattr(FakeModel, "predict", poisoned)

    async def main() -> None:
        good = [asyncio.create_task(collect(engine, replace(RED, steps=9))) for _ in range(4)]
        with pytest.raises(GenerationFailed, match="'tiny' failed with RuntimeError"):
            await collect(engine, replace(RED, prompt="poison"))
        for events in await asyncio.gather(*good):
            assert isinstance(events[-1], GenerationResult)

    asyncio.run(main())


def test_out_of_memory_ends_one_request_and_the_next_is_served(
    engine: Engine, fake: FakePlugin
) -> None:
    def too_big(rows: int) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")

    fake.loader.before = too_big
    with pytest.raises(OutOfMemory, match="64x64"):
        draw_one(engine, RED)
    fake.loader.before = id
    assert draw_one(engine, RED).images


def test_a_batch_that_does_not_fit_is_made_smaller(engine: Engine, fake: FakePlugin) -> None:
    warm(engine, fake)

    def small_only(rows: int) -> None:
        if rows > 4:
            raise MemoryError

    fake.loader.before = small_only
    results = together(engine, [replace(RED, seed=n, steps=20) for n in range(8)])
    assert len(results) == 8
    assert max(fake.loader.models[0].forwards) <= 4


def test_a_latent_that_is_not_finite_says_which_precision_to_try(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        FakeModel, "predict", lambda self, latents, timesteps, conditioning: latents * float("nan")
    )
    with pytest.raises(GenerationFailed, match="--full_prec"):
        draw_one(engine, RED)


def test_the_loop_outlives_a_fault_of_its_own(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    draw_one(engine, RED)
    share = engine._worker._stepping.share
    pick = share.pick
    calls = iter([True])

    def fails_once(keys: object) -> object:
        if next(calls, False):
            raise AssertionError("a bug")
        return pick(keys)  # type: ignore[arg-type]

    monkeypatch.setattr(share, "pick", fails_once)
    with pytest.raises(GenerationFailed, match="the engine failed"):
        draw_one(engine, RED)
    assert draw_one(engine, RED).images
    assert "a bug" in caplog.text


# -- life ----------------------------------------------------------------------------------------


def test_nothing_starts_before_start_and_then_it_becomes_ready(tmp_path: Path) -> None:
    engine = build_test_engine(tmp_path)
    assert not engine.status().ready
    engine.start()
    engine.start()
    asyncio.run(until(lambda: engine.status().ready))
    status = engine.status()
    assert (status.device, status.dtype, status.failure) == ("fake", "float32", None)
    engine.close()


def test_ready_waits_for_the_configured_default_model(tmp_path: Path) -> None:
    (tmp_path / "tiny.fake").write_bytes(b"x")
    settings = Settings(models=tmp_path, default_model="tiny")
    engine = build_test_engine(tmp_path, FakePlugin(load_seconds=0.2), settings=settings)
    engine.start()
    asyncio.run(until(lambda: engine.status().ready))
    assert [row.name for row in engine.status().loaded] == ["tiny"]
    engine.close()


def test_a_device_that_cannot_be_used_is_told_to_every_request(tmp_path: Path) -> None:
    engine = build_test_engine(tmp_path, settings=Settings(models=tmp_path, device="mps"))
    with pytest.raises(SettingsError, match="device 'mps' cannot be used: "):
        draw_one(engine, RED)
    status = engine.status()
    assert not status.ready
    assert status.failure is not None
    engine.close()


def test_closing_finishes_what_is_in_progress_and_refuses_the_rest(tmp_path: Path) -> None:
    fake = FakePlugin()
    fake.loader.before = lambda rows: time.sleep(0.01)
    engine = build_test_engine(tmp_path, fake, settings=Settings(models=tmp_path, max_rows=2))

    async def main() -> None:
        running = asyncio.create_task(collect(engine, replace(RED, steps=30)))
        await until(lambda: any(job.step for job in engine.status().jobs))
        waiting = asyncio.create_task(collect(engine, RED))
        await until(lambda: len(engine.status().jobs) == 2)
        await asyncio.to_thread(engine.close, grace=20)
        assert isinstance((await running)[-1], GenerationResult)
        with pytest.raises(ShuttingDown):
            await waiting
        with pytest.raises(ShuttingDown):
            await collect(engine, RED)

    asyncio.run(main())
    assert fake.loader.models[0].closed


def test_closing_without_grace_ends_what_is_in_progress(engine: Engine, fake: FakePlugin) -> None:
    fake.loader.before = lambda rows: time.sleep(0.01)

    async def main() -> None:
        running = asyncio.create_task(collect(engine, replace(RED, steps=900)))
        await until(lambda: any(job.step for job in engine.status().jobs))
        await asyncio.to_thread(engine.close, grace=0)
        with pytest.raises(ShuttingDown):
            await running

    asyncio.run(main())
    assert not [t for t in threading.enumerate() if t.name == "imagine-engine" and t.is_alive()]


def test_a_caller_whose_loop_is_gone_leaves_no_job_behind(engine: Engine, fake: FakePlugin) -> None:
    fake.loader.before = lambda rows: time.sleep(0.05)

    async def abandon() -> AsyncIterator[GenerationEvent]:
        events = engine.generate(replace(RED, steps=900))
        await anext(events)
        return events

    loop = asyncio.new_event_loop()
    events = loop.run_until_complete(abandon())
    loop.close()
    asyncio.run(until(lambda: engine.status().jobs == []))
    del events


# -- models that come and go -----------------------------------------------------------------

WEIGHTS = 400 * 10**6


def shelf(folder: Path, *names: str) -> Path:
    """A models folder; each model takes 1.5 times `WEIGHTS`, of which the disk holds nothing."""
    folder.mkdir()
    for name in names:
        with (folder / f"{name}.fake").open("wb") as file:
            file.truncate(WEIGHTS)
    return folder


def one_at_a_time(fake: FakePlugin) -> None:
    """Let the device have room for one model and some pictures."""

    def free() -> int:
        return 10**9 - WEIGHTS * 3 // 2 * sum(not model.closed for model in fake.loader.models)

    fake.device.free = free


def test_a_model_waits_for_one_in_use_whose_requests_go_on(tmp_path: Path) -> None:
    fake = FakePlugin()
    one_at_a_time(fake)
    fake.loader.before = lambda rows: time.sleep(0.02)
    engine = build_test_engine(shelf(tmp_path / "m", "a", "b"), fake)
    ended: list[str] = []

    async def ask(name: str, **changes: object) -> None:
        await collect(engine, replace(RED, **{"model": name[0], **changes}))  # type: ignore[arg-type]
        ended.append(name)

    async def main() -> None:
        first = asyncio.create_task(ask("a, long", steps=40))
        await until(lambda: bool(fake.loader.models))
        waiting = asyncio.create_task(ask("b"))
        await asyncio.sleep(0.05)
        await ask("a, short")
        assert len(fake.loader.models) == 1
        await asyncio.gather(first, waiting)

    asyncio.run(main())
    assert ended == ["a, short", "a, long", "b"]
    assert [model.closed for model in fake.loader.models] == [True, False]
    engine.close()


def test_requests_without_end_for_one_model_do_not_starve_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagine_core.models.loading.PATIENCE_SECONDS", 0.2)
    fake = FakePlugin()
    one_at_a_time(fake)
    fake.loader.before = lambda rows: time.sleep(0.02)
    engine = build_test_engine(shelf(tmp_path / "m", "a", "b"), fake)

    async def main() -> None:
        over = asyncio.Event()

        async def keep_asking() -> None:
            while not over.is_set():
                await collect(engine, replace(RED, model="a", steps=8))

        busy = [asyncio.create_task(keep_asking()) for _ in range(2)]
        await until(lambda: bool(fake.loader.models))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(20):
            await collect(engine, replace(RED, model="b"))
        over.set()
        await asyncio.gather(*busy)

    asyncio.run(main())
    engine.close()


def test_a_model_that_can_never_fit_is_out_of_memory_and_says_what_would_help(
    tmp_path: Path,
) -> None:
    fake = FakePlugin()
    fake.device.free = lambda: 10**8
    engine = build_test_engine(shelf(tmp_path / "m", "a"), fake)
    with pytest.raises(OutOfMemory, match=r"'a' needs about 0\.6 GB .* take a smaller model"):
        draw_one(engine, replace(RED, model="a"))
    engine.close()


def test_a_forward_without_memory_is_tried_again_without_the_idle_models(tmp_path: Path) -> None:
    fake = FakePlugin()
    engine = build_test_engine(shelf(tmp_path / "m", "a", "b"), fake)
    draw_one(engine, replace(RED, model="a"))
    failures = iter([MemoryError()])

    def fail_once(rows: int) -> None:
        for failure in failures:
            raise failure

    fake.loader.before = fail_once
    draw_one(engine, replace(RED, model="b"))
    assert [row.name for row in engine.status().loaded] == ["b"]
    engine.close()


def test_preloaded_models_are_there_before_the_first_request(tmp_path: Path) -> None:
    fake = FakePlugin(load_seconds=0.2)
    folder = shelf(tmp_path / "m", "a", "b", "c")
    settings = Settings(models=folder, preload=("c", "a"), default_model="a")
    engine = build_test_engine(folder, fake, settings=settings)
    engine.start()
    asyncio.run(until(lambda: engine.status().device is not None))
    assert not engine.status().ready
    asyncio.run(until(lambda: engine.status().ready))
    assert [row.name for row in engine.status().loaded] == ["a", "c"]
    assert len(fake.loader.models) == 2
    engine.close()


def test_preloading_drives_out_nothing_that_was_preloaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakePlugin()
    one_at_a_time(fake)
    folder = shelf(tmp_path / "m", "a", "b")
    engine = build_test_engine(folder, fake, settings=Settings(models=folder, preload=("b", "a")))
    engine.start()
    asyncio.run(until(lambda: engine.status().ready))
    assert [row.name for row in engine.status().loaded] == ["b"]
    assert "a was not preloaded: it does not fit beside the others" in caplog.text
    engine.close()


def test_a_load_tells_everybody_who_waits_how_far_it_is(tmp_path: Path) -> None:
    fake = FakePlugin(load_seconds=0.1)
    fake.loader.tells_progress = True
    engine = build_test_engine(tmp_path / "m", fake)
    engine.start()
    asyncio.run(until(lambda: engine.status().ready))
    fractions = [
        event.fraction
        for event in asyncio.run(collect(engine, RED))
        if isinstance(event, PhaseEvent) and event.phase == "loading"
    ]
    assert fractions == [None, 0.0, 0.5, 1.0]
    engine.close()


def test_unloading_waits_for_the_pictures_in_progress(tmp_path: Path) -> None:
    fake = FakePlugin()
    fake.loader.before = lambda rows: time.sleep(0.02)
    engine = build_test_engine(tmp_path / "m", fake)

    async def main() -> None:
        drawing = asyncio.create_task(collect(engine, replace(RED, steps=20)))
        await until(lambda: any(job.step for job in engine.status().jobs))
        assert engine.unload("TINY") == "when idle"
        assert isinstance((await drawing)[-1], GenerationResult)

    asyncio.run(main())
    asyncio.run(until(lambda: not engine.status().loaded))
    assert engine.unload("tiny") == "not loaded"
    with pytest.raises(UnknownName, match="did you mean 'tiny'"):
        engine.unload("tinny")
    engine.close()
