"""Convolutions that wrap around, in single rows of UNets and in autoencoders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from adapter_rows import made_lora, merged_by_hand, of_kind
from checkpoints import TINY_SD1, TINY_SDXL, write_checkpoint
from imagine_core.engine.forward import stack
from imagine_core.parts import Parts
from imagine_plugins.loaders.seamless import acting
from reference import load, picture

AXES = ["", "x", "y", "xy"]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=[TINY_SD1, TINY_SDXL], ids=["sd1", "sdxl"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny random model."""
    folder = tmp_path_factory.mktemp("models")
    return load(write_checkpoint(folder / "tiny.safetensors", request.param))


def rolled(x: torch.Tensor, axes: str, cells: int) -> torch.Tensor:
    dims = [{"x": -1, "y": -2}[axis] for axis in axes]
    return x.roll([cells] * len(dims), dims)


def random(*size: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def predict(model: Any, latents: torch.Tensor, axes: list[str]) -> torch.Tensor:
    row = model.encode_prompt("a cat", clip_skip=1, width=64, height=64)
    parts = [Parts(seamless=each) if each else None for each in axes]
    times = torch.full((len(axes),), 500.0)
    found: torch.Tensor = model.predict(latents, times, stack([row] * len(axes), parts))
    return found


# ----------------------------------------------------------------------------- one convolution


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": (0, 1)}, {"padding": (2, 1)}])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_pads_with_the_opposite_edge(
    axes: str, options: dict[str, Any], stride: int
) -> None:
    layer: Any = nn.Conv2d(3, 4, 5, stride=stride, **options)
    x = random(2, 3, 8, 10)
    above, left = layer.padding
    padded = functional.pad(x, (left, left, 0, 0), "circular" if "x" in axes else "constant")
    padded = functional.pad(padded, (0, 0, above, above), "circular" if "y" in axes else "constant")
    expected = functional.conv2d(padded, layer.weight, layer.bias, stride)
    with acting(nn.Sequential(layer), [axes]):
        found = layer(x)
    torch.testing.assert_close(found, expected)


def test_every_row_wraps_around_its_own_axes() -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1)
    x = random(5, 3, 6, 7)
    axes = [*AXES, ""]
    with acting(layer, axes):
        together = layer(x)
    for number, each in enumerate(axes):
        with acting(layer, [each]):
            alone = layer(x[number : number + 1])
        torch.testing.assert_close(together[number : number + 1], alone)
    assert (together[0] - together[3]).abs().max() > 1e-3


def settings_of(network: nn.Module) -> list[Any]:
    return [
        (layer._forward_pre_hooks.copy(), layer._forward_hooks.copy(), getattr(layer, "padding", 0))
        for layer in network.modules()
    ]


def test_nothing_is_touched_where_no_row_wraps(model: Any) -> None:
    before = settings_of(model.unet)
    with acting(model.unet, ["", ""]):
        assert settings_of(model.unet) == before


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind_even_where_a_layer_fails(model: Any, *, fails: bool) -> None:
    before = settings_of(model.unet), settings_of(model.autoencoder.model)

    def fail(*_: object) -> None:
        if fails:
            raise RuntimeError("broken")

    latents = random(1, 4, 8, 8)
    hooks = [
        model.unet.mid_block.register_forward_hook(fail),
        model.autoencoder.model.decoder.mid_block.register_forward_hook(fail),
    ]
    for work in (
        lambda: predict(model, latents, ["xy"]),
        lambda: model.codec(seamless="xy").decode(latents),
    ):
        if fails:
            with pytest.raises(RuntimeError, match="broken"):
                work()
        else:
            work()
    for hook in hooks:
        hook.remove()
    assert (settings_of(model.unet), settings_of(model.autoencoder.model)) == before


# ---------------------------------------------------------------------------------- the UNet


@pytest.mark.parametrize("axes", ["x", "y", "xy"])
def test_a_prediction_for_a_shifted_latent_is_the_shifted_prediction(model: Any, axes: str) -> None:
    latents = random(1, 4, 16, 24)
    shift = 4  # whole cells of the smallest map
    expected = rolled(predict(model, latents, [axes]), axes, shift)
    found = predict(model, rolled(latents, axes, shift), [axes])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    plain = rolled(predict(model, latents, [""]), axes, shift)
    assert (predict(model, rolled(latents, axes, shift), [""]) - plain).abs().max() > 1e-3


def test_rows_that_wrap_around_share_a_forward_with_rows_that_do_not(model: Any) -> None:
    axes = ["", "xy", "x", "y", ""]
    latents = random(len(axes), 4, 16, 8)
    together = predict(model, latents, axes)
    for number, each in enumerate(axes):
        alone = predict(model, latents[number : number + 1], [each])
        torch.testing.assert_close(together[number : number + 1], alone, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------- the autoencoder


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("axes", ["x", "y", "xy"])
def test_a_shifted_latent_is_the_shifted_picture(model: Any, axes: str, *, tiled: bool) -> None:
    codec = model.codec(seamless=axes, tiled=tiled)
    latent = random(1, 4, 12, 16)
    made, shifted = (
        torch.from_numpy(np.array(codec.decode(each), dtype=int)).movedim(-1, 0)
        for each in (latent, rolled(latent, axes, 3))
    )
    assert (rolled(made, axes, 3 * codec.downsampling) - shifted).abs().max() <= 1


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("axes", ["x", "y", "xy"])
def test_a_shifted_picture_is_the_shifted_latent(model: Any, axes: str, *, tiled: bool) -> None:
    from PIL import Image

    codec = model.codec(seamless=axes, tiled=tiled)
    image = np.asarray(picture(64, 48))
    dims = [{"x": 1, "y": 0}[axis] for axis in axes]
    moved = np.roll(image, [3 * codec.downsampling] * len(dims), dims)
    pixels = [torch.from_numpy(each.copy()).movedim(-1, 0)[None] for each in (image, moved)]
    mean, other = (codec.network.moments(each / 127.5 - 1) for each in pixels)
    torch.testing.assert_close(other, rolled(mean, axes, 3), atol=2e-4, rtol=0)
    generator = torch.Generator().manual_seed(1)
    assert codec.encode_image(Image.fromarray(image), generator).shape == (1, 4, 12, 16)


def test_previews_are_those_of_the_model(model: Any) -> None:
    latent = random(1, 4, 8, 8)
    plain = model.preview(latent).tobytes()
    assert model.codec(seamless="xy", tiled=True).preview(latent).tobytes() == plain


# ------------------------------------------------------------------------------------ with LoRAs


@pytest.mark.parametrize("kind", ["LoRA", "Tucker", "full", "all", "LoRA, DoRA in"])
def test_loras_wrap_around_as_if_they_were_in_the_weights(
    tmp_path: Path, model: Any, kind: str
) -> None:
    layers = model.rows._layers
    first, second = (
        made_lora(tmp_path / f"{seed}.safetensors", layers, of_kind(kind, seed=seed)).used(0.7)
        for seed in (1, 2)
    )
    row = model.encode_prompt("a cat", clip_skip=1, width=64, height=64)
    latents, times = random(3, 4, 16, 8), torch.full((3,), 500.0)
    wraps = ["xy", "", "x"]
    used = [[first], [first], [second]]
    parts = [
        Parts(tuple(each.applied for each in loras), seamless=axes)
        for loras, axes in zip(used, wraps, strict=True)
    ]
    together = model.predict(latents, times, stack([row] * 3, parts))
    for number, (loras, axes) in enumerate(zip(used, wraps, strict=True)):
        kept, model.unet = model.unet, merged_by_hand(model.unet, "unet", layers, loras)
        try:
            alone = predict(model, latents[number : number + 1], [axes])
        finally:
            model.unet = kept
        limit = 1e-5 * alone.abs().max().item()
        torch.testing.assert_close(together[number : number + 1], alone, atol=limit, rtol=0)
