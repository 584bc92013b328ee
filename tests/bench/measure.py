"""Shared by the benchmarks: a server process, medians, and a table."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server(httpx.Client):
    """A client of a server that runs in process `pid`."""

    pid = 0


@contextmanager
def server(models: Path, *options: str) -> Iterator[Server]:
    """A running `imagine serve` and a client for it."""
    port = free_port()
    command = [sys.executable, "-m", "imagine_core", "serve", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--models", str(models), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with Server(base_url=f"http://127.0.0.1:{port}", timeout=3600) as client:
            client.pid = process.pid
            wait_until(lambda: answers(client))
            yield client
    finally:
        process.terminate()
        process.wait(30)


def answers(client: httpx.Client) -> bool:
    """Whether the server's socket is open."""
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> float:
    """Wait for `condition`; the seconds that it took."""
    started = time.perf_counter()
    while not condition():
        if time.perf_counter() - started > seconds:
            raise TimeoutError
        time.sleep(0.01)
    return time.perf_counter() - started


def run(*arguments: str) -> None:
    """Run Python with `arguments` and wait for it."""
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def interleaved(rounds: int, *works: Callable[[], object]) -> list[list[float]]:
    """Seconds of each of `works` in each round, taken in turn, after a round of warm-up."""
    for work in works:
        work()
    times: list[list[float]] = [[] for _ in works]
    for number in range(rounds):
        order = range(len(works)) if number % 2 == 0 else reversed(range(len(works)))
        for index in order:
            times[index].append(timed(works[index]))
    return times


def resident(pid: int) -> int:
    """Bytes of memory that a process has resident."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def row(*cells: object) -> None:
    """Print one row of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)
