"""What a dialect costs: the same warm picture through each, as a ratio to the native API."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measure import Server, interleaved, median, row, server

ROUNDS = 15
WIDE = {"prompt": "a red house by the sea", "seed": 1}
BODIES: dict[str, dict[str, Any]] = {
    "/generate": WIDE,
    "/v1/images/generations": {**WIDE, "size": "512x512", "response_format": "b64_json"},
    "/sdapi/v1/txt2img": {**WIDE, "steps": 25, "sampler_name": "DPM++ 2M"},
}


def overhead() -> None:
    """A picture of doodle at 512 x 512 in 25 steps, over HTTP, in turn through each dialect."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as client:
        works: list[Callable[[], object]] = [
            partial(draw, client, path, body) for path, body in BODIES.items()
        ]
        times = interleaved(ROUNDS, *works)
    row("route", "median s", "ratio to the native one")
    row("---", "---", "---")
    for path, seconds in zip(BODIES, times, strict=True):
        ratio = median([one / native for one, native in zip(seconds, times[0], strict=True)])
        row(path, f"{median(seconds):.3f}", f"{ratio:.3f}")


def draw(client: Server, path: str, body: dict[str, Any]) -> None:
    """Draw one picture."""
    client.post(path, json=body).raise_for_status()
