"""How little others notice: of a thousand idle connections, and of clients that leave."""

from __future__ import annotations

import random
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
from measure import median, row, timed

from calls import app_of, live_server
from imagine_core.testing import build_test_engine
from slow_server import LONG, STEP, Server, wait_until

IDLE, ASKED, LEFT = 1000, 50, 50


def patience() -> None:
    """`GET /health` beside idle connections; steps after a client has left; the end of a server."""
    with tempfile.TemporaryDirectory() as folder:
        beside = seconds_beside_idle_connections(Path(folder))
        steps = steps_after_leaving(Path(folder))
        ends = [seconds_to_stop(Path(folder)) for _ in range(5)]
    row("figure", "median", "worst")
    row("---", "---", "---")
    milliseconds = (f"{1000 * value(beside):.1f} ms" for value in (median, max))
    row(f"`GET /health` beside {IDLE} idle connections", *milliseconds)
    row(f"steps of {STEP} s after a client has left", f"{median(steps):.0f}", max(steps))
    row("stopping a server that does nothing", f"{median(ends):.2f} s", f"{max(ends):.2f} s")


def seconds_beside_idle_connections(folder: Path) -> list[float]:
    """Of a new client each time."""
    with ExitStack() as stack:
        server = stack.enter_context(Server(folder).running())
        host, port = server.url.removeprefix("http://").split(":")
        for _ in range(IDLE):
            stack.enter_context(socket.create_connection((host, int(port))))
        return [timed(lambda: httpx.get(f"{server.url}/health")) for _ in range(ASKED)]


def steps_after_leaving(folder: Path) -> list[int]:
    """How many the device made for clients that had gone, each at some moment of a step."""
    counts, dice = [], random.Random(1)
    with Server(folder).running() as server:
        for _ in range(LEFT):
            before = server.forwards
            connection = server.post(LONG)
            wait_until(lambda: server.forwards > before + 2)  # noqa: B023 - waited for at once
            time.sleep(dice.random() * STEP)
            left_at = server.forwards
            connection.close()
            wait_until(lambda: not server.phases())
            counts.append(server.forwards - left_at)
    return counts


def seconds_to_stop(folder: Path) -> float:
    """From the order to stop to the end."""
    engine = build_test_engine(folder)
    with live_server(app_of(engine), on_stop=engine.close) as (url, _):
        httpx.get(f"{url}/health")
        started = time.perf_counter()
    return time.perf_counter() - started
