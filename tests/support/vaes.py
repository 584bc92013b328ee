"""Writes VAEs alone, in every layout that they come in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoints import SD1, Layout, configs, shapes, write_checkpoint

ROOT = "first_stage_model."


def vae_shapes(layout: Layout = SD1, root: str = "") -> dict[str, tuple[int, ...]]:
    """The tensors of a VAE in the original layout, with `root` before their names."""
    found = shapes(layout).items()
    return {root + key.removeprefix(ROOT): shape for key, shape in found if key.startswith(ROOT)}


def diffusers_shapes(kind: str = "AutoencoderKL", **config: Any) -> dict[str, tuple[int, ...]]:
    """The tensors of an autoencoder as diffusers saves them."""
    import diffusers
    import torch

    with torch.device("meta"):
        network = getattr(diffusers, kind).from_config({**SD1_VAE, **config})
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


SD1_VAE = configs(SD1)["vae/config.json"]


def authors_names(
    named: Mapping[str, Any], *, encoder: str | None = "", decoder: str | None = ""
) -> dict[str, Any]:
    """diffusers' tensors of a TAESD as its author names them; a half without a root is left out."""
    found: dict[str, Any] = {}
    for name, value in named.items():
        half, _, number, rest = name.split(".", 3)
        root = encoder if half == "encoder" else decoder
        if root is not None:
            found[f"{root}{int(number) + (half == 'decoder')}.{rest}"] = value
    return found


def write_vae(
    path: Path, layout: Layout, *, seed: int = 1, metadata: Mapping[str, str] | None = None
) -> Path:
    """The VAE of the checkpoint that `write_checkpoint` writes from the seed, in float32."""
    from safetensors.torch import load_file, save_file

    whole = write_checkpoint(path.with_name("whole.tmp"), layout, seed=seed, dtype="F32")
    held = {
        key.removeprefix(ROOT): value.clone()
        for key, value in load_file(whole).items()
        if key.startswith(ROOT)
    }
    whole.unlink()
    config = {"vae/config.json": configs(layout)["vae/config.json"]}
    save_file(held, path, metadata={"imagine.config": json.dumps(config), **(metadata or {})})
    return path


def tiny_autoencoder(seed: int = 0) -> Any:
    """A TAESD of random weights that gives ordinary pictures."""
    import torch
    from diffusers import AutoencoderTiny

    torch.manual_seed(seed)
    return AutoencoderTiny().eval()
