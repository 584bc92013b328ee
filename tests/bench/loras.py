"""Four requests with four LoRAs in one forward, beside the same four without, and one by one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import interleaved, median, row, timed
from torch import nn

from adapter_files import save
from doodle.unet import CONFIG
from imagine_core.parts import AppliedLora, Layers, Lora, Parts
from imagine_core.types import LoraUse
from imagine_plugins.loaders.adapters.lora_file import LoraFile
from imagine_plugins.loaders.adapters.modules import layers_of
from imagine_plugins.loaders.adapters.reading import read_adapter
from imagine_plugins.loaders.adapters.rows import Rows
from imagine_plugins.loaders.architectures import SD1

RANK, LORAS, ROUNDS = 16, 4, 5


def loras() -> None:
    """float32, rank 16 on all of the transformers; each request has two rows, for guidance."""
    row(
        "UNet",
        "latent",
        "mixed / without",
        "four forwards / mixed",
        "four / one without",
        "hooks ms",
    )
    row("---", "---", "---", "---", "---", "---")
    with tempfile.TemporaryDirectory() as folder:
        compare("SD1.5", SD1.unet, 16, Path(folder))
        for size in (8, 16):
            compare("doodle", CONFIG, size, Path(folder))
        used_first(Path(folder))


def compare(name: str, config: Any, size: int, folder: Path) -> None:
    """One row of the table."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_config(dict(config)).eval().requires_grad_(requires_grad=False)
    shapes = {
        f"unet.{path}": tuple(module.weight.shape[:2])
        for path, module in unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and ".attentions." in path
    }
    layers = Layers(family="bench", shapes=shapes)
    rows = Rows(layers, {"unet": unet})
    files = [opened(written(folder / f"{number}.safetensors", layers)) for number in range(LORAS)]
    each = [Parts((AppliedLora(lora, LoraUse(name="x")),)) for lora in files]
    draw = partial(forward, unet, rows, size=size)
    works: list[Callable[[], object]] = [
        partial(draw, [[]], count=2 * LORAS),
        partial(draw, [[parts for parts in each for _ in "12"]], count=2 * LORAS),
        partial(draw, [[parts] * 2 for parts in each], count=2),
        partial(draw, [[] for _ in each], count=2),
    ]
    none, mixed, alone, plain = map(median, interleaved(ROUNDS, *works))
    hooks = timed(partial(hooked, rows, [parts for parts in each for _ in "12"]))
    figures = (mixed / none, alone / mixed, plain / none, hooks * 1000)
    row(name, str(size), *(f"{figure:.2f}" for figure in figures))


def used_first(folder: Path) -> None:
    """What a LoRA costs that was never used before, at SD1.5's size."""
    from diffusers import UNet2DConditionModel

    layers = layers_of(SD1)
    attention = {
        name: shape
        for name, shape in layers.shapes.items()
        if ".attentions." in name and len(shape) == 2
    }
    path = written(folder / "new.safetensors", Layers(family="sd1", shapes=attention))
    unet = UNet2DConditionModel.from_config(dict(SD1.unet)).requires_grad_(requires_grad=False)
    rows = Rows(layers, {"unet": unet})

    def use() -> None:
        parts = Parts((AppliedLora(opened(path), LoraUse(name="x")),))
        rows.fit(parts)
        rows.prepare("unet", parts)

    use()
    seconds = median([timed(use) for _ in range(ROUNDS)])
    print(f"\n{path.stat().st_size / 1e6:.1f} MB are read, fitted and prepared in {seconds:.3f} s")


def forward(unet: Any, rows: Rows, several: list[list[Parts]], *, count: int, size: int) -> None:
    """A forward of `count` rows for each list of the rows' parts."""
    channels, width = unet.config.in_channels, unet.config.cross_attention_dim
    latents, context = torch.randn(count, channels, size, size), torch.randn(count, 77, width)
    for parts in several:
        with torch.no_grad(), rows.acting("unet", parts):
            unet(latents, torch.full((count,), 500.0), encoder_hidden_states=context)


def hooked(rows: Rows, parts: list[Parts]) -> None:
    """Set the hooks of a forward, and take them off."""
    with rows.acting("unet", parts):
        pass


def written(path: Path, layers: Layers) -> Path:
    """A LoRA of random values in float16 on all of `layers`."""
    tensors: dict[str, torch.Tensor] = {}
    for name, (rows, columns) in layers.shapes.items():
        tensors[f"{name}.lora_A.weight"] = (torch.randn(RANK, columns) * 0.02).half()
        tensors[f"{name}.lora_B.weight"] = (torch.randn(rows, RANK) * 0.02).half()
    return save(path, tensors)


def opened(path: Path) -> Lora:
    """A LoRA in memory."""
    return LoraFile(path.stem, read_adapter(path))
