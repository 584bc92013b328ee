"""doodle can be retrained: training starts from nothing, and resumes."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from doodle import latents, train, unet
from engines import pixels, together
from imagine_core import GenerationRequest
from imagine_core.engine import build_engine
from imagine_core.plugins import build_plugins
from imagine_core.settings import Settings

SIZES = ((256, 256), (512, 512), (384, 256))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(latents, "PLAN", tuple((size, 1, 3) for size in SIZES))
    # a model that has learnt nothing shows as much after two steps as after all
    monkeypatch.setattr(unet, "sample", partial(unet.sample, steps=2))
    return tmp_path / "state"


def run(state: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    threads = str(torch.get_num_threads())
    monkeypatch.setattr(sys, "argv", ["train", "--state", str(state), "--threads", threads])
    sys.argv += ["--text-steps", "3", "--autoencoder-minutes", "0.01", *options]
    with torch.enable_grad():  # which other tests may have left off
        train.main()


def test_one_command_makes_a_model_and_a_second_one_goes_on_with_it(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(state, monkeypatch, "--unet-minutes", "0.02", "--export-to", str(state / "models" / "mine"))
    made = {path: path.stat().st_mtime_ns for path in (state / "latents").iterdir()}
    assert len(made) == len(SIZES)
    first = torch.load(state / "unet.pt", weights_only=True)
    assert first["step"] > 0
    said = capsys.readouterr().out
    for stage in ("tokenizer: ", "held-out PSNR ", "latents 256x256", "unet: ", "exported "):
        assert stage in said

    (state / "latents" / "512x512_001.pt").unlink()  # as if the first had been stopped there
    longer = first["seconds"] / 60 + 0.02
    run(state, monkeypatch, "--unet-minutes", str(longer))
    again = torch.load(state / "unet.pt", weights_only=True)
    assert again["step"] > first["step"]
    assert again["seconds"] > first["seconds"]
    assert "resumed unet.pt at step" in capsys.readouterr().out
    redrawn = {path for path, time in made.items() if path.stat().st_mtime_ns != time}
    assert [path.name for path in redrawn] == ["512x512_001.pt"]
    for number in (first["step"], again["step"]):
        with Image.open(state / "samples" / f"unet_{number:06d}.png") as sheet:
            assert sheet.size == (2048, 1024)

    settings = Settings(models=state / "models", device="cpu", full_precision=True)
    engine = build_engine(settings, build_plugins(block=["imagine-model-doodle"]))
    request = GenerationRequest(prompt="a red house", width=256, height=256, steps=2)
    (result,) = together(engine, [request])
    assert pixels(result).shape == (256, 256, 3)
    engine.close(grace=0)
