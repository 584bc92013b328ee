"""Sixteen mixed requests at once: forwards saved, and every picture against its solo run."""

from __future__ import annotations

import asyncio
import io
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measure import row

from engines import TEN_SAMPLERS
from imagine_core import GenerationRequest, GenerationResult
from imagine_core.engine import Engine, build_engine
from imagine_core.plugins import build_plugins
from imagine_core.settings import Settings
from imagine_core.testing import collect, draw_one


def crowd() -> None:
    """doodle at 256x256: every sampler of the readme, other steps, guidance, seeds, img2img."""
    engine = build_engine(Settings(models=Path("/nonexistent")), build_plugins())
    wants = requests(draw_one(engine, GenerationRequest(prompt="a house", width=256, height=256)))
    forwards = count_forwards()
    alone = {want: draw_one(engine, want) for want in wants}
    evaluations = len(forwards)  # alone, each has a forward of its own
    one_by_one = timed_each(engine, wants)
    forwards.clear()
    started = time.perf_counter()
    together = asyncio.run(at_once(engine, wants))
    seconds = time.perf_counter() - started
    shared = len(forwards)
    exact = asyncio.run(at_once(engine, [replace(want, deterministic=True) for want in wants]))
    engine.close()

    row("figure", "value")
    row("---", "---")
    row("evaluations / forwards", f"{evaluations / shared:.2f} ({evaluations} / {shared})")
    row("lowest PSNR against the solo run", f"{min(map(psnr, alone.values(), together)):.1f} dB")
    same = sum(map(identical, alone.values(), exact))
    row("bitwise equal with deterministic: true", f"{same} of {len(wants)}")
    row("seconds one after the other / at once", f"{one_by_one:.1f} / {seconds:.1f}")


def requests(start: GenerationResult) -> list[GenerationRequest]:
    """Sixteen requests, no two alike."""
    buffer = io.BytesIO()
    start.images[0].image.save(buffer, "PNG")
    return [
        GenerationRequest(
            prompt=("a red house by the sea", "a cat at night", "a green tree, watercolor")[n % 3],
            negative_prompt="" if n % 2 else "blurry",
            width=256,
            height=256,
            steps=12 + n,
            guidance_scale=(7.0, 4.5, 1.0, 9.0)[n % 4],
            sampler=TEN_SAMPLERS[n % len(TEN_SAMPLERS)],
            seed=n,
            init_image=buffer.getvalue() if n % 4 == 3 else None,
            strength=0.7,
        )
        for n in range(16)
    ]


def count_forwards() -> list[int]:
    """A list that gets the rows of each forward from now on."""
    from imagine_plugins.loaders.stable_diffusion import StableDiffusion

    predict, rows = StableDiffusion.predict, []

    def counting(model: Any, latents: Any, timesteps: Any, conditioning: Any) -> Any:
        rows.append(len(latents))
        return predict(model, latents, timesteps, conditioning)

    StableDiffusion.predict = counting  # type: ignore[method-assign, assignment]
    return rows


def timed_each(engine: Engine, wants: list[GenerationRequest]) -> float:
    """Seconds for all of `wants`, one after the other."""
    started = time.perf_counter()
    for want in wants:
        draw_one(engine, want)
    return time.perf_counter() - started


async def at_once(engine: Engine, wants: list[GenerationRequest]) -> list[GenerationResult]:
    """The results of `wants`, asked for at the same moment."""
    lists = await asyncio.gather(*(collect(engine, want) for want in wants))
    return [events[-1] for events in lists]  # type: ignore[misc]


def pixels(result: GenerationResult) -> np.ndarray:
    """The picture as numbers."""
    return np.asarray(result.images[0].image).astype(float)


def psnr(a: GenerationResult, b: GenerationResult) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = float(((pixels(a) - pixels(b)) ** 2).mean())
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def identical(a: GenerationResult, b: GenerationResult) -> bool:
    """Whether two pictures are equal to the last bit."""
    return a.images[0].image.tobytes() == b.images[0].image.tobytes()
