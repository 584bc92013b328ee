"""Samplers that never return: stopped if possible, else reported."""

from __future__ import annotations

import asyncio
import importlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imagine_core import (
    Evaluation,
    GenerationRequest,
    GenerationResult,
    SamplerSpec,
    Sampling,
    SamplingTask,
    hookimpl,
)
from imagine_core.engine import Engine
from imagine_core.engine import watchdog as module
from imagine_core.engine.watchdog import Watchdog
from imagine_core.errors import GenerationFailed, Stalled
from imagine_core.settings import Settings
from imagine_core.testing import build_test_engine, collect, draw_one, euler
from slow_server import wait_until

RED = GenerationRequest(
    prompt="red", sampler="test euler", steps=4, guidance_scale=1.0, width=64, height=64, seed=1
)


async def until(true: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, true)


# -- the watchdog alone ------------------------------------------------------------------------


@pytest.fixture
def watchdog(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watchdog]:
    monkeypatch.setattr(module, "MERCY_SECONDS", 0.1)
    told: list[Stalled] = []
    watchdog = Watchdog(seconds=0.3, on_stall=told.append)
    watchdog.start()
    yield watchdog
    watchdog.stop()


def spin(seconds: float) -> None:
    """Keep Python busy."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def test_what_comes_back_in_time_is_left_alone() -> None:
    watchdog = Watchdog(seconds=300, on_stall=lambda error: None)
    watchdog.start()
    assert watchdog.guard("s", lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        watchdog.guard("s", lambda: 1 / 0)
    watchdog.stop()


def test_a_loop_without_end_is_stopped_and_named(watchdog: Watchdog) -> None:
    with pytest.raises(GenerationFailed, match=r"^the culprit did not come back within 0.3 s"):
        watchdog.guard("the culprit", lambda: spin(300))
    assert watchdog._call is None


def test_no_except_exception_holds_it_up(watchdog: Watchdog) -> None:
    def stubborn() -> None:
        while True:
            try:
                spin(300)
            except Exception:  # noqa: S112 - what it is here for
                continue

    with pytest.raises(GenerationFailed):
        watchdog.guard("s", stubborn)


def test_who_swallows_it_and_comes_back_has_come_back(watchdog: Watchdog) -> None:
    def swallows() -> int:
        try:
            spin(300)
        except BaseException:
            return 7
        return 0

    assert watchdog.guard("s", swallows) == 7


def test_an_import_is_not_torn_in_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "takes_its_time.py").write_text(
        "import time\nend = time.monotonic() + 3\nwhile time.monotonic() < end:\n"
        "    time.sleep(0.01)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    watchdog = Watchdog(seconds=2, on_stall=lambda error: None)  # ten times as long for an import
    watchdog.start()
    module = watchdog.guard("s", lambda: importlib.import_module("takes_its_time"))
    watchdog.stop()
    assert module.end < time.monotonic()


def test_who_waits_for_a_slow_device_is_not_to_blame() -> None:
    done = threading.Event()
    watchdog = Watchdog(seconds=1, on_stall=lambda error: None, settle=done.wait)
    watchdog.start()
    timer = threading.Timer(2.0, done.set)
    timer.start()
    assert watchdog.guard("s", done.wait)
    with pytest.raises(GenerationFailed):
        watchdog.guard("s", lambda: spin(300))
    watchdog.stop()
    timer.join()


def test_nothing_is_raised_after_a_call_however_close_it_was() -> None:
    """Calls that take about as long as they may: each returns, or fails, and nothing else does."""
    random.seed(5)
    watchdog = Watchdog(seconds=0.004, on_stall=lambda error: None)
    watchdog.start()
    ends = {"back": 0, "stopped": 0}
    for _ in range(600):
        try:
            watchdog.guard("s", lambda: spin(random.uniform(0.001, 0.012)))
        except GenerationFailed:
            ends["stopped"] += 1
        else:
            ends["back"] += 1
        spin(0.0005)  # a late strike would hit here
    watchdog.stop()
    assert all(ends.values()), ends


def test_a_thread_that_blocks_in_c_is_said_to_be_lost_until_it_is_not(
    watchdog: Watchdog,
) -> None:
    release = threading.Event()
    ended: list[BaseException] = []

    def blocked() -> None:
        try:
            watchdog.guard("the culprit", release.wait)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=blocked)
    before = time.time()
    thread.start()
    wait_until(lambda: watchdog.stalled)
    assert watchdog.stalled is not None
    assert watchdog.stalled.culprit == "the culprit"
    assert before - 5 < watchdog.stalled.since.timestamp() < time.time()
    release.set()
    thread.join(30)
    assert [type(error) for error in ended] == [GenerationFailed]
    assert watchdog.stalled is None


# -- in the engine -----------------------------------------------------------------------------


class Trouble:
    """Samplers that do not come back, each in its own way."""

    def __init__(self) -> None:
        self.release = threading.Event()

    @hookimpl
    def register_samplers(self, register: Callable[[SamplerSpec], None]) -> None:
        for sample in (self.loops, self.begins_never, self.blocks, self.never_closes):
            name = sample.__name__
            register(SamplerSpec(name=name, label=name, sample=sample))

    def loops(self, task: SamplingTask) -> Sampling:
        yield Evaluation(task.noise, 999.0, 0)
        spin(300)
        return task.noise

    def begins_never(self, task: SamplingTask) -> Sampling:
        spin(300)
        return euler(task)

    def blocks(self, task: SamplingTask) -> Sampling:
        yield Evaluation(task.noise, 999.0, 0)
        self.release.wait()
        yield Evaluation(task.noise, 999.0, 1)
        return task.noise

    def never_closes(self, task: SamplingTask) -> Sampling:
        try:
            while True:
                yield Evaluation(task.noise, 999.0, 0)
        finally:
            spin(300)


@pytest.fixture
def trouble() -> Trouble:
    return Trouble()


@pytest.fixture
def engine(tmp_path: Path, trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(module, "MERCY_SECONDS", 0.2)
    settings = Settings(models=tmp_path / "m", sampler_seconds=2.0)
    engine = build_test_engine(tmp_path / "m", settings=settings, extra=[("stranger", trouble)])
    draw_one(engine, RED)  # torch takes seconds to import; that is no sampler's fault
    yield engine
    trouble.release.set()
    engine.close(grace=0)


@pytest.mark.parametrize("sampler", ["loops", "begins_never"])
def test_a_sampler_that_never_yields_fails_by_name_and_the_others_go_on(
    engine: Engine, sampler: str
) -> None:
    async def main() -> None:
        good = asyncio.create_task(collect(engine, replace(RED, steps=400)))
        words = f"sampler '{sampler}' of plugin 'stranger' did not come back within 2 s"
        with pytest.raises(GenerationFailed, match=words):
            await collect(engine, replace(RED, sampler=sampler))
        assert isinstance((await good)[-1], GenerationResult)

    asyncio.run(main())
    assert engine.status().stalled is None


def test_a_sampler_that_never_ends_its_tidying_harms_nobody(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        leaving = asyncio.create_task(collect(engine, replace(RED, sampler="never_closes")))
        await until(lambda: any(job.phase == "denoising" for job in engine.status().jobs))
        leaving.cancel()
        assert isinstance((await collect(engine, RED))[-1], GenerationResult)

    asyncio.run(main())
    assert "sampler 'never_closes' of plugin 'stranger' failed while it was closed" in caplog.text


def test_a_sampler_that_blocks_the_thread_is_told_to_all_who_wait_and_to_those_who_come(
    engine: Engine, trouble: Trouble
) -> None:
    async def main() -> None:
        culprit = asyncio.create_task(collect(engine, replace(RED, sampler="blocks")))
        await until(lambda: engine.status().jobs)
        waiting = [asyncio.create_task(collect(engine, RED)) for _ in range(3)]
        async with asyncio.timeout(30):
            for task in (culprit, *waiting):
                with pytest.raises(Stalled, match="sampler 'blocks' of plugin 'stranger' has held"):
                    await task
            with pytest.raises(Stalled):
                await collect(engine, RED)
        status = engine.status()
        assert status.stalled is not None
        assert not status.ready

    asyncio.run(main())
    trouble.release.set()
    wait_until(lambda: engine.status().stalled is None and not engine.status().jobs)
    assert engine.status().ready
    assert draw_one(engine, RED).images
