"""The built-in loaders pass the suite; samplers, devices and enhancers do beside their tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adapter_files import Made, dora, full, loha, lokr, lora, named, norm, save, tucker
from checkpoints import TINY_SD1, TINY_SDXL, write_checkpoint, write_folder
from imagine_core.models import hashing
from imagine_core.parts import Layers
from imagine_core.plugins import build_plugins
from imagine_core.testing import check_loader, check_lora
from imagine_plugins.loaders import plugin

ATTENTION = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1"
FORMS: dict[str, tuple[tuple[int, ...], Callable[..., Made]]] = {
    f"{ATTENTION}.to_q": ((320, 320), lora),
    f"{ATTENTION}.to_k": ((320, 320), loha),
    f"{ATTENTION}.to_v": ((320, 320), lokr),
    f"{ATTENTION}.to_out.0": ((320, 320), full),
    "unet.conv_in": ((320, 4, 3, 3), tucker),
    "unet.down_blocks.0.resnets.0.norm1": ((320,), norm),
    "text_encoder.encoder.layers.0.self_attn.q_proj": (
        (768, 768),
        lambda shape, **how: dora(lora(shape, **how), shape, "in", seed=1),
    ),
}
"""Layers of SD1, each with a form of change."""


@pytest.fixture(autouse=True)
def _own_hash_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "cache_file", lambda: tmp_path / "cache" / "hashes.json")


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: write_checkpoint(folder / "sd1.safetensors", TINY_SD1),
        lambda folder: write_checkpoint(folder / "sdxl.safetensors", TINY_SDXL),
        lambda folder: write_folder(folder / "sd1", TINY_SD1),
    ],
    ids=["an sd1 checkpoint", "an sdxl checkpoint", "a diffusers folder"],
)
def test_the_built_in_loaders_pass(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    check_loader(plugin, write(tmp_path), patience=60)


def test_they_pass_with_the_model_that_comes_with_imagine() -> None:
    (folder,) = build_plugins(only=["imagine-model-doodle"]).model_folders()
    check_loader(plugin, folder / "doodle", patience=60)


def test_the_loader_of_loras_passes_with_a_file_of_every_form(tmp_path: Path) -> None:
    layers = Layers(family="sd1", shapes={name: shape for name, (shape, _) in FORMS.items()})
    tensors: dict[str, torch.Tensor] = {}
    for name, (shape, make) in FORMS.items():
        made = make(shape, rank=4, alpha=2, seed=1, dtype=torch.float16)
        module = name.replace("text_encoder.", "te.text_model.").replace(".", "_")
        tensors |= named(made, f"lora_{module}")
    path = save(tmp_path / "forms.safetensors", tensors)
    check_lora(plugin, path, layers, patience=60)
