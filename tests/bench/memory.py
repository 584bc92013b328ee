"""Whether the server grows: its resident memory after 5 and after 100 requests."""

from __future__ import annotations

import tempfile
from pathlib import Path

from measure import resident, row, server


def memory() -> None:
    """One hundred requests of doodle at 256x256, other prompts and samplers each time."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as client:
        samplers = client.get("/samplers").json()["samplers"]
        sizes = []
        for number in range(1, 101):
            body = {
                "prompt": f"a house number {number}",
                "width": 256,
                "height": 256,
                "steps": 4,
                "seed": number,
                "sampler": samplers[number % len(samplers)],
            }
            client.post("/generate", json=body).raise_for_status()
            sizes.append(resident(client.pid))
    row("requests", "resident MB", "ratio to the 5th")
    row("---", "---", "---")
    for number in (5, 10, 20, 50, 100):
        size = sizes[number - 1]
        row(number, f"{size / 2**20:.0f}", f"{size / sizes[4]:.3f}")
