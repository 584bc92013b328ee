"""Files of PEFT and LyCORIS act here as they act there: `nox -s second_opinions` has both.

PEFT cannot be asked of files with other alphas than one, nor LyCORIS of what it merges itself
(`merge_to` applies the scale of LoHa and LoKr twice); both forwards are right.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import TINY_SD1, write_checkpoint
from imagine_core.parts import AppliedLora, Parts
from imagine_core.types import LoraUse
from imagine_plugins.loaders.adapters.lora_file import LoraFile
from imagine_plugins.loaders.adapters.reading import read_adapter
from reference import load

peft = pytest.importorskip("peft", reason="nox -s second_opinions installs it")
lycoris = pytest.importorskip("lycoris", reason="nox -s second_opinions installs it")

LIMIT = 1e-5
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "conv1", "conv2"]
HOW: dict[str, Any] = {"target_modules": LAYERS, "r": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny SD1."""
    return load(write_checkpoint(tmp_path_factory.mktemp("m") / "tiny.safetensors", TINY_SD1))


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 16, 16, generator=generator)
    return latents, torch.tensor([500.0, 20.0]), torch.randn(2, 77, 32, generator=generator)


@torch.no_grad()
def drawn(unet: Any) -> torch.Tensor:
    latents, times, context = inputs()
    output: torch.Tensor = unet(latents, times, encoder_hidden_states=context, return_dict=False)[0]
    return output


def ours(model: Any, file: Path) -> torch.Tensor:
    """The output of the model's own UNet while the file acts."""
    lora = LoraFile(file.stem, read_adapter(file))
    parts = Parts((AppliedLora(lora, LoraUse(name="x")),))
    assert model.rows.fit(parts) == ()
    with torch.no_grad(), model.rows.acting("unet", [parts, parts]):
        return drawn(model.unet)


def check(model: Any, file: Path, theirs: torch.Tensor) -> None:
    plain, made = drawn(model.unet), ours(model, file)
    scale = theirs.abs().max()
    assert (theirs - plain).abs().max() > 0.01 * scale  # or nothing was compared
    assert (made - theirs).abs().max() <= LIMIT * scale


CONFIGS = {
    "LoRA": lambda: peft.LoraConfig(**HOW, lora_alpha=2, init_lora_weights=False),
    "rsLoRA": lambda: peft.LoraConfig(
        **HOW, lora_alpha=2, use_rslora=True, init_lora_weights=False
    ),
    "DoRA": lambda: peft.LoraConfig(**HOW, lora_alpha=2, use_dora=True, init_lora_weights=False),
    "LoHa": lambda: peft.LoHaConfig(**HOW, alpha=2, init_weights=False),
    "LoKr": lambda: peft.LoKrConfig(**HOW, alpha=2, init_weights=False),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_peft_saves_acts_as_in_peft(model: Any, tmp_path: Path, kind: str) -> None:
    torch.manual_seed(1)
    changed = peft.get_peft_model(copy.deepcopy(model.unet), CONFIGS[kind]()).eval()
    with torch.no_grad():
        for name, value in changed.named_parameters():
            if "lora_A" in name or "lora_B" in name or "lokr_" in name:
                value.mul_(0.5)
            elif "hada_" in name:
                value.mul_(1.5)
    changed.save_pretrained(tmp_path / "style")
    check(model, tmp_path / "style" / "adapter_model.safetensors", drawn(changed))


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr", "full"])
def test_what_lycoris_saves_acts_as_in_lycoris(model: Any, tmp_path: Path, kind: str) -> None:
    torch.manual_seed(2)
    unet = copy.deepcopy(model.unet)
    lycoris.LycorisNetwork.apply_preset({"target_name": [f".*{name}" for name in LAYERS]})
    how = {"linear_dim": 4, "linear_alpha": 2, "conv_dim": 4, "conv_alpha": 2, "algo": kind}
    network = lycoris.create_lycoris(unet, 1.0, **how)
    network.apply_to()
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn_like(value) * (0.3 if kind == "loha" else 0.05))
    file = tmp_path / "style.safetensors"
    network.save_weights(str(file), torch.float32, {})
    check(model, file, drawn(unet))
