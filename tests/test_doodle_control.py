"""doodle's ControlNet can be trained again, and follows the edges that it is shown."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from doodle import control
from imagine_plugins.preprocessors.canny import canny


def test_one_command_makes_a_controlnet_and_a_second_one_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control, "judge", lambda *_: {"F1": 0.5})
    monkeypatch.setattr(control, "show", lambda *_: None)
    state, threads = tmp_path / "state", str(torch.get_num_threads())
    for minutes in ("0.03", "0.06"):
        options = ["--minutes", minutes, "--scenes", "4", "--threads", threads]
        monkeypatch.setattr(sys, "argv", ["control", "--state", str(state), *options])
        with torch.enable_grad():  # which other tests may have left off
            control.main()
    said = capsys.readouterr().out
    assert "4 scenes are drawn" in said
    assert "resumed control.pt at step" in said
    assert "F1: 0.500" in said
    made = state / "doodle-canny"
    assert {file.name for file in made.iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }


def test_a_new_controlnet_changes_nothing() -> None:
    doodle = control.Doodle()
    net = control.new_control(doodle.unet)
    lesson = control.Lesson(doodle)
    with torch.no_grad():
        losses = []
        for each in (net, None):
            torch.manual_seed(1)
            latents = torch.zeros(2, 16, 16, 16)
            hints = torch.ones(2, 3, 256, 256)
            losses.append(float(lesson.loss(each, ["a cat", ""], latents, hints)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_woken_controlnet_sees_lines_as_strongly_as_noise() -> None:
    net = control.new_control(control.Doodle().unet)
    hint = Image.new("RGB", (256, 256))
    hint.paste("white", (64, 64, 66, 192))
    hints = torch.cat([control.pixels(turned) for turned in (hint, hint.rotate(90))])
    control.wake(net, hints)
    with torch.no_grad():
        seen = net.controlnet_cond_embedding(hints)
    assert seen.shape == (2, 64, 16, 16)  # as the latents that doodle denoises
    assert seen.mean((0, 2, 3)).abs().max() < 1e-2
    assert seen.std((0, 2, 3)).sub(1).abs().max() < 1e-2


def test_agreement_is_of_edges_within_two_pixels() -> None:
    square = Image.new("RGB", (64, 64), "black")
    square.paste("white", (16, 16, 48, 48))
    moved = Image.new("RGB", (64, 64), "black")
    moved.paste("white", (18, 17, 50, 49))
    far = Image.new("RGB", (64, 64), "black")
    far.paste("white", (30, 30, 62, 62))
    hint = canny(square)
    assert control.agreement(square, hint) == 1.0
    assert control.agreement(moved, hint) > 0.95
    assert control.agreement(far, hint) < 0.3
    assert control.agreement(Image.new("RGB", (64, 64)), hint) == 0.0


def test_hints_are_white_lines_on_black_some_with_gaps() -> None:
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (256, 256, 3), dtype=np.uint8))
    rng = random.Random(0)
    shares = [np.asarray(control.hint_of(image, rng)).mean() / 255 for _ in range(20)]
    assert max(shares) > 1.2 * min(shares)
    assert set(np.unique(np.asarray(control.hint_of(image, rng)))) <= {0, 255}
