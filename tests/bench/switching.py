"""Whether a server that switches between two models of SD1.5's size keeps memory of them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from measure import resident, row, server

from checkpoints import SD1, write_checkpoint

SWITCHES = 20


def switching() -> None:
    """Two fp16 checkpoints in turn, one step at 64x64 each, stopped after each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = write_checkpoint(folder / "a.safetensors", SD1, dtype="F16")
        shutil.copyfile(first, folder / "b.safetensors")
        loaded, unloaded = [], []
        with server(folder, "--device", "cpu") as client:
            body = {"prompt": "a house", "width": 64, "height": 64, "steps": 1, "seed": 1}
            for number in range(SWITCHES):
                model = "ab"[number % 2]
                client.post("/generate", json={**body, "model": model}).raise_for_status()
                loaded.append(resident(client.pid))
                client.post("/stop", json={"model": model}).raise_for_status()
                unloaded.append(resident(client.pid))
    row("switches", "resident MB, loaded", "resident MB, unloaded", "ratio to the first")
    row("---", "---", "---", "---")
    for number in (1, 2, 5, 10, SWITCHES):
        ratio = unloaded[number - 1] / unloaded[0]
        sizes = [f"{sizes[number - 1] / 2**20:.0f}" for sizes in (loaded, unloaded)]
        row(number, *sizes, f"{ratio:.3f}")
