"""LoRAs: what four different ones cost beside none, what sharing brings, what a first use adds."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from crowd import at_once
from measure import interleaved, median, row, timed

from adapter_files import lora, named, save
from checkpoints import SD1, write_checkpoint
from imagine_core import GenerationRequest
from imagine_core.engine import Engine, build_engine
from imagine_core.parts import Layers
from imagine_core.plugins import build_plugins
from imagine_core.settings import Settings
from imagine_core.testing import draw_one
from imagine_core.types import LoraUse
from imagine_plugins.loaders import architectures
from imagine_plugins.loaders.adapters.modules import layers_of
from imagine_plugins.loaders.folder import examine

ROUNDS, FIRST_USES = 3, 9
RANK = 16
NAMES = ("a", "b", "c", "d")
TRAINED = ("attn1.to_", "attn2.to_", ".ff.net.", ".proj_in", ".proj_out")
"""Parts of the names of layers that kohya's trainer takes by default: 192 in SD1.5's UNet."""

DOODLE = Path(architectures.__file__).parents[1] / "doodle" / "models" / "doodle"


def loras() -> None:
    """SD1.5's size, then doodle: four requests at once, in float32."""
    row("figure", "value")
    row("---", "---")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder / "sd1.safetensors", SD1)
        _measure(folder, layers_of(architectures.SD1), "SD1.5 size", side=256, steps=2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(DOODLE, folder / "doodle")
        _measure(folder, layers_of(examine(DOODLE).architecture), "doodle", side=128, steps=20)


def _measure(folder: Path, layers: Layers, what: str, *, side: int, steps: int) -> None:
    (folder / "loras").mkdir()
    for number, name in enumerate((*NAMES, "new")):
        file = write_lora(folder / "loras" / f"{name}.safetensors", layers, seed=number)
    plain = [request(number, side, steps) for number in range(4)]
    changed = [replace(each, loras=(use(name),)) for each, name in zip(plain, NAMES, strict=True)]
    same = [replace(each, loras=(use("a"),)) for each in plain]
    with engine(folder, rows=8) as shared, engine(folder, rows=2) as apart:
        none, different, equal, one_by_one = interleaved(
            ROUNDS,
            *(partial(_at_once, shared, wants) for wants in (plain, changed, same)),
            partial(_at_once, apart, changed),
        )
        what = f"{what}, {side}x{side}"
        row(f"{what}: 4 LoRAs / none, 4 requests at once", ratio(different, none))
        row(f"{what}: one LoRA in all 4 / none", ratio(equal, none))
        row(f"{what}: a forward for each LoRA / one for all", ratio(one_by_one, different))
        new, known = [], []
        for _ in range(FIRST_USES):
            shared.unload("new")
            first = replace(plain[0], steps=1, width=64, height=64, loras=(use("new"),))
            new.append(timed(partial(draw_one, shared, first)))
            known.append(timed(partial(draw_one, shared, first)))
        size = file.stat().st_size / 2**20
        added = median([a - b for a, b in zip(new, known, strict=True)])
        row(f"{what}: a first use of {size:.1f} MB adds", f"{added:.3f} s")
        held = next(each for each in shared.status().loaded if each.name == "new")
        row(f"{what}: memory of a LoRA / its file", f"{held.memory / file.stat().st_size:.2f}")


def write_lora(path: Path, layers: Layers, *, seed: int) -> Path:
    """A LoRA of the usual layers, in float16, small enough to leave a picture."""
    tensors: dict[str, torch.Tensor] = {}
    for number, (name, shape) in enumerate(layers.shapes.items()):
        if name.startswith("unet.") and any(part in name for part in TRAINED) and len(shape) > 1:
            made = lora(shape, rank=RANK, alpha=0.01, seed=1000 * seed + number, dtype=torch.half)
            tensors |= named(made, f"lora_{name.replace('.', '_')}")
    return save(path, tensors)


def request(number: int, side: int, steps: int) -> GenerationRequest:
    """One of four requests."""
    return GenerationRequest(
        prompt=f"house {number}",
        steps=steps,
        width=side,
        height=side,
        sampler="euler",
        seed=number,
    )


def use(name: str) -> LoraUse:
    """A LoRA of the UNet alone, so that prompts are encoded once."""
    return LoraUse(name=name, weight=0.8, text_weight=0.0)


@contextmanager
def engine(folder: Path, *, rows: int) -> Iterator[Engine]:
    """An engine in float32 whose forwards have so many rows."""
    settings = Settings(models=folder, device="cpu", full_precision=True, max_rows=rows)
    made = build_engine(settings, build_plugins())
    yield made
    made.close(grace=0)


def _at_once(engine: Engine, wants: Sequence[GenerationRequest]) -> None:
    asyncio.run(at_once(engine, list(wants)))


def ratio(ours: Sequence[float], others: Sequence[float]) -> str:
    """Median of the ratios of each round."""
    return f"{median([a / b for a, b in zip(ours, others, strict=True)]):.3f}"
