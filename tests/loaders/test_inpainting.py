"""Inpainting models' own inputs against diffusers' inpainting pipelines, in float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from checkpoints import TINY_SD1, TINY_SD2, TINY_SDXL, Layout, inpainting, write_checkpoint
from imagine_core.engine.forward import stack
from imagine_plugins.loaders import inpainting as module
from reference import load, picture, single_file_pipeline

LAYOUTS = {"sd1": TINY_SD1, "sd2": TINY_SD2, "sdxl": TINY_SDXL}
SIZE = (96, 64)


@pytest.fixture(scope="module", params=LAYOUTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same random checkpoint, by our loader and by diffusers' inpainting pipeline."""
    import diffusers

    layout: Layout = inpainting(LAYOUTS[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    path = write_checkpoint(folder / "tiny.safetensors", layout)
    plain = single_file_pipeline(path, layout, folder / "configs")
    several = len(layout.texts) > 1
    kind: Any = getattr(diffusers, f"StableDiffusion{'XL' * several}InpaintPipeline")
    theirs = kind(**plain.components)
    theirs.set_progress_bar_config(disable=True)
    return SimpleNamespace(name=request.param, ours=load(path), theirs=theirs)


def hole(size: tuple[int, int] = SIZE) -> Image.Image:
    """A mask whose borders lie across cells."""
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse((size[0] // 3 + 1, 9, size[0] - 11, size[1] - 6), fill=255)
    return mask


def encode(model: Any, prompt: str, size: tuple[int, int] = SIZE) -> Any:
    return model.encode_prompt(prompt, clip_skip=1, width=size[0], height=size[1])


def forwards(pair: Any, **options: Any) -> list[Any]:
    """What diffusers' pipeline gives its UNet at each step, and what comes of it."""
    seen = []

    def note(_: object, args: Any, kwargs: Any, output: Any) -> None:
        del kwargs
        seen.append(SimpleNamespace(inputs=args[0], time=args[1], output=output[0]))

    hook = pair.theirs.unet.register_forward_hook(note, with_kwargs=True)
    try:
        pair.theirs(
            prompt="a red cat",
            negative_prompt="grey",
            width=SIZE[0],
            height=SIZE[1],
            num_inference_steps=3,
            guidance_scale=5.0,
            generator=torch.Generator().manual_seed(7),
            output_type="latent",
            **options,
        )
    finally:
        hook.remove()
    return seen


@pytest.mark.parametrize("strength", [1.0, 0.7])
def test_every_forward_is_that_of_diffusers_inpainting_pipeline(pair: Any, strength: float) -> None:
    image, mask = picture(*SIZE), hole()
    theirs = forwards(pair, image=image, mask_image=mask, strength=strength)
    generator = torch.Generator().manual_seed(7)
    if strength < 1:
        pair.ours.encode_image(image, generator)
    torch.randn(1, 4, SIZE[1] // 4, SIZE[0] // 4, generator=generator)
    extras = pair.ours.encode_mask(image, mask, generator)
    rows = [encode(pair.ours, prompt) for prompt in ("grey", "a red cat")]
    rows = [replace(row, extras={**row.extras, **extras}) for row in rows]
    assert len(theirs) == (3 if strength == 1 else 2)
    for each in theirs:
        torch.testing.assert_close(extras["inpaint"], each.inputs[:1, 4:], atol=1e-4, rtol=0)
        times = torch.full((2,), float(each.time))
        prediction = pair.ours.predict(each.inputs[:, :4], times, stack(rows))
        assert (prediction - each.output).abs().max() <= 1e-3


def test_without_a_mask_the_model_reads_a_grey_picture_that_is_masked_as_a_whole(
    pair: Any,
) -> None:
    white, grey = Image.new("L", SIZE, 255), Image.new("RGB", SIZE, (9, 99, 200))
    theirs = forwards(pair, image=grey, mask_image=white, strength=1.0)[0].inputs[:1, 4:]
    ours = encode(pair.ours, "a cat").extras["inpaint"]
    assert ours.shape == (1, 5, 16, 24)
    assert bool((ours[:, 0] == 1).all())
    # theirs is drawn, and ours the mean of what it is drawn from
    vae = pair.theirs.vae
    with torch.no_grad():
        posterior = vae.encode(torch.zeros(1, 3, SIZE[1], SIZE[0])).latent_dist
    spread = posterior.std * vae.config.scaling_factor
    assert bool(((ours[:, 1:] - theirs[:, 1:]).abs() <= 6 * spread + 1e-4).all())


def test_rows_with_and_without_a_mask_share_a_forward_and_are_each_alone(pair: Any) -> None:
    plain = encode(pair.ours, "a cat")
    extras = pair.ours.encode_mask(picture(*SIZE), hole(), torch.Generator().manual_seed(1))
    masked = replace(plain, extras={**plain.extras, **extras})
    latents, times = torch.randn(2, 4, 16, 24), torch.tensor([900.0, 20.0])
    both = pair.ours.predict(latents, times, stack([plain, masked]))
    for row, conditioning in enumerate((plain, masked)):
        at = slice(row, row + 1)
        alone = pair.ours.predict(latents[at], times[at], conditioning)
        assert (both[at] - alone).abs().max() <= 1e-5
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_a_size_between_cells_is_padded_with_the_last_pixels(pair: Any) -> None:
    size = (37, 50)
    image, mask = picture(*size), hole(size)
    padded = [
        Image.fromarray(np.pad(np.asarray(each), ((0, 2), (0, 3), (0, 0))[: 1 + axes], mode="edge"))
        for each, axes in ((image, 2), (mask, 1))
    ]
    found = [
        pair.ours.encode_mask(*each, torch.Generator().manual_seed(1))["inpaint"]
        for each in ((image, mask), padded)
    ]
    assert found[0].shape == (1, 5, 13, 10)
    assert torch.equal(*found)
    assert encode(pair.ours, "a cat", size).extras["inpaint"].shape == (1, 5, 13, 10)


def test_what_the_mask_covers_does_not_reach_the_model(pair: Any) -> None:
    mask = hole()
    images = [picture(*SIZE), picture(*SIZE)]
    images[1].paste((255, 0, 0), mask=mask)
    first, second = (
        pair.ours.encode_mask(image, mask, torch.Generator().manual_seed(1))["inpaint"]
        for image in images
    )
    assert torch.equal(first, second)


def test_a_model_of_four_channels_has_no_inputs_for_masks(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path / "m.safetensors", TINY_SD1))
    assert encode(model, "a cat").extras == {}


def test_the_grey_picture_is_encoded_once_for_each_of_the_last_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(write_checkpoint(tmp_path / "m.safetensors", inpainting(TINY_SD1)))
    monkeypatch.setattr(module, "KEPT", 2)
    sizes = []
    grey = model.autoencoder.grey

    def note(height: int, width: int) -> Any:
        sizes.append((width, height))
        return grey(height, width)

    monkeypatch.setattr(model.autoencoder, "grey", note)
    for width in (16, 32, 16, 48, 64, 15):
        encode(model, "a cat", (width, 8))
    assert sizes == [(4, 2), (8, 2), (12, 2), (16, 2), (4, 2)]
