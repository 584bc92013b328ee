"""Plugins observe generations, and cannot harm them."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from imagine_core import Generation, GenerationRequest, hookimpl
from imagine_core.engine import Engine, observers
from imagine_core.errors import Busy, GenerationFailed
from imagine_core.settings import Limits, Settings
from imagine_core.testing import FakePlugin, build_test_engine, collect, draw_one
from slow_server import wait_until

RED = GenerationRequest(
    prompt="a secret", sampler="test euler", steps=4, width=64, height=72, seed=1, images=2
)


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.started: list[Generation] = []
        self.finished: list[Generation] = []

    @hookimpl
    def generation_started(self, generation: Generation) -> None:
        self.started.append(generation)

    @hookimpl
    def generation_finished(self, generation: Generation) -> None:
        self.finished.append(generation)


def engine_with(tmp_path: Path, *plugins: object, fake: FakePlugin | None = None) -> Engine:
    extra = [(f"listener {number}", plugin) for number, plugin in enumerate(plugins)]
    settings = Settings(models=tmp_path, max_rows=2, limits=Limits(queue=1))
    return build_test_engine(tmp_path, fake, settings=settings, extra=extra)


def test_hook_generation_started(tmp_path: Path) -> None:
    listener = Listener()
    engine = engine_with(tmp_path, listener)
    draw_one(engine, RED)
    engine.close()
    (told,) = listener.started
    assert (told.model, told.sampler, told.schedule) == ("tiny", "test euler", "default")
    assert (told.steps, told.width, told.height, told.images) == (4, 64, 72, 2)
    assert told.outcome is None
    assert "secret" not in repr(told)


def test_hook_generation_finished(tmp_path: Path) -> None:
    listener = Listener()
    engine = engine_with(tmp_path, listener)
    draw_one(engine, RED)
    engine.close()
    (told,) = listener.finished
    assert (told.id, told.outcome, told.error) == (listener.started[0].id, "done", None)
    assert set(told.timings) == {"queued", "loading", "encoding", "denoising", "decoding"}
    assert "secret" not in repr(told)


def test_every_end_is_told_once(tmp_path: Path) -> None:
    listener, fake = Listener(), FakePlugin()
    engine = engine_with(tmp_path, listener, fake=fake)
    long = replace(RED, steps=900, images=1)

    def phases() -> list[str]:
        return [job.phase for job in engine.status().jobs]

    async def main() -> None:
        fake.loader.before = lambda rows: time.sleep(0.02)
        running = asyncio.create_task(collect(engine, long))
        await asyncio.to_thread(wait_until, lambda: phases() == ["denoising"])
        waiting = asyncio.create_task(collect(engine, long))
        await asyncio.to_thread(wait_until, lambda: phases() == ["denoising", "queued"])
        with pytest.raises(Busy):
            await collect(engine, long)
        waiting.cancel()
        await asyncio.to_thread(wait_until, lambda: phases() == ["denoising"])
        fake.loader.before = lambda rows: 1 / 0
        with pytest.raises(GenerationFailed):
            await running

    asyncio.run(main())
    engine.close()
    assert len(listener.started) == 3
    ends = [(told.outcome, told.error) for told in listener.finished]
    assert sorted(ends, key=str) == [
        ("cancelled", None),
        ("failed", "generation_failed"),
        ("refused", "busy"),
    ]
    assert {told.id for told in listener.finished} == {told.id for told in listener.started}


class Raises(Listener):
    """Raises whatever it is told."""

    @hookimpl
    def generation_finished(self, generation: Generation) -> None:
        super().generation_finished(generation)
        raise RuntimeError("a stranger's bug")


def test_an_observer_that_raises_is_named_once_and_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raises, listener = Raises(), Listener()
    engine = engine_with(tmp_path, raises, listener)
    for _ in range(3):
        assert draw_one(engine, RED).images
    engine.close()
    assert len(raises.finished) == len(listener.finished) == 3
    assert caplog.text.count("plugin 'listener 0' failed in generation_finished") == 1
    reports = {report.name: report.problem for report in engine.plugins.reports()}
    assert "a stranger's bug" in (reports["listener 0"] or "")
    assert reports["listener 1"] is None


class Hangs(Listener):
    """Does not come back."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    @hookimpl
    def generation_started(self, generation: Generation) -> None:
        super().generation_started(generation)
        self.release.wait()


def test_an_observer_that_hangs_delays_no_picture_and_fills_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(observers, "BACKLOG", 3)
    hangs = Hangs()
    engine = engine_with(tmp_path, hangs)
    for _ in range(4):
        assert draw_one(engine, RED).images
    assert len(hangs.started) == 1
    assert "a plugin that observes generations hangs" in caplog.text
    hangs.release.set()
    engine.close()
