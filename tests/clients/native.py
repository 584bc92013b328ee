"""The native API of a live server, whose pictures those of clients are compared with."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from PIL import Image

Pixels = np.ndarray[Any, Any]

PROMPT = "a red house on a meadow at day"
WIDTH, HEIGHT, STEPS, SEED = 128, 96, 4, 7
SIZE = f"{WIDTH}x{HEIGHT}"


@dataclass(frozen=True)
class Live:
    """A live server with doodle, and a copy of it called "twin", by its native API."""

    url: str
    key: str | None = None

    @property
    def host(self) -> str:
        """Its host."""
        return self.url.removeprefix("http://").rpartition(":")[0]

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer to a request that has to succeed."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        answer = httpx.request(method, self.url + path, headers=headers, timeout=300, **options)
        return answer.raise_for_status()

    def files(self, **fields: Any) -> list[bytes]:
        """The pictures of a small request with these `fields`, as PNGs with metadata."""
        small = {"prompt": PROMPT, "width": WIDTH, "height": HEIGHT, "steps": STEPS, "n": 1}
        body = {key: value for key, value in {**small, **fields}.items() if value is not None}
        reply = self.send("POST", "/generate", json=body).json()
        one = [{"img": reply["img"]}]
        return [base64.b64decode(each["img"]) for each in reply.get("images", one)]

    def draw(self, **fields: Any) -> list[Pixels]:
        """The pixels of each of them."""
        return [pixels(data) for data in self.files(**fields)]

    def drawn(self) -> int:
        """The pictures that it has finished since its start."""
        text = self.send("GET", "/metrics").text
        found = re.search(r"^imagine_pictures_total (\S+)$", text, re.MULTILINE)
        assert found is not None
        return int(float(found[1]))

    def jobs(self) -> list[dict[str, Any]]:
        """What it draws at the moment, and what waits."""
        jobs: list[dict[str, Any]] = self.send("GET", "/ps").json()["jobs"]
        return jobs


def opened(data: bytes) -> Image.Image:
    """An encoded picture, decoded."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def pixels(data: bytes | Image.Image) -> Pixels:
    """The pixels of a picture, height x width x 3."""
    image = data if isinstance(data, Image.Image) else opened(data)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def same(found: list[Pixels], expected: list[Pixels]) -> bool:
    """Whether these are the same pictures."""
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


def distance(one: Pixels, other: Pixels) -> float:
    """The root of the mean squared difference, of 255."""
    return float(np.sqrt(np.mean((one - other) ** 2.0)))


def png(image: Pixels) -> bytes:
    """The pixels as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image.astype("uint8")).save(buffer, "PNG")
    return buffer.getvalue()


def base64_of(data: bytes) -> str:
    """The data as text, as JSON has it."""
    return base64.b64encode(data).decode()
