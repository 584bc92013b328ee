"""Checkpoints of the families' real sizes: whole, right, and within bounds of memory and time."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import SD1, SD2, SDXL, Layout, write_checkpoint
from reference import load, single_file_pipeline

pytestmark = pytest.mark.slow

PROMPT = "a photo of a (red:1.0) cat"


@pytest.fixture(scope="module", params=[SD1, SD2], ids=["sd1", "sd2"])
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A full-size fp16 checkpoint and its layout; removed when its tests are done."""
    layout: Layout = request.param
    path = tmp_path_factory.mktemp("full") / f"{layout.name}.safetensors"
    yield write_checkpoint(path, layout), layout
    path.unlink()


def outputs(text: Any, unet: Any, vae: Any) -> list[torch.Tensor]:
    """What each part makes of the same input, in float32."""
    generator = torch.Generator().manual_seed(11)
    context = text(PROMPT.replace("(", "").replace(":1.0)", ""))
    latents = torch.randn(1, 4, 24, 24, generator=generator)
    with torch.no_grad():
        prediction = unet(latents, torch.tensor([601.0]), encoder_hidden_states=context).sample
        pixels = vae.decode(torch.randn(1, 4, 16, 16, generator=generator)).sample
    return [context, prediction, pixels]


@pytest.mark.timeout(1800)
def test_a_full_checkpoint_equals_diffusers_own_loading(
    tmp_path: Path, full: tuple[Path, Layout]
) -> None:
    path, layout = full
    ours = load(path, full_precision=True)

    def ours_text(prompt: str) -> torch.Tensor:
        context: torch.Tensor = ours.encode_prompt(prompt, clip_skip=1, width=1, height=1).context
        return context

    found = outputs(ours_text, ours.unet, ours.autoencoder.model)
    weighted = ours_text(PROMPT)
    ours.close()
    gc.collect()
    theirs = single_file_pipeline(path, layout, tmp_path)

    def theirs_text(prompt: str) -> torch.Tensor:
        with torch.no_grad():
            context: torch.Tensor = theirs.encode_prompt(prompt, torch.device("cpu"), 1, False)[0]  # noqa: FBT003 - diffusers' signature
        return context

    expected = outputs(theirs_text, theirs.unet, theirs.vae)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(weighted, expected[0])
    for ours_made, theirs_made in zip(found, expected, strict=True):
        assert theirs_made.abs().max() > 0.01
        assert (ours_made - theirs_made).abs().max() <= 1e-3


MEASURE = """
import sys, torch
from pathlib import Path
import diffusers, transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel
from imagine_plugins.loaders import hashing
from imagine_plugins.loaders.checkpoint import CheckpointLoader
from imagine_core.testing import FakeDevice

class Half(FakeDevice):
    def dtype(self):
        return torch.bfloat16

def status(entry):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(entry))

path = Path(sys.argv[1])
hashing.cache_file = lambda: path.with_suffix(".hash")
loader = CheckpointLoader()
info = loader.recognise(path)
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now
before = status("VmRSS")
model = loader.load(info, device=Half(), full_precision=False)
print((status("VmHWM") - before) / path.stat().st_size)
"""


@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak on Linux alone")
def test_casting_a_half_precision_file_takes_little_more_memory_than_the_file(
    full: tuple[Path, Layout],
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(full[0])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 0.8 < float(done.stdout) < 1.4


@pytest.mark.timeout(1800)
def test_a_full_sdxl_checkpoint_loads_and_predicts(tmp_path: Path) -> None:
    from reference import Half

    path = write_checkpoint(tmp_path / "sdxl.safetensors", SDXL, dtype="BF16")
    model = load(path, device=Half(torch.bfloat16))
    row = model.encode_prompt("a cat", clip_skip=1, width=1024, height=1024)
    assert row.context.shape == (1, 77, 2048)
    prediction = model.predict(torch.randn(1, 4, 16, 16), torch.tensor([500.0]), row)
    assert prediction.isfinite().all()
    assert model.decode(torch.randn(1, 4, 8, 8)).size == (64, 64)
    model.close()
    path.unlink()
