"""Times the command line's start against a bare interpreter that imports httpx."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from measure import interleaved, median, row, run, server

ROUNDS = 15


def start() -> None:
    """`--help` and `list` against `import httpx`; `/health` after `serve`."""
    with tempfile.TemporaryDirectory() as folder:
        bare, usage, listing = interleaved(
            ROUNDS,
            lambda: run("-c", "import httpx"),
            lambda: run("-m", "imagine_core", "--help"),
            lambda: run("-m", "imagine_core", "list", "--models", folder),
        )
        row("command", "median s", "ratio to `import httpx`")
        row("---", "---", "---")
        for name, times in (("import httpx", bare), ("--help", usage), ("list", listing)):
            row(name, f"{median(times):.3f}", f"{median(times) / median(bare):.2f}")
        health = [until_health(Path(folder)) for _ in range(5)]
        row("serve until /health answers", f"{median(health):.2f}", "")


def until_health(folder: Path) -> float:
    """Seconds until a server that is being started answers; its end does not count."""
    started = time.perf_counter()
    with server(folder):
        return time.perf_counter() - started
