"""Failures of a sampler, a model or the engine itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engines import RED, together
from imagine_core import (
    Evaluation,
    GenerationResult,
    SamplerSpec,
    Sampling,
    SamplingTask,
    hookimpl,
)
from imagine_core.engine import Engine
from imagine_core.errors import (
    GenerationFailed,
    OutOfMemory,
)
from imagine_core.settings import Settings
from imagine_core.testing import FakeModel, FakePlugin, build_test_engine, collect, draw_one, euler


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
    roomy: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = FakeModel.predict

    def poisoned(self: FakeModel, latents, timesteps, conditioning):  # type: ignore[no-untyped-def]
        import torch

        poison = torch.tensor(FakeModel.colour("poison"))
        if (conditioning.context == poison).all(dim=-1).any():
            raise RuntimeError("shapes do not match")
        return predict(self, latents, timesteps, conditioning)

    monkeypatch.setattr(FakeModel, "predict", poisoned)

    async def main() -> None:
        good = [asyncio.create_task(collect(roomy, replace(RED, steps=9))) for _ in range(4)]
        with pytest.raises(GenerationFailed, match="'tiny' failed with RuntimeError"):
            await collect(roomy, replace(RED, prompt="poison"))
        for events in await asyncio.gather(*good):
            assert isinstance(events[-1], GenerationResult)

    asyncio.run(main())


def test_out_of_memory_ends_one_request_and_the_next_is_served(
    engine: Engine, fake: FakePlugin
) -> None:
    def too_big(rows: int) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")

    fake.loader.before = too_big
    with pytest.raises(OutOfMemory, match=r"for 64x64; try a smaller model or fewer"):
        draw_one(engine, RED)
    with pytest.raises(OutOfMemory, match=r"for 512x256; try 320x128, which should fit, or fewer"):
        draw_one(engine, replace(RED, width=512, height=256))
    fake.loader.before = id
    assert draw_one(engine, RED).images


def test_a_batch_that_does_not_fit_is_made_smaller(roomy: Engine, fake: FakePlugin) -> None:
    tried = []

    def small_only(rows: int) -> None:
        tried.append(rows)
        if rows > 4:
            raise MemoryError

    fake.loader.before = small_only
    results = together(roomy, [replace(RED, seed=n, steps=20) for n in range(8)])
    assert len(results) == 8
    assert max(tried) > 4
    assert max(fake.loader.models[0].forwards) <= 4


@pytest.mark.parametrize(
    ("dtype", "precision", "advised"),
    [
        (torch.float16, "device's", True),
        (torch.float16, "full", False),
        (torch.bfloat16, "device's", True),
        (torch.float32, "device's", False),
    ],
)
def test_a_latent_that_is_not_finite_advises_full_precision_where_that_is_not_in_use(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    precision: str,
    advised: object,
) -> None:
    monkeypatch.setattr(
        FakeModel, "predict", lambda self, latents, timesteps, conditioning: latents * float("nan")
    )
    fake = FakePlugin()
    monkeypatch.setattr(fake.device, "dtype", lambda: dtype)
    settings = Settings(models=tmp_path, full_precision=precision == "full")
    engine = build_test_engine(tmp_path, fake, settings=settings)
    try:
        with pytest.raises(GenerationFailed, match="the latent is not finite") as failed:
            draw_one(engine, RED)
    finally:
        engine.close(grace=0)
    assert ("--full_prec" in str(failed.value)) == advised


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
