"""Clients that leave an engine, and shutdown."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from engines import RED, until
from gates import PATIENCE, Gate
from imagine_core import (
    GenerationEvent,
    GenerationResult,
    StepEvent,
)
from imagine_core.engine import Engine
from imagine_core.errors import (
    SettingsError,
    ShuttingDown,
)
from imagine_core.settings import Settings
from imagine_core.testing import FakePlugin, build_test_engine, collect, draw_one


def test_closing_the_iterator_frees_the_device_within_a_step(
    engine: Engine, fake: FakePlugin, gate: Gate
) -> None:
    async def main() -> None:
        gate.hold_after(3)
        async with aclosing(engine.generate(replace(RED, steps=500))) as events:
            async for event in events:
                if isinstance(event, StepEvent) and event.step == 3:
                    break
        gate.open()
        await until(lambda: engine.status().jobs == [])

    asyncio.run(main())
    assert len(fake.loader.models[0].forwards) <= 4


def test_the_others_go_on_when_one_leaves(roomy: Engine, fake: FakePlugin, gate: Gate) -> None:
    async def main() -> GenerationEvent:
        gate.hold_after(3)
        leaving = asyncio.create_task(collect(roomy, replace(RED, steps=500)))
        staying = asyncio.create_task(collect(roomy, replace(RED, steps=60)))
        await gate.step_until(lambda: len(roomy.status().jobs) == 2)
        leaving.cancel()
        await asyncio.wait([leaving])
        gate.open()
        last = (await staying)[-1]
        await until(lambda: roomy.status().jobs == [])
        return last

    assert isinstance(asyncio.run(main()), GenerationResult)
    assert gate.begun < 100


def test_a_request_that_leaves_while_its_model_loads_lets_go_of_it(
    engine: Engine, fake: FakePlugin
) -> None:
    loads = threading.Event()
    fake.loader.before_load = lambda: loads.wait(PATIENCE)

    async def main() -> None:
        task = asyncio.create_task(collect(engine, RED))
        await until(lambda: any(job.phase == "loading" for job in engine.status().jobs))
        task.cancel()
        await until(lambda: engine.status().jobs == [])
        loads.set()
        await until(lambda: [row.in_use for row in engine.status().loaded] == [0])

    asyncio.run(main())


def test_a_waiting_request_that_leaves_is_never_started(
    tmp_path: Path, fake: FakePlugin, gate: Gate
) -> None:
    settings = Settings(models=tmp_path, max_rows=2)
    engine = build_test_engine(tmp_path, fake, settings=settings)

    async def main() -> None:
        gate.hold_after(1)
        running = asyncio.create_task(collect(engine, replace(RED, steps=40)))
        await until(lambda: gate.begun == 2)
        waiting = asyncio.create_task(collect(engine, replace(RED, steps=40)))
        await gate.step_until(lambda: [j.phase for j in engine.status().jobs][1:] == ["queued"])
        waiting.cancel()
        await asyncio.wait([waiting])
        gate.open()
        await running

    try:
        asyncio.run(main())
    finally:
        engine.close(grace=0)
    assert len(fake.loader.models[0].forwards) == 40


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
    fake, loads = FakePlugin(), threading.Event()
    fake.loader.before_load = lambda: loads.wait(PATIENCE)
    engine = build_test_engine(tmp_path, fake, settings=settings)
    engine.start()
    asyncio.run(until(lambda: engine.status().device))
    assert not engine.status().ready
    loads.set()
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


def test_closing_finishes_what_is_in_progress_and_refuses_the_rest(
    tmp_path: Path, fake: FakePlugin, gate: Gate
) -> None:
    engine = build_test_engine(tmp_path, fake, settings=Settings(models=tmp_path, max_rows=2))

    async def main() -> None:
        gate.hold_after(1)
        running = asyncio.create_task(collect(engine, replace(RED, steps=200)))
        await until(lambda: gate.begun == 2)
        waiting = asyncio.create_task(collect(engine, RED))
        await gate.step_until(lambda: len(engine.status().jobs) == 2)
        closing = asyncio.create_task(asyncio.to_thread(engine.close, grace=PATIENCE))
        await gate.step_until(waiting.done)
        assert not running.done()
        gate.open()
        await closing
        assert isinstance((await running)[-1], GenerationResult)
        with pytest.raises(ShuttingDown):
            await waiting
        with pytest.raises(ShuttingDown):
            await collect(engine, RED)

    asyncio.run(main())
    assert fake.loader.models[0].closed


def test_closing_without_grace_ends_what_is_in_progress(engine: Engine, gate: Gate) -> None:
    async def main() -> None:
        gate.hold_after(1)
        running = asyncio.create_task(collect(engine, replace(RED, steps=900)))
        await until(lambda: gate.begun == 2)
        closing = asyncio.create_task(asyncio.to_thread(engine.close, grace=0))
        await until(lambda: engine.stopping)
        gate.open()
        await closing
        with pytest.raises(ShuttingDown):
            await running

    asyncio.run(main())
    assert not [t for t in threading.enumerate() if t.name == "imagine-engine" and t.is_alive()]


def test_a_caller_whose_loop_is_gone_leaves_no_job_behind(engine: Engine, gate: Gate) -> None:
    gate.hold_after(1)

    async def abandon() -> AsyncIterator[GenerationEvent]:
        events = engine.generate(replace(RED, steps=900))
        await anext(events)
        return events

    loop = asyncio.new_event_loop()
    events = loop.run_until_complete(abandon())
    loop.close()
    gate.open()
    asyncio.run(until(lambda: engine.status().jobs == []))
    del events
