"""Clients of the package `webuiapi`, and what they draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from webuiapi import WebUIApi, WebUIApiResult

from clients.native import HEIGHT, PROMPT, SEED, STEPS, WIDTH, Live, Pixels, pixels

SMALL: dict[str, Any] = {
    "prompt": PROMPT,
    "width": WIDTH,
    "height": HEIGHT,
    "steps": STEPS,
    "seed": SEED,
}
DRAW: dict[str, Any] = {**SMALL, "sampler_name": "DPM++ 2M", "scheduler": "Karras"}


@contextmanager
def client_of(live: Live, *, address: str = "127.0.0.1", **options: Any) -> Iterator[WebUIApi]:
    """A client of `live` from this `address`; it is closed at the end."""
    api = WebUIApi(live.host, live.port, **options)
    pool = api.session.get_adapter(live.url).poolmanager
    pool.connection_pool_kw["source_address"] = (address, 0)
    with api.session:
        yield api


def pictures(result: WebUIApiResult) -> list[Pixels]:
    """The pixels of each picture."""
    assert all(image.format == "PNG" for image in result.images)
    return [pixels(image) for image in result.images]
