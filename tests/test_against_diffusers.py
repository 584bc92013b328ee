"""The whole path, from prompt to pixels, against diffusers' own pipelines on the same weights."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, UNet2DConditionModel
from PIL import Image

from checkpoints import TINY_SD1, inpainting, write_folder
from control_nets import random_net
from imagine_core import ResolvedRequest
from imagine_core.engine import Engine, build_engine
from imagine_core.errors import GenerationFailed
from imagine_core.plugins import build_plugins
from imagine_core.settings import Settings
from imagine_core.testing import collect, draw_one
from imagine_core.types import ControlUse
from imagine_plugins.loaders.control_networks import LoadedControl

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "dpm++ 2m": "DPMSolverMultistepScheduler",
    "dpm++ 2s": "DPMSolverSinglestepScheduler",
    "dpm2": "KDPM2DiscreteScheduler",
    "dpm2 a": "KDPM2AncestralDiscreteScheduler",
}
NETS = ("edges", "depth")  # of random weights, all the same
SIZE = {"width": 64, "height": 64}
REQUEST = ResolvedRequest(
    prompt="a red house", negative_prompt="blurry", width=64, height=64, steps=6, seed=2**63 + 5
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_folder(folder / "tiny", TINY_SD1)
    write_folder(folder / "painter", inpainting(TINY_SD1))
    unet = UNet2DConditionModel.from_pretrained(folder / "tiny" / "unet")
    for seed, name in enumerate(NETS):
        random_net(unet, seed).save_pretrained(folder / "controlnet" / name)
    return folder


@pytest.fixture(scope="module")
def real(models: Path) -> Iterator[Engine]:
    settings = Settings(models=models, device="cpu", full_precision=True, default_model="tiny")
    engine = build_engine(settings, build_plugins())
    yield engine
    engine.close(grace=0)


@pytest.fixture(scope="module")
def pipelines(models: Path) -> dict[str, Any]:
    import diffusers

    kind = diffusers.StableDiffusionPipeline
    plain = kind.from_pretrained(models / "tiny", local_files_only=True, tokenizer=clip_tokenizer())
    from_image = diffusers.StableDiffusionImg2ImgPipeline(**plain.components)
    inpaint = diffusers.StableDiffusionInpaintPipeline(**plain.components)
    read = kind.from_pretrained(
        models / "painter", local_files_only=True, tokenizer=clip_tokenizer()
    )
    painter = diffusers.StableDiffusionInpaintPipeline(**read.components)
    pipes = {"txt2img": plain, "img2img": from_image, "inpaint": inpaint, "painter": painter}
    for pipe in pipes.values():
        pipe.set_progress_bar_config(disable=True)
    return pipes


def scheduled(pipe: Any, scheduler: str) -> Any:
    import diffusers

    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    return pipe


def clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    from imagine_plugins.loaders.vocabulary import clip_vocabulary

    vocabulary, merges = clip_vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def arguments() -> dict[str, Any]:
    return {
        "prompt": REQUEST.prompt,
        "negative_prompt": REQUEST.negative_prompt,
        "num_inference_steps": REQUEST.steps,
        "guidance_scale": REQUEST.guidance_scale,
        "generator": torch.Generator("cpu").manual_seed(REQUEST.seed or 0),
    }


def difference(ours: Image.Image, theirs: Image.Image) -> int:
    return int(np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int)).max())


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_txt2img_is_the_picture_that_diffusers_draws(
    real: Engine, pipelines: dict[str, Any], sampler: str
) -> None:
    pipe = scheduled(pipelines["txt2img"], SCHEDULERS[sampler])
    theirs = pipe(width=REQUEST.width, height=REQUEST.height, **arguments()).images[0]
    ours = draw_one(real, replace(REQUEST, sampler=sampler)).images[0].image
    assert difference(ours, theirs) <= 1


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_img2img_is_the_picture_that_diffusers_draws(
    real: Engine, pipelines: dict[str, Any], sampler: str
) -> None:
    start = Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 30).convert("RGB")
    pipe = scheduled(pipelines["img2img"], SCHEDULERS[sampler])
    theirs = pipe(image=start, strength=0.6, **arguments()).images[0]
    request = replace(REQUEST, sampler=sampler, init_image=encoded(start), strength=0.6)
    ours = draw_one(real, request).images[0].image
    assert difference(ours, theirs) <= 1


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpm++ 2m"])
@pytest.mark.parametrize("strength", [0.6, 0.9])
def test_inpainting_is_the_picture_that_diffusers_draws(
    real: Engine, pipelines: dict[str, Any], sampler: str, strength: float
) -> None:
    # diffusers blends latents of one noise after each step; these samplers never change theirs
    start = Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 30).convert("RGB")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (16, 8, 48, 56))  # whole cells, which both blend alike
    pipe = scheduled(pipelines["inpaint"], SCHEDULERS[sampler])
    theirs = pipe(image=start, mask_image=mask, strength=strength, **arguments(), **SIZE).images[0]
    request = replace(
        REQUEST,
        sampler=sampler,
        init_image=encoded(start),
        mask=encoded(mask),
        mask_blur=0.0,
        strength=strength,
    )
    ours = draw_one(real, request).images[0].image
    box = (16, 8, 48, 56)
    assert difference(ours.crop(box), theirs.crop(box)) <= 1
    kept = Image.composite(start, ours, mask)  # the same outside
    assert difference(Image.composite(ours, start, mask), ours) == 0
    assert difference(kept, ours) > 20


@pytest.mark.parametrize("sampler", ["ddim", "euler a", "dpm++ 2m"])
@pytest.mark.parametrize("strength", [0.6, 0.9])
def test_an_inpainting_model_paints_the_picture_that_diffusers_does(
    real: Engine, pipelines: dict[str, Any], sampler: str, strength: float
) -> None:
    start = Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 30).convert("RGB")
    mask = Image.new("L", (64, 64), 0)
    box = (18, 9, 51, 54)  # across cells
    mask.paste(255, box)
    pipe = scheduled(pipelines["painter"], SCHEDULERS[sampler])
    theirs = pipe(image=start, mask_image=mask, strength=strength, **arguments(), **SIZE).images[0]
    request = replace(
        REQUEST,
        model="painter",
        sampler=sampler,
        init_image=encoded(start),
        mask=encoded(mask),
        mask_blur=0.0,
        strength=strength,
    )
    ours = draw_one(real, request).images[0].image
    assert difference(ours.crop(box), theirs.crop(box)) <= 1
    assert difference(Image.composite(ours, start, mask), ours) == 0
    plain = draw_one(real, replace(request, mask=None)).images[0].image
    assert difference(plain.crop(box), ours.crop(box)) > 20


def hint(seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("sampler", ["ddim", "euler", "heun"])
@pytest.mark.parametrize("nets", [NETS[:1], NETS], ids=["one", "two"])
def test_controlnets_draw_the_picture_that_diffusers_draws(
    models: Path, real: Engine, pipelines: dict[str, Any], sampler: str, nets: tuple[str, ...]
) -> None:
    # both halves of the steps: diffusers counts those that are over, A1111 and Imagine those begun
    ends = (0.5, 1.0)
    loaded = [ControlNetModel.from_pretrained(models / "controlnet" / name) for name in nets]
    parts = {**pipelines["txt2img"].components, "controlnet": loaded}
    pipe = scheduled(StableDiffusionControlNetPipeline(**parts), SCHEDULERS[sampler])
    pipe.set_progress_bar_config(disable=True)
    count = len(nets)
    theirs = pipe(
        image=[hint(seed) for seed in range(count)],
        controlnet_conditioning_scale=[0.7, 1.2][:count],
        control_guidance_end=list(ends[:count]),
        **SIZE,
        **arguments(),
    ).images[0]
    uses = tuple(
        ControlUse(name=name, image=encoded(hint(seed)), weight=(0.7, 1.2)[seed], end=ends[seed])
        for seed, name in enumerate(nets)
    )
    ours = draw_one(real, replace(REQUEST, sampler=sampler, controls=uses)).images[0].image
    assert difference(ours, theirs) <= 1
    plain = draw_one(real, replace(REQUEST, sampler=sampler)).images[0].image
    assert difference(ours, plain) > 20


def test_a_controlnet_that_fails_fails_its_own_request_alone(
    real: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = LoadedControl.read

    def failing(self: LoadedControl, image: Image.Image, *args: Any, **options: Any) -> Any:
        if image.getpixel((0, 0)) == (255, 0, 0):
            raise RuntimeError("a kernel failed")
        return read(self, image, *args, **options)

    monkeypatch.setattr(LoadedControl, "read", failing)
    red = encoded(Image.new("RGB", (64, 64), (255, 0, 0)))
    use = ControlUse(name="edges", image=encoded(hint(3)))
    good = replace(REQUEST, controls=(use,))
    bad = replace(REQUEST, controls=(replace(use, image=red),))
    alone = [draw_one(real, request).images[0].image for request in (REQUEST, good)]

    async def crowd() -> list[Any]:
        runs = (collect(real, request) for request in (REQUEST, bad, good))
        return await asyncio.gather(*runs, return_exceptions=True)

    first, failed, last = asyncio.run(crowd())
    assert isinstance(failed, GenerationFailed)
    for solo, shared in zip(alone, (first, last), strict=True):
        assert difference(solo, shared[-1].images[0].image) <= 1


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_the_picture_depends_on_prompt_negative_prompt_guidance_and_clip_skip(
    real: Engine,
) -> None:
    plain = draw_one(real, REQUEST).images[0].image
    changes: list[dict[str, Any]] = [
        {"prompt": "a blue cat"},
        {"negative_prompt": "sharp"},
        {"guidance_scale": 3.0},
        {"clip_skip": 2},
        {"prompt": "a (red:1.4) house"},
        {"noise_schedule": "karras"},
    ]
    for change in changes:
        other = draw_one(real, replace(REQUEST, **change)).images[0].image
        assert difference(plain, other) > 0, change


def test_mixed_requests_at_once_are_their_solo_pictures(real: Engine) -> None:
    requests = [
        replace(REQUEST, sampler=name, steps=5 + n, seed=n, guidance_scale=1.0 + 2 * (n % 4))
        for n, name in enumerate(SCHEDULERS)
    ]
    alone = [draw_one(real, request).images[0].image for request in requests]

    async def crowd(wants: list[ResolvedRequest]) -> list[Any]:
        return [events[-1] for events in await asyncio.gather(*(collect(real, w) for w in wants))]

    for solo, shared in zip(alone, asyncio.run(crowd(requests)), strict=True):
        assert difference(solo, shared.images[0].image) <= 1
    exact = asyncio.run(crowd([replace(request, deterministic=True) for request in requests]))
    for solo, result in zip(alone, exact, strict=True):
        assert solo.tobytes() == result.images[0].image.tobytes()
