"""Masks beside LoRAs, seamless pictures, the hires fix and requests that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines import RED, pixels, together
from imagine_core import GenerationRequest, GenerationResult
from imagine_core.engine import Engine
from imagine_core.engine import engine as engine_module
from imagine_core.errors import GenerationFailed, OutOfMemory
from imagine_core.pictures.images import resized
from imagine_core.settings import Settings
from imagine_core.testing import FakeModel, FakePlugin, build_test_engine, collect, draw_one
from imagine_core.types import LoraUse
from sent_pictures import box_mask, encoded, noise

START = noise()
BOX = (16, 16, 40, 48)
MASKED = replace(
    RED,
    init_image=encoded(START),
    mask=encoded(box_mask(BOX)),
    mask_blur=0.0,
    strength=0.75,
    steps=40,
)
INK = (LoraUse(name="ink"),)
WOOL = (LoraUse(name="wool", weight=0.3), LoraUse(name="ink", weight=-0.5))


@pytest.fixture
def engine(tmp_path: Path, fake: FakePlugin) -> Iterator[Engine]:
    folder = tmp_path / "models"
    for name in ("tiny.fake", "loras/ink.fake", "loras/wool.fake"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"fake")
    engine = build_test_engine(folder, fake, settings=Settings(models=folder, max_rows=32))
    yield engine
    engine.close(grace=0)


def kept(request: GenerationRequest, result: GenerationResult) -> bool:
    """Whether the picture is the one that it came with outside the mask."""
    drawn = pixels(result)
    size = (drawn.shape[1], drawn.shape[0])
    large = size != START.size
    assert large == (request.hires_keeps and request.mask_padding is None)
    mask = resized(box_mask(BOX), size) if large else box_mask(BOX)
    outside = np.asarray(mask) == 0
    return bool((drawn[outside] == np.asarray(resized(START, size))[outside]).all())


def test_masks_with_loras_share_forwards_and_are_what_they_are_alone(
    engine: Engine, fake: FakePlugin
) -> None:
    wants = [
        replace(MASKED, loras=INK),
        replace(MASKED, loras=WOOL, mask_padding=4),
        replace(MASKED, loras=WOOL, mask_fill="noise", images=2),
        MASKED,
        replace(RED, loras=INK, steps=40),
    ]
    alone = [draw_one(engine, want) for want in wants]
    assert len({pixels(result).tobytes() for result in alone}) == len(wants)
    (model,) = fake.loader.models
    model.forwards.clear()
    shared = together(engine, wants)
    assert max(model.forwards) == 2 * (len(wants) + 1)
    for want, one, other in zip(wants, alone, shared, strict=True):
        assert (pixels(one) == pixels(other)).all()
        assert want.mask is None or kept(want, other)


@pytest.mark.parametrize("tiling", ["x", "y", "xy"])
@pytest.mark.parametrize("padding", [None, 4])
def test_seamless_pictures_and_the_hires_fix_keep_what_the_mask_keeps(
    engine: Engine, tiling: str, padding: int | None
) -> None:
    for scale, keeps in ((None, False), (1.5, False), (1.5, True)):
        request = replace(
            MASKED,
            steps=4,
            tiling=tiling,
            mask_padding=padding,
            hires_scale=scale,
            hires_keeps=keeps,
        )
        result = draw_one(engine, request)
        assert kept(request, result)
        painted = pixels(result)[20:36, 20:36] != np.asarray(START)[20:36, 20:36]
        assert painted.any()


def test_a_masked_request_that_fails_in_company_leaves_the_others_as_they_are(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    wants = [replace(MASKED, seed=seed, loras=INK) for seed in range(3)]
    alone = [pixels(draw_one(engine, want)) for want in wants]
    predict = FakeModel.predict

    def poisoned(self: FakeModel, latents, timesteps, conditioning):  # type: ignore[no-untyped-def]
        import torch

        poison = torch.tensor(FakeModel.colour("poison"))
        if (conditioning.context == poison).all(dim=-1).any():
            raise RuntimeError("shapes do not match")
        return predict(self, latents, timesteps, conditioning)

    monkeypatch.setattr(FakeModel, "predict", poisoned)

    async def main() -> None:
        good = [asyncio.create_task(collect(engine, want)) for want in wants]
        with pytest.raises(GenerationFailed, match="'tiny' failed with RuntimeError"):
            await collect(engine, replace(MASKED, prompt="poison", mask_padding=8))
        for one, events in zip(alone, await asyncio.gather(*good), strict=True):
            assert isinstance(events[-1], GenerationResult)
            assert (pixels(events[-1]) == one).all()

    asyncio.run(main())


def test_memory_that_runs_out_as_pictures_are_put_together_is_said(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "finished", full)
        with pytest.raises(OutOfMemory, match="try fewer of them at once"):
            draw_one(engine, replace(MASKED, images=2))
    assert len(draw_one(engine, MASKED).images) == 1
