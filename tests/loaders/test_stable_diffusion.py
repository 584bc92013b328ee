"""Loaded models against diffusers' own pipelines over the same weights, in float32."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from checkpoints import TINY_SD1, TINY_SD2, TINY_SDXL, Layout, inpainting, write_checkpoint
from imagine_core.errors import RequestError
from imagine_plugins.loaders import text as text_module
from imagine_plugins.loaders.autoencoder import Autoencoder
from imagine_plugins.loaders.network import Network
from imagine_plugins.loaders.text import MOST_CHUNKS
from reference import Half, load, picture, single_file_pipeline

LAYOUTS = {"sd1": TINY_SD1, "sd2": TINY_SD2, "sdxl": TINY_SDXL, "inpaint": inpainting(TINY_SD1)}


@pytest.fixture(scope="module", params=LAYOUTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same random checkpoint, by our loader and by diffusers' pipeline."""
    layout: Layout = LAYOUTS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    path = write_checkpoint(folder / "tiny.safetensors", layout)
    theirs = single_file_pipeline(path, layout, folder / "configs")
    return SimpleNamespace(name=request.param, ours=load(path), theirs=theirs)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny SD1."""
    return load(write_checkpoint(tmp_path_factory.mktemp("m") / "tiny.safetensors", TINY_SD1))


def encode(model: Any, prompt: str, clip_skip: int = 1) -> Any:
    return model.encode_prompt(prompt, clip_skip=clip_skip, width=64, height=128)


def diffusers_embeddings(pipeline: Any, prompt: str, **options: Any) -> tuple[Any, Any]:
    made = pipeline.encode_prompt(
        prompt=prompt,
        device=torch.device("cpu"),
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
        **options,
    )
    return made[0], made[2] if len(made) > 2 else None


# ------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    "prompt", ["a photo of a cat", "Red! Blue!! green, (and", "été 漢字 16:9", "x"]
)
def test_a_plain_prompt_is_encoded_bit_for_bit_as_diffusers_does(pair: Any, prompt: str) -> None:
    with torch.no_grad():
        context, pooled = diffusers_embeddings(pair.theirs, prompt.replace("(", ""))
    ours = encode(pair.ours, prompt.replace("(", ""))
    assert torch.equal(ours.context, context)
    if pooled is not None:
        assert torch.equal(ours.extras["text_embeds"], pooled)
    assert ours.warnings == ()


def test_an_empty_prompt_is_what_diffusers_takes_for_no_negative_prompt(pair: Any) -> None:
    with torch.no_grad():
        made = pair.theirs.encode_prompt(
            prompt="a cat",
            device=torch.device("cpu"),
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
        )
    ours = encode(pair.ours, "")
    assert torch.equal(ours.context, made[1])
    if pair.name == "sdxl":
        assert not ours.context.any()
        assert torch.equal(ours.extras["text_embeds"], made[3])


@pytest.mark.parametrize("skip", [1, 2, 3])
def test_clip_skip_takes_an_earlier_layer(model: Any, skip: int) -> None:
    text = model.text
    ids = text.tokenizer(
        "a cat", padding="max_length", max_length=77, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        hidden = text.model(ids, output_hidden_states=True).hidden_states
        expected = text.model.final_layer_norm(hidden[-skip])
    assert torch.equal(encode(model, "a cat", clip_skip=skip).context, expected)


@pytest.mark.parametrize("pair", ["sdxl"], indirect=True)
@pytest.mark.parametrize("skip", [1, 2])
def test_clip_skip_of_sdxl_is_diffusers(pair: Any, skip: int) -> None:
    with torch.no_grad():
        expected, _ = diffusers_embeddings(pair.theirs, "a cat", clip_skip=skip - 1)
    assert torch.equal(encode(pair.ours, "a cat", clip_skip=skip).context, expected)


def test_a_clip_skip_beyond_the_layers_takes_the_first(model: Any) -> None:
    assert torch.equal(encode(model, "a cat", 50).context, encode(model, "a cat", 4).context)


def test_a_long_prompt_is_its_chunks_one_after_the_other(model: Any) -> None:
    long = encode(model, "cat " * 75 + "dog " * 20)
    assert long.context.shape == (1, 154, 32)
    assert long.warnings == ("prompt has 95 tokens: encoded in 2 chunks of 75",)
    assert torch.equal(long.context[:, :77], encode(model, "cat " * 75).context)
    assert torch.equal(long.context[:, 77:], encode(model, "dog " * 20).context)


def test_a_prompt_of_more_chunks_than_others_can_wait_for_is_refused(model: Any) -> None:
    encode(model, "BREAK a " * (MOST_CHUNKS - 1))
    with pytest.raises(RequestError, match="must fit into 100 chunks of 75 tokens, not 101"):
        encode(model, "BREAK a " * MOST_CHUNKS)


def test_weights_multiply_tokens_and_keep_the_mean(model: Any) -> None:
    plain = encode(model, "a cat and dog").context
    heavy = encode(model, "a (cat:1.5) and dog").context
    factors = torch.ones(77)
    factors[2] = 1.5
    expected = plain * factors[None, :, None]
    expected *= plain.mean() / expected.mean()
    torch.testing.assert_close(heavy, expected)
    assert heavy.mean() == pytest.approx(plain.mean().item(), abs=1e-5)


def test_a_weight_of_one_changes_nothing(model: Any) -> None:
    assert torch.equal(
        encode(model, "a (cat:1.0) here").context, encode(model, "a cat here").context
    )


@pytest.mark.parametrize("weight", [0.5, 0.9, 1.1, 1.5])
def test_weights_move_no_encoding_further_than_the_words_alone(pair: Any, weight: float) -> None:
    plain = encode(pair.ours, "a cat and dog BREAK a red house").context
    heavy = encode(pair.ours, f"a (cat:{weight}) and dog BREAK a (red house:{weight})").context
    factors = torch.ones(2 * 77)
    factors[[2, 77 + 2, 77 + 3]] = weight
    alone = plain * factors[None, :, None]
    assert 0 < (heavy - plain).norm() <= (alone - plain).norm() * (1 + 1e-6)


def test_extreme_weights_stay_finite(model: Any) -> None:
    assert encode(model, "(" * 200 + "cat").context.isfinite().all()
    assert encode(model, "(cat:0)").context.isfinite().all()


@pytest.mark.parametrize("prompt", ["zorblax, (a red cat:1.2) BREAK x_1", "日本 ½ naïve é 🏠", ""])
def test_clip_reads_every_word(model: Any, prompt: str) -> None:
    assert encode(model, prompt).unread == ()


def test_a_prompt_is_encoded_once_and_the_oldest_forgotten(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = []

    def note(prompt: str, clip_skip: int, _words: object) -> Any:
        prompts.append((prompt, clip_skip))
        return SimpleNamespace(context=None, warnings=(), unread=())

    text = model.text
    monkeypatch.setattr(text_module, "CACHED_PROMPTS", 2)
    monkeypatch.setattr(text, "_encode", note)
    monkeypatch.setattr(text, "_cache", OrderedDict())
    for prompt, skip in [("a", 1), ("b", 1), ("a", 1), ("a", 2), ("a", 1), ("b", 1)]:
        encode(model, prompt, skip)
    assert prompts == [("a", 1), ("b", 1), ("a", 2), ("b", 1)]


# -------------------------------------------------------------------------------------- the UNet


def test_one_forward_equals_diffusers_unet(pair: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 32, 16, generator=generator)
    rows = [encode(pair.ours, "a cat"), encode(pair.ours, "a dog")]
    stacked = type(rows[0])(
        context=torch.cat([row.context for row in rows]),
        extras={key: torch.cat([row.extras[key] for row in rows]) for key in rows[0].extras},
    )
    timesteps = torch.tensor([999.0, 1.0])
    prediction = pair.ours.predict(latents, timesteps, stacked)
    inputs = latents
    if pair.name == "inpaint":
        inputs = torch.cat([latents, stacked.extras["inpaint"]], dim=1)
    added = None
    if pair.name == "sdxl":
        sizes = pair.theirs._get_add_time_ids(
            (128, 64), (0, 0), (128, 64), dtype=torch.float32, text_encoder_projection_dim=32
        )
        added = {"text_embeds": stacked.extras["text_embeds"], "time_ids": sizes.repeat(2, 1)}
    with torch.no_grad():
        expected = pair.theirs.unet(
            inputs,
            timesteps,
            encoder_hidden_states=stacked.context,
            added_cond_kwargs=added,
        ).sample
    assert (prediction - expected).abs().max() <= 1e-5


def test_a_prediction_in_half_precision_comes_back_as_float32_and_near(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SDXL, dtype="F32")
    results = []
    for device in (Half(torch.float32), Half(torch.bfloat16)):
        model = load(path, device=device)
        latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        results.append(model.predict(latents, torch.tensor([333.25]), encode(model, "a cat")))
    assert {result.dtype for result in results} == {torch.float32}
    assert 0 < (results[0] - results[1]).abs().max() < 0.1


def test_the_sizes_told_to_sdxl_are_not_rounded_in_half_precision(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SDXL)
    model = load(path, device=Half(torch.bfloat16))
    extras = model.encode_prompt("a", clip_skip=1, width=1000, height=1048).extras
    assert extras["time_ids"].tolist() == [[1048, 1000, 0, 0, 1048, 1000]]


# ------------------------------------------------------------------------------- the autoencoder


def test_a_picture_is_encoded_as_the_img2img_pipeline_draws_it(pair: Any) -> None:
    from diffusers.image_processor import VaeImageProcessor
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import (
        retrieve_latents,
    )

    image = picture(64, 32)
    ours = pair.ours.encode_image(image, torch.Generator().manual_seed(3))
    pixels = VaeImageProcessor(vae_scale_factor=4).preprocess(image)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        encoded = pair.theirs.vae.encode(pixels)
    expected = (
        retrieve_latents(encoded, generator=generator) * pair.theirs.vae.config.scaling_factor
    )
    assert ours.shape == (1, 4, 8, 16)
    assert (ours - expected).abs().max() <= 1e-5


def test_the_generator_goes_on_after_a_picture_as_the_pipelines_does(model: Any) -> None:
    used, fresh = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    model.encode_image(picture(32, 32), used)
    torch.randn(1, 4, 8, 8, generator=fresh)
    assert torch.equal(torch.randn(3, generator=used), torch.randn(3, generator=fresh))


def test_a_latent_is_decoded_as_diffusers_does(pair: Any) -> None:
    import numpy as np

    latent = torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(2))
    scale = pair.theirs.vae.config.scaling_factor
    with torch.no_grad():
        pixels = pair.theirs.vae.decode(latent / scale).sample
    expected = pair.theirs.image_processor.postprocess(pixels)[0]
    ours = pair.ours.decode(latent)
    assert (ours.mode, ours.size) == ("RGB", (64, 32))
    difference = np.abs(np.asarray(ours, dtype=int) - np.asarray(expected, dtype=int))
    assert difference.max() <= 1


def test_latents_have_the_autoencoders_shape(pair: Any) -> None:
    assert (pair.ours.latent_channels, pair.ours.downsampling) == (4, 4)


class Config(SimpleNamespace):
    """A configuration that is read as an attribute, an item and with `get`."""

    def get(self, name: str) -> Any:
        return getattr(self, name, None)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


def overflowing(folder: Path, dtype: torch.dtype) -> Any:
    """A checkpoint's model whose autoencoder's convolutions make more than float16 holds.

    Group norms undo the factor, so that all latents and pixels are ordinary numbers.
    """
    path = folder / "tiny.safetensors"
    if not path.exists():
        write_checkpoint(path, TINY_SD1, scale={".conv2.weight": 1e5}, dtype="F32")
    return load(path, device=Half(dtype))


USES: dict[str, Callable[[Any], torch.Tensor]] = {
    "encode": lambda model: model.encode_image(picture(32, 32), torch.Generator().manual_seed(0)),
    "grey": lambda model: model.autoencoder.grey(8, 8),
    "preview": lambda model: pixels(model.preview(torch.linspace(-1, 1, 256).view(1, 4, 8, 8))),
    "decode": lambda model: pixels(model.decode(torch.linspace(-1, 1, 256).view(1, 4, 8, 8))),
}


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float()


@pytest.mark.parametrize("use", USES)
@torch.no_grad()
def test_an_autoencoder_that_overflows_goes_on_in_float32_whatever_it_does_first(
    tmp_path: Path, use: str
) -> None:
    half, full = overflowing(tmp_path, torch.float16), overflowing(tmp_path, torch.float32)
    assert half.autoencoder.model.dtype == torch.float16
    ours, theirs = USES[use](half), USES[use](full)
    assert half.autoencoder.model.dtype == torch.float32
    assert ours.isfinite().all()
    assert ours.std() > 0
    assert (ours - theirs).abs().max() <= (3 if use in {"preview", "decode"} else 0.02)


@pytest.mark.parametrize("use", USES)
def test_an_autoencoder_that_does_not_overflow_stays_in_half_precision(
    tmp_path: Path, use: str
) -> None:
    path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SD1)
    model = load(path, device=Half(torch.float16))
    assert USES[use](model).isfinite().all()
    assert model.autoencoder.model.dtype == torch.float16


def test_a_variance_alone_that_overflows_is_seen(tmp_path: Path) -> None:
    model = load(
        write_checkpoint(tmp_path / "tiny.safetensors", TINY_SD1), device=Half(torch.float16)
    )
    convolution = model.autoencoder.model.quant_conv
    with torch.no_grad():
        convolution.weight[4:] *= 60_000
        convolution.bias[4:] = 60_000
    assert USES["encode"](model).isfinite().all()
    assert model.autoencoder.model.dtype == torch.float32


# ---------------------------------------------------------------------------------- the preview


class Linear:
    """An autoencoder whose latents are linear in the colours, so that the fit can be exact."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, channels: int, factor: int) -> None:
        self.matrix = torch.randn(channels, 3, generator=torch.Generator().manual_seed(channels))
        self.factor = factor
        widths = [8] * factor.bit_length()
        self.config = Config(
            latent_channels=channels, scaling_factor=0.5, block_out_channels=widths
        )

    def encode(self, pixels: torch.Tensor) -> Any:
        small = torch.nn.functional.avg_pool2d(pixels, self.factor)
        return SimpleNamespace(latents=torch.einsum("bchw,lc->blhw", small, self.matrix))


@pytest.mark.parametrize(("channels", "factor"), [(4, 8), (4, 4), (16, 8), (8, 16), (32, 32)])
def test_a_preview_shows_the_colours_of_any_latent(channels: int, factor: int) -> None:
    import numpy as np

    autoencoder = Autoencoder(Network(model=Linear(channels, factor)))
    image = Image.new("RGB", (factor * 6, factor * 4), (200, 40, 90))
    latent = autoencoder.encode_image(image, torch.Generator())
    preview = autoencoder.preview(latent)
    assert (preview.mode, preview.size) == ("RGB", (6, 4))
    difference = np.abs(np.asarray(preview, dtype=int) - [200, 40, 90])
    assert difference.max() <= 6


def test_the_preview_is_fitted_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model.preview(torch.zeros(1, 4, 8, 8))
    monkeypatch.setattr(model.autoencoder.model, "encode", None)
    assert model.preview(torch.randn(1, 4, 8, 6)).size == (6, 8)
