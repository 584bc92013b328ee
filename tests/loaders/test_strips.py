"""Autoencoders in strips against the same ones at once, to rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from imagine_plugins.loaders import maps, strips
from imagine_plugins.loaders.network import Network
from imagine_plugins.loaders.seamless import acting

FULL: dict[str, Any] = {
    "block_out_channels": (16, 32, 32),
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 2,
    "norm_num_groups": 8,
}
ATTENTIVE: dict[str, Any] = {
    **FULL,
    "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
}
BARE: dict[str, Any] = {
    **FULL,
    "block_out_channels": (16,),
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "mid_block_add_attention": False,
}


def full(options: dict[str, Any]) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(**options)


def tiny() -> Any:
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        encoder_block_out_channels=(16, 16, 16),
        decoder_block_out_channels=(16, 16, 16),
        num_encoder_blocks=(1, 2, 2),
        num_decoder_blocks=(2, 2, 1),
    )


MODELS: dict[str, Callable[[], Any]] = {
    "full": lambda: full(FULL),
    "attentive": lambda: full(ATTENTIVE),
    "bare": lambda: full(BARE),
    "tiny": tiny,
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    """A random autoencoder whose group norms and convolutions are no identities."""
    torch.manual_seed(1)
    made = MODELS[request.param]().eval().to(memory_format=torch.channels_last)
    for layer in made.modules():
        if isinstance(layer, nn.GroupNorm):
            nn.init.normal_(layer.weight, 1.0, 0.3)
            nn.init.normal_(layer.bias, 0.0, 0.3)
    return made


@pytest.fixture(autouse=True)
def _many_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "STRIP", 1)  # so that all have the least number of rows
    monkeypatch.setattr(strips, "SCORES", 1000)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def random(*size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(1, *size, generator=generator) * torch.linspace(0.2, 3, size[1])[:, None]


def cells(model: Any) -> int:
    return Network(model=model).downsampling


SIZES = [(23, 9), (8, 8), (17, 1), (1, 5)]


@pytest.mark.parametrize("axes", ["", "x", "y", "xy"])
@pytest.mark.parametrize("size", SIZES)
def test_a_latent_is_decoded_as_at_once(model: Any, size: tuple[int, int], axes: str) -> None:
    latent = random(4, *size)
    with acting(model, [axes]):
        expected = model.decode(latent).sample
    torch.testing.assert_close(strips.decode(model, latent, axes), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("axes", ["", "x", "y", "xy"])
@pytest.mark.parametrize("size", SIZES)
def test_a_picture_is_encoded_as_at_once(model: Any, size: tuple[int, int], axes: str) -> None:
    pixels = random(3, *(cells(model) * side for side in size))
    with acting(model, [axes]):
        output = model.encode(pixels)
    theirs = output.latent_dist.parameters if hasattr(output, "latent_dist") else output.latents
    torch.testing.assert_close(strips.encode(model, pixels, axes), theirs, atol=2e-5, rtol=0)


def test_what_goes_in_is_left_as_it_is(model: Any) -> None:
    latent, pixels = random(4, 9, 9), random(3, 40, 40)
    before = latent.clone(), pixels.clone()
    strips.decode(model, latent, "xy")
    strips.encode(model, pixels, "xy")
    assert torch.equal(latent, before[0])
    assert torch.equal(pixels, before[1])


def test_statistics_are_exact_where_the_mean_is_much_larger_than_the_deviation() -> None:
    values = 1000 + random(8, 40, 3)
    norm = nn.GroupNorm(2, 8)
    normed = maps.Normed(maps.Stored(values), norm, nn.Identity())
    wide = values.double()
    expected = nn.functional.group_norm(wide, 2, eps=norm.eps).float()
    torch.testing.assert_close(normed.rows(0, 40), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("axes", ["", "xy"])
def test_a_map_is_stored_over_one_that_it_reads(axes: str) -> None:
    source = maps.Stored(random(4, 37, 6))
    layer = nn.Conv2d(4, 4, 5, padding=2)
    expected = maps.stored(maps.Convolved(source, layer, axes)).tensor
    found = maps.stored(maps.Convolved(source, layer, axes), over=source).tensor
    assert found.data_ptr() == source.tensor.data_ptr()
    assert torch.equal(found, expected)


# ------------------------------------------------------------------------- memory, and when


class Short:
    """An autoencoder that runs out of memory above a number of cells."""

    def __init__(self, model: Any, most: int, message: str = "can't allocate memory") -> None:
        self.config, self.device, self.dtype = model.config, model.device, model.dtype
        self.decoder, self.encoder = model.decoder, model.encoder
        self.post_quant_conv = getattr(model, "post_quant_conv", None)
        self.quant_conv = getattr(model, "quant_conv", None)
        self._model, self._most, self._message = model, most, message
        self.given: list[int] = []

    def modules(self) -> Iterator[nn.Module]:
        return iter(self._model.modules())

    def decode(self, latent: torch.Tensor, **options: Any) -> Any:
        self.given.append(latent[0, 0].numel())
        if latent[0, 0].numel() > self._most:
            raise RuntimeError(f"DefaultCPUAllocator: {self._message}: you tried")
        return self._model.decode(latent, **options)

    def encode(self, pixels: torch.Tensor) -> Any:
        raise MemoryError(pixels.shape)


def test_a_picture_that_runs_out_of_memory_is_computed_in_strips(model: Any) -> None:
    network = Network(model=Short(model, most=40))
    plain = Network(model=model)
    for size in ((6, 6), (7, 7)):
        latent = random(4, *size)
        torch.testing.assert_close(network.pixels(latent), plain.pixels(latent), atol=2e-5, rtol=0)
    assert network.model.given == [36, 49]
    pixels = random(3, 16, 16)
    torch.testing.assert_close(network.moments(pixels), plain.moments(pixels), atol=2e-5, rtol=0)


def test_a_network_of_unknown_layers_computes_as_a_whole() -> None:
    from diffusers import AutoencoderTiny

    model = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        upsample_fn="bilinear",
    )
    latent = random(4, 6, 6)
    found = Network(model=model, tiled=True).pixels(latent)
    assert torch.equal(found, model.decode(latent).sample)
    assert not strips.knows(model)
    assert all(strips.knows(make()) for make in MODELS.values())
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        Network(model=Short(model, most=1)).pixels(latent)


def test_another_error_is_none_of_memory(model: Any) -> None:
    network = Network(model=Short(model, most=1, message="no such luck"))
    with pytest.raises(RuntimeError, match="no such luck"):
        network.pixels(random(4, 6, 6))


@pytest.mark.parametrize(("free", "given"), [(None, [36]), (10**9, [36]), (10**5, [])])
def test_a_picture_that_will_not_fit_is_computed_in_strips_at_once(
    model: Any, free: int | None, given: list[int]
) -> None:
    network = Network(model=Short(model, most=10**6), free=lambda: free)
    network.pixels(random(4, 6, 6))
    # of one level, a picture of 6 x 6 cells is so small that it fits always
    assert network.model.given == (given if cells(model) > 1 else [36])


def test_tiles_are_used_where_they_are_asked_for(model: Any) -> None:
    network = Network(model=Short(model, most=10**6), tiled=True)
    network.pixels(random(4, 6, 6))
    assert network.model.given == []


def held(work: Callable[[], object]) -> int:
    """The most bytes of tensors that there are at once, by torch's record of its allocations."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work()
    events: Any = found.profiler
    sizes: list[int] = [
        each.nbytes() for each in events.kineto_results.events() if each.name() == "[memory]"
    ]
    return max(accumulate(sizes))


@pytest.mark.parametrize("way", ["decode", "encode"])
def test_strips_hold_less_than_half_of_what_a_whole_picture_takes(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(maps, "STRIP", 2**14)
    model = full(FULL).eval().to(memory_format=torch.channels_last)
    values = random(4, 64, 64) if way == "decode" else random(3, 256, 256)
    most = held(lambda: getattr(model, way)(values))
    assert most > 4 * 64 * 256**2
    assert held(lambda: getattr(strips, way)(model, values, "")) < 0.45 * most


def test_half_precision_stays_within_its_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "STRIP", 2**12)
    torch.manual_seed(3)
    model = full(FULL).eval()
    latent = random(4, 32, 32)
    exact = model.decode(latent).sample
    half = model.to(torch.bfloat16)
    given = latent.to(torch.bfloat16)
    errors = SimpleNamespace(
        whole=(half.decode(given).sample.float() - exact).square().mean().sqrt().item(),
        strips=(strips.decode(half, given, "").float() - exact).square().mean().sqrt().item(),
    )
    assert errors.strips < 1.2 * errors.whole
    assert math.isfinite(errors.strips)
