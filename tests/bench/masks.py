"""The same picture started from, with a mask and without, through our HTTP server."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from measure import interleaved, median, row, server
from PIL import Image

from checkpoints import SD1, write_folder

SIZE, STEPS, ROUNDS = 256, 5, 5


def masks() -> None:
    """SD1.5's size, float32, warm, 256x256, 4 of 5 steps, guidance 7."""
    row("img2img median s", "with a mask median s", "ratio")
    row("---", "---", "---")
    mask = Image.new("L", (SIZE, SIZE), 0)
    mask.paste(255, (64, 64, 192, 192))
    start = Image.linear_gradient("L").resize((SIZE, SIZE)).convert("RGB")
    pictures = {"img": encoded(start)}
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder) / "sd15", SD1, dtype="F16")
        with server(Path(folder), "--device", "cpu", "--full_prec") as client:
            plain = partial(ask, client, pictures)
            masked = partial(ask, client, {**pictures, "mask": encoded(mask)})
            without, with_mask = interleaved(ROUNDS, plain, masked)
    ratio = median([b / a for a, b in zip(without, with_mask, strict=True)])
    row(f"{median(without):.2f}", f"{median(with_mask):.2f}", f"{ratio:.3f}")


def encoded(image: Image.Image) -> str:
    """A picture as requests have it."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def ask(client: httpx.Client, pictures: Mapping[str, str]) -> None:
    """One picture."""
    body: dict[str, Any] = {
        "model": "sd15",
        "prompt": "a photo of an astronaut riding a horse on mars",
        "width": SIZE,
        "height": SIZE,
        "steps": STEPS,
        "strength": 0.8,
        "seed": 1,
        **pictures,
    }
    client.post("/generate", json=body).raise_for_status()
