"""How long the default picture takes: doodle, 512x512, 25 steps, cold from a shell and warm."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from measure import median, row, server, timed

ROUNDS = 5
PROMPT = "a red house by the sea at sunset"


def picture() -> None:
    """`imagine run` in its own process, and a request to a server that has doodle loaded."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with server(folder) as client:
            client.post("/generate", json={"prompt": PROMPT}).raise_for_status()
            warm = [
                timed(lambda: client.post("/generate", json={"prompt": PROMPT}).raise_for_status())
                for _ in range(ROUNDS)
            ]
        cold = [timed(lambda: run(folder)) for _ in range(ROUNDS)]
    row("picture", "median s", "slowest s")
    row("---", "---", "---")
    row("cold, `imagine run`", f"{median(cold):.1f}", f"{max(cold):.1f}")
    row("warm, `POST /generate`", f"{median(warm):.1f}", f"{max(warm):.1f}")


def run(folder: Path) -> None:
    """Draw in a process that ends with the picture; with `--models` it asks no server."""
    command = [sys.executable, "-m", "imagine_core", "run", PROMPT, "--quiet"]
    command += ["--models", str(folder), "-o", str(folder / "picture.png")]
    subprocess.run(command, check=True, capture_output=True)
