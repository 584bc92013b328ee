"""Builds and runs requests on an engine with the fake model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from imagine_core import (
    GenerationRequest,
    GenerationResult,
    ResolvedRequest,
)
from imagine_core.engine import Engine
from imagine_core.testing import collect

TEN_SAMPLERS = (
    *("ddim", "euler", "euler a", "heun", "lms"),
    *("dpm++ 2m", "dpm++ 2s", "dpm++ sde", "dpm2", "dpm2 a"),
)
"""Those that everybody asks for."""

RED = ResolvedRequest(
    prompt="red",
    sampler="test euler",
    steps=4,
    guidance_scale=2.0,
    width=64,
    height=64,
    seed=1,
)


def pixels(result: GenerationResult, index: int = 0) -> np.ndarray:
    return np.asarray(result.images[index].image)


def together(engine: Engine, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
    """The results of concurrent requests."""

    async def main() -> list[GenerationResult]:
        lists = await asyncio.gather(*(collect(engine, request) for request in requests))
        return [events[-1] for events in lists]  # type: ignore[misc]

    return asyncio.run(main())


def png(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def mixed(count: int) -> list[ResolvedRequest]:
    """Requests of one size that differ in all else: prompt, seed, steps, guidance, start."""
    return [
        replace(
            RED,
            prompt=f"prompt {n} " + "long " * (90 if n % 5 == 0 else 0),
            seed=n,
            steps=6 + n % 4,
            guidance_scale=(1.0, 1.5, 2.5)[n % 3],
            init_image=png((n * 9, 90, 200)) if n % 4 == 3 else None,
            strength=0.7,
        )
        for n in range(count)
    ]


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)
