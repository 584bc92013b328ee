"""Models whose noise runs on straight lines, as the engine draws with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines import RED, pixels, together
from imagine_core import Conditioning, ModelInfo, ResolvedRequest
from imagine_core.engine import Engine
from imagine_core.engine.forward import stack
from imagine_core.noise import NoiseModel, RectifiedFlow
from imagine_core.testing import FakeModel, FakePlugin, draw_one
from imagine_plugins.samplers.flow import WALKS

SPREAD = 0.05


class FlowModel(FakeModel):
    """An exact model of pictures in one colour, on straight lines; the colour obeys a guidance.

    Tokens of its prompts may not be repeated: it reads their sum. Its noise depends on the size,
    and the sides of its latents are even.
    """

    latent_step = 2

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sizes: set[tuple[int, int]] = set()
        self.seen: list[Conditioning] = []

    def noise_at(self, width: int, height: int) -> NoiseModel:
        """More shift for larger pictures."""
        self.sizes.add((width, height))
        return RectifiedFlow(shift=1 + width * height / 512**2)

    def encode_prompt(self, prompt: str, **options: Any) -> Conditioning:
        """The colour, in as many tokens as there are words."""
        found = super().encode_prompt(prompt, **options)
        words = len(prompt.split())
        return replace(found, context=found.context.repeat(1, words, 1) / words, repeats=False)

    def predict(
        self, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """The mean velocity under x0 ~ N(colour, SPREAD^2)."""
        self.forwards.append(len(latents))
        self.seen.append(conditioning)
        assert latents.shape[2] % 2 == latents.shape[3] % 2 == 0
        mean = conditioning.context.sum(dim=1)[:, :, None, None]
        if "guidance" in conditioning.extras:
            mean = mean * conditioning.extras["guidance"][:, None, None, None]
        t = (timesteps / 1000)[:, None, None, None].clamp(1e-6, 1 - 1e-6)
        known = (1 - t) * SPREAD**2 / (((1 - t) * SPREAD) ** 2 + t**2)
        x0 = mean + known * (latents - (1 - t) * mean)
        return (latents - x0) / t


@pytest.fixture
def flow(
    fake: FakePlugin, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> tuple[Engine, FakePlugin]:
    """An engine whose model is a `FlowModel`."""
    recognise = fake.loader.recognise

    def changed(path: Path) -> ModelInfo | None:
        info = recognise(path)
        return info and replace(info, noise="flow", guidance="distilled")

    def load(info: ModelInfo, **options: Any) -> FlowModel:
        model = FlowModel(fake.loader._before, device=options["device"].torch_device())
        fake.loader.models.append(model)
        return model

    monkeypatch.setattr(fake.loader, "recognise", changed)
    monkeypatch.setattr(fake.loader, "load", load)
    return engine, fake


ASKED = replace(RED, sampler="euler", steps=12, guidance_scale=1.0, width=72, height=64)


def colour(prompt: str) -> np.ndarray:
    return (np.array(FakeModel.colour(prompt)[:3]) + 1) * 127.5


@pytest.mark.parametrize("sampler", WALKS)
def test_samplers_draw_with_a_flow_model(flow: tuple[Engine, FakePlugin], sampler: str) -> None:
    engine, _ = flow
    result = draw_one(engine, replace(ASKED, sampler=sampler))
    assert result.images[0].image.size == (72, 64), "odd cells were added and cut off again"
    assert pixels(result).mean(axis=(0, 1)) == pytest.approx(colour("red"), abs=2.5)


def test_the_noise_levels_are_those_of_the_size(flow: tuple[Engine, FakePlugin]) -> None:
    engine, fake = flow
    draw_one(engine, replace(ASKED, hires_scale=2.0))
    assert fake.loader.models[0].sizes == {(72, 64), (144, 128)}  # type: ignore[attr-defined]


def test_a_distilled_guidance_is_an_input_of_each_row(flow: tuple[Engine, FakePlugin]) -> None:
    engine, fake = flow
    asked = [replace(ASKED, distilled_guidance=value) for value in (0.5, 2.0)]
    weak, strong = (pixels(each).mean(axis=(0, 1)) for each in together(engine, asked))
    plain = colour("red") - 127.5
    assert weak - 127.5 == pytest.approx(plain * 0.5, abs=2.5)
    assert strong - 127.5 == pytest.approx(plain * 2, abs=2.5)
    assert set(fake.loader.models[0].forwards) <= {1, 2}, "one row a request"


def test_prompts_of_other_lengths_share_a_forward_and_are_not_repeated(
    flow: tuple[Engine, FakePlugin],
) -> None:
    engine, fake = flow
    asked = [
        replace(ASKED, prompt=prompt, negative_prompt="a b c", guidance_scale=2.0)
        for prompt in ("red", "red and blue and green", "red and blue")
    ]
    shared = together(engine, asked * 4)
    for request, result in zip(asked, shared, strict=False):
        alone = pixels(draw_one(engine, request)).astype(int)
        assert np.abs(pixels(result) - alone).max() <= 1
    seen = fake.loader.models[0].seen  # type: ignore[attr-defined]
    assert any({1, 3, 5} <= set(each.lengths) for each in seen)


def test_an_img2img_of_a_flow_model_starts_from_the_picture(
    flow: tuple[Engine, FakePlugin],
) -> None:
    from engines import png

    engine, _ = flow
    asked: ResolvedRequest = replace(ASKED, init_image=png((200, 30, 30)), strength=0.0)
    assert pixels(draw_one(engine, asked)).mean(axis=(0, 1)) == pytest.approx([200, 30, 30], abs=2)


def test_tokens_that_may_not_be_repeated_are_followed_by_zeros() -> None:
    rows = [
        Conditioning(context=torch.ones(1, tokens, 2) * tokens, repeats=False) for tokens in (2, 3)
    ]
    batch = stack(rows)
    assert (batch.lengths, batch.repeats) == ((2, 3), False)
    assert batch.context[:, :, 0].tolist() == [[2, 2, 0], [3, 3, 3]]
