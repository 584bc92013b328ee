"""Models that an engine loads and unloads."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from engines import RED, until
from gates import PATIENCE, Gate
from imagine_core import (
    GenerationResult,
    PhaseEvent,
)
from imagine_core.errors import (
    OutOfMemory,
    UnknownName,
)
from imagine_core.settings import Settings
from imagine_core.testing import FakePlugin, build_test_engine, collect, draw_one

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


def test_a_model_waits_for_one_in_use_whose_requests_go_on(
    tmp_path: Path, fake: FakePlugin, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagine_core.engine.loading.PATIENCE_SECONDS", 600)
    one_at_a_time(fake)
    folder = shelf(tmp_path / "m", "a", "b")
    engine = build_test_engine(folder, fake, settings=Settings(models=folder, max_rows=16))
    ended: list[str] = []

    async def ask(name: str, **changes: object) -> None:
        await collect(engine, replace(RED, **{"model": name[0], **changes}))  # type: ignore[arg-type]
        ended.append(name)

    async def main() -> None:
        gate.hold_after(1)
        first = asyncio.create_task(ask("a, long", steps=40))
        await until(lambda: gate.begun == 2)
        waiting = asyncio.create_task(ask("b"))
        await gate.step_until(lambda: len(engine.status().jobs) == 2)
        short = asyncio.create_task(ask("a, short"))
        await gate.step_until(short.done)
        assert len(fake.loader.models) == 1
        gate.open()
        await asyncio.gather(first, waiting)

    asyncio.run(main())
    assert ended == ["a, short", "a, long", "b"]
    assert [model.closed for model in fake.loader.models] == [True, False]
    engine.close()


def test_requests_without_end_for_one_model_do_not_starve_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagine_core.engine.loading.PATIENCE_SECONDS", 0.2)
    fake = FakePlugin()
    one_at_a_time(fake)
    engine = build_test_engine(shelf(tmp_path / "m", "a", "b"), fake)

    async def main() -> None:
        over = asyncio.Event()

        async def keep_asking() -> None:
            while not over.is_set():
                await collect(engine, replace(RED, model="a", steps=8))

        busy = [asyncio.create_task(keep_asking()) for _ in range(2)]
        await until(lambda: bool(fake.loader.models))
        async with asyncio.timeout(PATIENCE):
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
    fake, loads = FakePlugin(), threading.Event()
    fake.loader.before_load = lambda: loads.wait(PATIENCE)
    folder = shelf(tmp_path / "m", "a", "b", "c")
    settings = Settings(models=folder, preload=("c", "a"), default_model="a")
    engine = build_test_engine(folder, fake, settings=settings)
    engine.start()
    asyncio.run(until(lambda: engine.status().device is not None))
    assert not engine.status().ready
    loads.set()
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
    fake = FakePlugin()
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


def test_unloading_waits_for_the_pictures_in_progress(
    tmp_path: Path, fake: FakePlugin, gate: Gate
) -> None:
    engine = build_test_engine(tmp_path / "m", fake)

    async def main() -> None:
        gate.hold_after(1)
        drawing = asyncio.create_task(collect(engine, replace(RED, steps=20)))
        await until(lambda: gate.begun == 2)
        assert engine.unload("TINY") == "when idle"
        gate.open()
        assert isinstance((await drawing)[-1], GenerationResult)

    asyncio.run(main())
    asyncio.run(until(lambda: not engine.status().loaded))
    assert engine.unload("tiny") == "not loaded"
    with pytest.raises(UnknownName, match="did you mean 'tiny'"):
        engine.unload("tinny")
    engine.close()
