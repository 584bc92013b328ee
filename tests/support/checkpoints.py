"""Writes checkpoints and folders of random weights for tests of loaders.

path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SD1)     # 4 MB, loads in 0.2 s
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpoint_keys import Shapes, shapes
from layouts import (
    SD1,
    SD2,
    SDXL,
    TINY_SD1,
    TINY_SD2,
    TINY_SDXL,
    Layout,
    clip_config,
    configs,
    inpainting,
)

__all__ = [
    "SD1",
    "SD2",
    "SDXL",
    "TINY_SD1",
    "TINY_SD2",
    "TINY_SDXL",
    "Layout",
    "clip_config",
    "configs",
    "header_bytes",
    "inpainting",
    "shapes",
    "write_checkpoint",
    "write_folder",
    "write_hollow",
]

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I8": 1} | dict.fromkeys(
    ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ"), 1
)
TORCH = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I8": "int8",
}


def header_bytes(
    tensors: Mapping[str, Sequence[int]],
    *,
    dtype: str | Mapping[str, str] = "F16",
    metadata: Mapping[str, str] | None = None,
) -> tuple[bytes, int]:
    """A safetensors header with its length prefix, and the number of bytes of data."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for key, shape in tensors.items():
        kind = _dtype(key, dtype)
        end = at + math.prod(shape) * BYTES[kind]
        entries[key] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, at


def write_hollow(
    path: Path,
    tensors: Mapping[str, Sequence[int]],
    *,
    dtype: str | Mapping[str, str] = "F16",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A sparse file: a valid header, then zeros that take no disk space."""
    head, size = header_bytes(tensors, dtype=dtype, metadata=metadata)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    return path


def write_checkpoint(  # noqa: PLR0913 - each is one oddity of files in the wild
    path: Path,
    layout: Layout,
    *,
    dtype: str = "F16",
    seed: int = 0,
    embed: bool | None = None,
    drop: Collection[str] = (),
    metadata: Mapping[str, str] | None = None,
    markers: Iterable[str] = (),
    scale: Mapping[str, float] | None = None,
) -> Path:
    """A checkpoint of random weights that gives finite pictures.

    Args:
        path: Where to write it.
        layout: The layout.
        dtype: The dtype of its floats.
        seed: The weights'.
        embed: Whether the metadata has the configuration, which a size of our own needs;
            None embeds it for layouts that are not full-size.
        drop: Keys to leave out.
        metadata: Further metadata.
        markers: Names of empty tensors to add: "v_pred", "ztsnr".
        scale: What to multiply tensors with, by the end of their keys.
    """
    if embed is None:
        embed = layout.channels[0] != 320
    held = dict(metadata or {})
    if embed:
        held["imagine.config"] = json.dumps(configs(layout))
    wanted = {key: shape for key, shape in shapes(layout).items() if key not in set(drop)}
    kept = wanted | dict.fromkeys(markers, (0,))
    head, _ = header_bytes(kept, dtype=dtype, metadata=held)
    with path.open("wb") as file:
        file.write(head)
        for data in _random_data(wanted, dtype, seed, scale or {}):
            file.write(data)
    return path


def _dtype(key: str, dtype: str | Mapping[str, str]) -> str:
    if not isinstance(dtype, str):
        return dtype.get(key, "F16")
    return "I64" if key.endswith("position_ids") else dtype


def _random_data(
    tensors: Shapes, dtype: str, seed: int, scale: Mapping[str, float]
) -> Iterator[bytes]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    for key, shape in tensors.items():
        if key.endswith("position_ids"):
            value = torch.arange(77).expand(shape)
        else:
            factor = math.prod(by for end, by in scale.items() if key.endswith(end))
            value = (_random(key, shape, generator) * factor).to(getattr(torch, TORCH[dtype]))
        flat = value.contiguous().reshape(-1).view(torch.uint8)
        yield flat.numpy().tobytes()


def _random(key: str, shape: tuple[int, ...], generator: Any) -> Any:
    """Norms near one, biases near zero, other weights scaled to keep activations in range."""
    import torch

    value = torch.randn(shape, generator=generator)
    if key.endswith((".bias", "_bias")):
        return value * 0.02
    if len(shape) < 2:
        return 1 + value * 0.05
    if "embedding" in key:
        return value * 0.1
    return value * (0.8 / math.sqrt(math.prod(shape[1:])))


def write_folder(
    path: Path, layout: Layout, *, seed: int = 0, dtype: str = "F32", variant: str = ""
) -> Path:
    """A diffusers folder of random weights, written by diffusers and transformers themselves."""
    import diffusers
    import torch
    import transformers

    torch.manual_seed(seed)
    files = configs(layout)
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(json.dumps(content), "utf-8")
    kind = getattr(torch, TORCH[dtype])
    unet = diffusers.UNet2DConditionModel.from_config(files["unet/config.json"])
    vae = diffusers.AutoencoderKL.from_config(files["vae/config.json"])
    modules = {"unet": unet, "vae": vae}
    for number, text in enumerate(layout.texts):
        suffix = "_2" * number
        name = f"CLIPTextModel{'WithProjection' * bool(number)}"
        config = transformers.CLIPTextConfig(**clip_config(text))
        modules[f"text_encoder{suffix}"] = getattr(transformers, name)(config)
    for name, module in modules.items():
        module.to(kind).save_pretrained(path / name, variant=variant or None)
    return path
