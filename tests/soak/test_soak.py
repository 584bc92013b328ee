"""Two hundred clients, a third of them leaving: right answers, clean errors, nothing left over.

`nox -s soak` plays for twenty minutes instead of seconds, and prints what it measures: SOAK_SECONDS
says how long at least. However long, they play until each kind of visit has come to its end.
"""

from __future__ import annotations

import asyncio
import bisect
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from soak.crowd import Client, Tally
from soak.orders import BODIES, References
from soak.process import ServerProcess, soak_process

SECONDS = float(os.environ.get("SOAK_SECONDS", "10"))
LONG = SECONDS >= 300
CLIENTS = 200
STEP = 0.02

GROWTH = 1.03 if LONG else 1.15
"""Memory at the end against that at a quarter of the time. Seconds after its start a server is
still on the way to the most that it ever needs at once, which the allocator then keeps: with two
hundred clients that is some tens of megabytes."""

ENDINGS = ("got it", "was cancelled", "left", "came back", "broke off")

pytestmark = [
    pytest.mark.timeout(SECONDS + 900),
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system has no /proc"),
]


@dataclass
class Played:
    """What a soak left behind.

    Attributes:
        tally: What the clients saw.
        began: When each step of the device began.
        ended: When each request had left the device, by id.
        memory: The server's, at a quarter of the time and at the end.
        files: The server's open files, before the first client and after the last.
        outcomes: What the log says of each id.
        metrics: What the server counted.
        standing: What `/ps` and `/jobs` have at the end.
        log: All lines of the log.
    """

    tally: Tally = field(default_factory=Tally)
    began: list[float] = field(default_factory=list)
    ended: dict[str, float] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)
    files: list[list[str]] = field(default_factory=list)
    outcomes: dict[str, list[str]] = field(default_factory=dict)
    metrics: dict[str, int] = field(default_factory=dict)
    standing: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)

    def note(self, notes: dict[str, Any]) -> None:
        """Take what the server noted since it was last asked."""
        self.began += notes["began"]
        self.ended |= notes["ended"]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A soak from its first to its last client."""
    references = References(tmp_path_factory.mktemp("alone"))
    played = Played()
    with soak_process(tmp_path_factory.mktemp("models"), step=STEP) as server:
        warm_up(server)
        played.files.append(server.files())
        asyncio.run(play(server, references, played))
        asyncio.run(settle(server, played))
        played.files.append(server.files())
        played.note(server.get("/soak"))
        played.metrics = server.metrics()
        played.standing = {**server.get("/ps"), "listed": server.get("/jobs")["jobs"]}
        server.stop()
        played.outcomes, played.log = server.outcomes(), server.log
    steps = steps_after_leaving(played)
    print(dict(played.tally.visits), [f"{size / 2**20:.1f} MiB" for size in played.memory])
    print(f"steps after a client left: {steps[len(steps) // 2]}, at most {steps[-1]}")
    return played


def warm_up(server: ServerProcess) -> None:
    """Load the model, and do once whatever is done once."""
    for body in BODIES.values():
        answer = httpx.post(f"{server.url}/generate", json={**body, "seed": 1}, timeout=60)
        assert answer.status_code == 200, answer.text
    server.get("/soak")
    looks = [server.files()]
    while looks.count(looks[-1]) < 10:  # the last connection may not be closed yet
        time.sleep(0.1)
        looks.append(server.files())


async def play(server: ServerProcess, references: References, played: Played) -> None:
    """Let them in, and watch."""
    loop = asyncio.get_running_loop()
    started, tally = loop.time(), played.tally

    def over(mark: float = 1.0) -> bool:
        """Whether a part of the time, and of what has to happen in it, is over."""
        seen = tally.streams and len(tally.left) > 20 and all(map(tally.visits.get, ENDINGS))
        enough = len(tally.outcomes) > 3 * mark * CLIENTS and (seen or mark < 1)
        return bool(enough) and loop.time() >= started + mark * SECONDS

    async with asyncio.TaskGroup() as group:
        for seed in range(CLIENTS):
            client = Client(server.url, references, tally, seed=seed)
            group.create_task(client.visit_until(over))
        group.create_task(watch(server, played, over))


async def watch(server: ServerProcess, played: Played, over: Callable[[float], bool]) -> None:
    """Collect what the server notes, and look at its memory after a quarter and at the end."""
    for mark in (0.25, 1.0):
        while not over(mark):
            await asyncio.sleep(min(1.0, SECONDS / 20))
            played.note(await asyncio.to_thread(server.get, "/soak"))
        played.memory.append(server.memory())


async def settle(server: ServerProcess, played: Played) -> None:
    """Wait until what clients left behind is finished, and their connections are gone."""
    async with asyncio.timeout(600):
        while server.get("/ps")["jobs"] or len(server.files()) > len(played.files[0]):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def test_every_kind_of_visit_came_to_its_end(played: Played) -> None:
    assert all(played.tally.visits[ending] for ending in ENDINGS), played.tally.visits
    assert played.tally.streams > 0


def test_every_request_has_one_line_in_the_log_and_ended_as_its_client_saw(played: Played) -> None:
    outcomes = played.tally.outcomes
    assert len(outcomes) > CLIENTS
    for name, expected in outcomes.items():
        assert len(played.outcomes[name]) == 1, (name, played.outcomes[name])
        assert set(played.outcomes[name]) <= expected, name


def test_the_counts_add_up(played: Played) -> None:
    said = [outcome for lines in played.outcomes.values() for outcome in lines]
    counts = {
        outcome: played.metrics.get(f"imagine_generations_total {outcome}", 0)
        for outcome in ("done", "cancelled", "refused", "failed")
    }
    assert {outcome: said.count(outcome) for outcome in counts} == counts
    assert counts["failed"] == 0
    assert played.metrics["imagine_generations_started_total"] == sum(counts.values())
    visits = played.tally.visits
    assert counts["done"] >= visits["got it"] + visits["came back"]
    assert counts["refused"] >= visits["was refused"]
    assert played.metrics["imagine_pictures_total"] >= counts["done"]


def test_nothing_went_wrong(played: Played) -> None:
    wrong = [line for line in played.log if line["level"] not in ("INFO", "DEBUG")]
    assert wrong == []


def test_no_job_is_left_over(played: Played) -> None:
    assert played.standing["jobs"] == []
    assert played.standing["queue"] == 0
    assert {job["status"] for job in played.standing["listed"]} <= {"final", "cancelled"}
    assert played.metrics["imagine_jobs queued"] == played.metrics["imagine_jobs running"] == 0


def test_files_are_those_that_were_open_before(played: Played) -> None:
    before, after = played.files
    assert after == before


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_flat(played: Played) -> None:
    quarter, end = played.memory
    assert end <= quarter * GROWTH, f"{quarter / 2**20:.0f} MiB became {end / 2**20:.0f} MiB"


def steps_after_leaving(played: Played) -> list[int]:
    """Of each request whose client left, the steps that began before it had left the device."""
    began = sorted(played.began)
    return sorted(
        bisect.bisect(began, played.ended[name]) - bisect.bisect(began, moment)
        for name, moment in played.tally.left.items()
        if played.outcomes[name] == ["cancelled"]
    )


def test_whoever_leaves_is_cancelled(played: Played) -> None:
    """How many steps that takes is a matter of time, which `nox -s soak` prints."""
    left = [played.outcomes[name] for name in played.tally.left]
    assert left.count(["cancelled"]) > 10
