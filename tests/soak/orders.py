"""The requests of the soak's clients, and their expected replies."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imagine_core.engine import Engine
from imagine_core.testing import build_test_engine, draw_one
from imagine_plugins.dialects.native.wire import read_order

Pixels = npt.NDArray[np.int16]

STEPS = 6
PLAIN: dict[str, Any] = {
    "prompt": "red",
    "width": 64,
    "height": 64,
    "steps": STEPS,
    "sampler": "test euler",
}
BODIES: dict[str, dict[str, Any]] = {
    "one picture": PLAIN,
    "exactly": {**PLAIN, "deterministic": True},
    "previews": {**PLAIN, "stream": 2},
    "full previews": {**PLAIN, "stream": 3, "preview": "vae", "progress": True},
    "wide": {**PLAIN, "width": 96, "progress": True},
    "several": {**PLAIN, "n": 3, "progress": True},
    "second order": {**PLAIN, "sampler": "heun", "steps": 5},
    "unguided": {**PLAIN, "guidance": 1, "prompt": "blue", "progress": True},
    "enlarged": {**PLAIN, "hires": 1.5, "steps": 4, "progress": True},
    "from another": {**PLAIN, "strength": 0.5, "stream": 1},
}
SEEDS = range(1, 5)
CLOSE = 2
"""How far a value of a pixel may be off where requests share forwards."""


def picture() -> str:
    """One to start from, in base64."""
    shades = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(shades).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


BODIES["from another"]["img"] = picture()


def order(random: Random) -> tuple[str, dict[str, Any]]:
    """Something to ask for, and what it is called."""
    name = random.choice(list(BODIES))
    return name, {**BODIES[name], "seed": random.choice(SEEDS)}


class References:
    """The pictures that each request makes on a server that does nothing else."""

    def __init__(self, folder: Path) -> None:
        engine = build_test_engine(folder)
        self._pictures = {
            (name, seed): self._draw(engine, {**body, "seed": seed})
            for name, body in BODIES.items()
            for seed in SEEDS
        }
        engine.close()

    @staticmethod
    def _draw(engine: Engine, body: dict[str, Any]) -> list[Pixels]:
        request = read_order(json.dumps(body).encode()).request
        return [np.asarray(made.image, np.int16) for made in draw_one(engine, request).images]

    def check(self, name: str, body: dict[str, Any], final: dict[str, Any]) -> None:
        """Hold the last line of a reply to what it has to be."""
        expected = self._pictures[name, body["seed"]]
        made = final.get("images", [final])
        assert len(made) == len(expected), name
        assert [int(each["seed"]) for each in made] == [body["seed"] + i for i in range(len(made))]
        bound = 0 if body.get("deterministic") else CLOSE
        for each, right in zip(made, expected, strict=True):
            pixels = decoded(each["img"])
            assert pixels.shape == right.shape, name
            assert abs(pixels - right).max() <= bound, name


def decoded(img: str) -> Pixels:
    """The pixels of a picture in base64."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(img))), np.int16)


def check_previews(body: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    """Whether a whole stream has the previews that it should have."""
    shown = [line for line in lines if line["status"] == "intermediate"]
    assert len(shown) == (shown[0]["steps"] - 1) // body["stream"]
    for line in shown:
        assert decoded(line["img"]).shape == (body["height"], body["width"], 3)
