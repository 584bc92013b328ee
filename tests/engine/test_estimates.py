"""Estimated waits in the queue, from the times of forwards."""

from __future__ import annotations

import asyncio
import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from engines import until
from gates import Gate
from imagine_core import GenerationRequest, PhaseEvent
from imagine_core.engine import stepping, worker
from imagine_core.engine.estimates import Pace
from imagine_core.models.memory import Work
from imagine_core.settings import Settings
from imagine_core.testing import FakeClock, FakePlugin, build_test_engine, collect, draw_one

SMALL = Work(Path("a"), 64, 64)
LARGE = Work(Path("a"), 128, 128)
OTHER = Work(Path("b"), 64, 64)


@dataclass
class Waiting:
    """As much of a job as an estimate looks at."""

    evaluations_left: int
    rows: int = 2
    work: Work = SMALL
    images: int = 1


def waits(pace: Pace, running: list[Any], waiting: list[Any], rows: int = 2) -> list[float | None]:
    return pace.waits(running, waiting, most_rows=lambda work: rows)


def measured(work: Work = SMALL, row: float = 0.5) -> Pace:
    pace = Pace()
    pace.forward(work, 2, 2 * row)
    return pace


def test_nothing_is_guessed_before_anything_was_measured() -> None:
    assert waits(Pace(), [Waiting(10)], [Waiting(10)]) == [None]
    assert waits(measured(OTHER), [Waiting(10)], [Waiting(10)]) == [None]


def test_one_after_the_other_waits_for_all_steps_before_it() -> None:
    assert waits(measured(), [Waiting(10)], [Waiting(20), Waiting(5)]) == [10.0, 30.0]


def test_who_shares_a_forward_does_not_wait_for_the_other() -> None:
    running = [Waiting(10), Waiting(4)]
    # Four rows: the shorter of two leaves after four forwards of four rows, half a second each.
    assert waits(measured(), running, [Waiting(8)], rows=4) == [8.0]


def test_what_a_job_does_beside_its_steps_counts_for_each_that_must_end_before() -> None:
    pace = measured()
    pace.job(3.0)
    assert waits(pace, [Waiting(10)], [Waiting(20), Waiting(5)]) == [13.0, 36.0]


def test_sizes_share_the_device() -> None:
    pace = measured()
    pace.forward(OTHER, 2, 1.0)
    assert waits(pace, [Waiting(10), Waiting(10, work=OTHER)], [Waiting(1)]) == [20.0]


def test_another_size_of_a_known_model_is_reckoned_by_its_area() -> None:
    assert measured(LARGE, 0.4).row(SMALL) == pytest.approx(0.1)


def test_a_mean_follows_what_is_measured() -> None:
    pace = measured(row=1.0)
    for _ in range(40):
        pace.forward(SMALL, 4, 8.0)
    assert pace.row(SMALL) == pytest.approx(2.0, rel=0.02)


RED = GenerationRequest(prompt="red", sampler="test euler", steps=4, width=64, height=64, seed=1)


def test_who_waits_is_told_how_long_by_what_forwards_took(
    tmp_path: Path, fake: FakePlugin, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    passing = types.SimpleNamespace(perf_counter=clock, monotonic=clock)
    for module in (stepping, worker):
        monkeypatch.setattr(module, "time", passing)

    def step(rows: int) -> None:
        gate(rows)
        clock.advance(0.5)

    fake.loader.before = step
    engine = build_test_engine(tmp_path, fake, settings=Settings(models=tmp_path, max_rows=2))
    draw_one(engine, RED)

    async def main() -> list[PhaseEvent]:
        gate.hold_after(10)
        running = asyncio.create_task(collect(engine, replace(RED, steps=300)))
        await until(lambda: gate.begun == 4 + 11)
        events = asyncio.create_task(collect(engine, RED))
        await gate.step_until(lambda: len(engine.status().jobs) == 2)
        begun = gate.begun
        await gate.step_until(lambda: engine.status().jobs[1].wait is not None)
        assert gate.begun - begun < 100
        gate.open()
        await running
        return [event for event in await events if isinstance(event, PhaseEvent)]

    queued = [event.wait for event in asyncio.run(main()) if event.phase == "queued"]
    engine.close(grace=0)
    assert queued[0] is None
    assert queued[1] is not None
    assert 0.5 * 190 < queued[1] <= 0.5 * 290
