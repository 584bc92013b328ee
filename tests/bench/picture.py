"""Times the default picture: doodle, 512x512, 25 steps, cold from a shell and warm."""

from __future__ import annotations

import tempfile
from pathlib import Path

from measure import median, row, run, server, timed

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
        # With `--models` it asks no server, and ends with the picture.
        command = ("-m", "imagine_core", "run", PROMPT, "--quiet", "--models", name)
        cold = [timed(lambda: run(*command, "-o", f"{name}/picture.png")) for _ in range(ROUNDS)]
    row("picture", "median s", "slowest s")
    row("---", "---", "---")
    row("cold, `imagine run`", f"{median(cold):.1f}", f"{max(cold):.1f}")
    row("warm, `POST /generate`", f"{median(warm):.1f}", f"{max(warm):.1f}")
