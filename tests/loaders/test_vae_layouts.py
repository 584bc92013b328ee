"""VAEs and TAESDs recognised by their headers alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from checkpoints import SD1, SDXL, shapes, write_hollow
from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders.vae import VaeLoader
from vaes import SD1_VAE, authors_names, diffusers_shapes, vae_shapes

ALL, OLD, XL = ("sd1", "sd2", "sdxl"), ("sd1", "sd2"), ("sdxl",)
TINY = diffusers_shapes("AutoencoderTiny")
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
PARAMETERS = 83_653_863  # of the autoencoder of Rombach et al. with 4 channels, downsampling 8


def recognise(path: Path) -> ModelInfo:
    info = VaeLoader().recognise(path)
    assert info is not None
    assert (info.name, info.loader, info.kind) == (path.stem, "vae", "vae")
    return info


def hollow(folder: Path, tensors: Mapping[str, tuple[int, ...]], **options: Any) -> ModelInfo:
    return recognise(write_hollow(folder / "mine.safetensors", tensors, **options))


def _old(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """diffusers' names of early 2023."""
    renamed = {}
    for key, shape in shapes.items():
        for new, old in OLD_NAMES.items():
            key = key.replace(f".{new}.", f".{old}.")  # noqa: PLW2901 - one after another
        renamed[key] = shape
    return renamed


FULL = {
    "original": vae_shapes(),
    "original, in a checkpoint's names": vae_shapes(root="first_stage_model."),
    "original, in ComfyUI's names": vae_shapes(root="vae."),
    "original, with leftovers of its training": {
        **vae_shapes(),
        "loss.logvar": (),
        "loss.discriminator.main.0.weight": (64, 3, 4, 4),
        "model_ema.decay": (),
    },
    "diffusers": diffusers_shapes(),
    "diffusers, before 0.18": _old(diffusers_shapes()),
}


@pytest.mark.parametrize("layout", FULL)
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_vae_is_known_in_every_layout_and_precision(
    tmp_path: Path, layout: str, dtype: str
) -> None:
    info = hollow(tmp_path, FULL[layout], dtype=dtype)
    assert (info.problem, info.family, info.fits) == (None, "unknown", ALL)
    assert info.parameters == PARAMETERS
    assert info.dtype == {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype]
    assert (info.details, info.takes, info.metadata) == ({}, (), {})


SMALL = {
    "diffusers": (TINY, True),
    "diffusers, the decoder alone": (
        {key: shape for key, shape in TINY.items() if key.startswith("decoder.")},
        False,
    ),
    "its author's decoder": (authors_names(TINY, encoder=None), False),
    "ComfyUI": (authors_names(TINY, encoder="taesd_encoder.", decoder="taesd_decoder."), True),
    "both halves": (authors_names(TINY, encoder="encoder.", decoder="decoder."), True),
}


@pytest.mark.parametrize("layout", SMALL)
def test_a_taesd_is_known_in_every_layout(tmp_path: Path, layout: str) -> None:
    tensors, encodes = SMALL[layout]
    info = hollow(tmp_path, tensors)
    assert (info.problem, info.family, info.fits) == (None, "unknown", ALL)
    assert info.details == {"decoder": "fast"} | ({} if encodes else {"encoder": False})
    assert info.parameters == (2_445_063 if encodes else 1_222_531)


@pytest.mark.parametrize(
    ("name", "tensors", "fits"),
    [
        ("vae-ft-mse-840000-ema-pruned", FULL["original"], ALL),
        ("sdxl_vae", FULL["original"], XL),
        ("xlVAEC_f1", FULL["original"], XL),
        ("sdxl-vae-fp16-fix", FULL["diffusers"], XL),
        ("sharpspectrumvaexl_v1", FULL["original"], XL),
        ("animeXL", FULL["original"], XL),
        ("pixl", FULL["original"], ALL),
        ("taesd", TINY, OLD),
        ("taesd_decoder", SMALL["its author's decoder"][0], OLD),
        ("taesdxl", TINY, XL),
        ("TAESDXL_decoder", SMALL["its author's decoder"][0], XL),
    ],
)
def test_a_name_tells_what_shapes_cannot(
    tmp_path: Path, name: str, tensors: Mapping[str, tuple[int, ...]], fits: tuple[str, ...]
) -> None:
    info = recognise(write_hollow(tmp_path / f"{name}.safetensors", tensors))
    assert info.fits == fits
    assert info.family == ("unknown" if fits == ALL else fits[0])


@pytest.mark.parametrize(
    ("architecture", "fits"),
    [
        ("stable-diffusion-xl-v1-base/vae", XL),
        ("stable-diffusion-v1/vae", OLD),
        ("stable-diffusion-v2-512/vae", OLD),
        ("mine", ALL),
    ],
)
def test_metadata_tells_what_shapes_cannot(
    tmp_path: Path, architecture: str, fits: tuple[str, ...]
) -> None:
    said = {"modelspec.architecture": architecture, "modelspec.title": "Mine"}
    info = hollow(tmp_path, FULL["original"], metadata=said)
    assert info.fits == fits
    assert info.metadata["title"] == "Mine"


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(("scale", "fits"), [(0.18215, OLD), (0.13025, XL), (1.0, OLD)])
def test_comfyuis_scale_tells_whose_latents_a_taesd_knows_whatever_its_name(
    tmp_path: Path, dtype: str, scale: float, fits: tuple[str, ...]
) -> None:
    import torch
    from safetensors.torch import save_file

    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    named = authors_names(TINY, encoder="taesd_encoder.", decoder="taesd_decoder.")
    held = {name: torch.zeros(shape, dtype=kind) for name, shape in named.items()}
    path = tmp_path / "my-taesd.safetensors"
    save_file(held | {"vae_scale": torch.tensor(scale, dtype=kind)}, path)
    assert recognise(path).fits == fits


def test_the_configuration_of_a_folder_tells_sdxl_apart(tmp_path: Path) -> None:
    for name, scale, fits in (("a", 0.13025, XL), ("b", 0.18215, ALL)):
        folder = tmp_path / name
        folder.mkdir()
        config = {**SD1_VAE, "scaling_factor": scale}
        (folder / "config.json").write_text(json.dumps(config))
        write_hollow(folder / "diffusion_pytorch_model.fp16.safetensors", diffusers_shapes())
        info = recognise(folder)
        assert (info.problem, info.fits, info.parameters) == (None, fits, PARAMETERS)
        assert 2 * PARAMETERS < info.size < 2.01 * PARAMETERS


# --------------------------------------------------------------------------- those of flow models

KL16: dict[str, Any] = {
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
FLUX, SD3 = ("flux", "z-image", "chroma"), ("sd3",)
FLOW = {
    "diffusers": diffusers_shapes(**KL16),
    "original": {
        key: (shape[0] * 4 if key.startswith("encoder.conv_out") else shape[0], *shape[1:])
        if "conv_out" in key and key.startswith("encoder")
        else ((shape[0], 16, *shape[2:]) if key == "decoder.conv_in.weight" else shape)
        for key, shape in vae_shapes().items()
        if not key.startswith(("quant_conv", "post_quant_conv"))
    },
}


@pytest.mark.parametrize("layout", FLOW)
@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("ae", FLUX),
        ("flux_vae", FLUX),
        ("ae_bf16", FLUX),
        ("sd3_vae", SD3),
        ("sd3.5-vae-fp16", SD3),
        ("mine", FLUX + SD3),
        ("aether", FLUX + SD3),
    ],
)
def test_a_vae_of_16_channels_is_told_by_its_name(
    tmp_path: Path, layout: str, name: str, fits: tuple[str, ...]
) -> None:
    info = recognise(write_hollow(tmp_path / f"{name}.safetensors", FLOW[layout]))
    assert (info.problem, info.fits) == (None, fits)
    assert info.family == ("unknown" if fits == FLUX + SD3 else fits[0])
    assert info.parameters == 83_819_683  # of the autoencoder of FLUX.1, by diffusers


@pytest.mark.parametrize(
    ("name", "fits"), [("taef1", FLUX), ("taesd3", SD3), ("taesd3_decoder", SD3)]
)
def test_a_taesd_of_16_channels_is_told_by_its_name(
    tmp_path: Path, name: str, fits: tuple[str, ...]
) -> None:
    tensors = diffusers_shapes("AutoencoderTiny", latent_channels=16)
    info = recognise(write_hollow(tmp_path / f"{name}.safetensors", tensors))
    assert (info.problem, info.fits, info.details) == (None, fits, {"decoder": "fast"})


@pytest.mark.parametrize(("scale", "fits"), [(0.3611, FLUX), (1.5305, SD3), (0.18215, FLUX + SD3)])
def test_the_scale_in_a_folder_tells_vaes_of_16_channels_apart(
    tmp_path: Path, scale: float, fits: tuple[str, ...]
) -> None:
    config = {**SD1_VAE, **KL16, "scaling_factor": scale, "shift_factor": 0.1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_hollow(tmp_path / "diffusion_pytorch_model.safetensors", FLOW["diffusers"])
    info = VaeLoader().recognise(tmp_path)
    assert info is not None
    assert (info.problem, info.fits) == (None, fits)


def test_metadata_tells_vaes_of_16_channels_apart(tmp_path: Path) -> None:
    said = {"modelspec.architecture": "flux-1-dev/vae"}
    assert hollow(tmp_path, FLOW["original"], metadata=said).fits == FLUX


def _flux2(*, inside: bool = False) -> dict[str, tuple[int, ...]]:
    """As diffusers has it, or with the quantising convolutions where its authors have them."""
    halves = {"quant_conv": "encoder.", "post_quant_conv": "decoder."}
    return {
        halves.get(key.partition(".")[0], "") + key if inside else key: shape
        for key, shape in diffusers_shapes(latent_channels=32).items()
    } | {"bn.running_mean": (128,), "bn.running_var": (128,)}


@pytest.mark.parametrize("inside", [False, True])
def test_the_vae_of_flux2_is_known(tmp_path: Path, *, inside: bool) -> None:
    info = hollow(tmp_path, _flux2(inside=inside))
    assert (info.family, info.fits) == ("flux2", ("flux2",))
    assert info.problem == "this is the VAE of FLUX.2, which is recognised, but cannot be used yet"


WAN = {
    "decoder.middle.0.residual.0.gamma": (384, 1, 1, 1),
    "decoder.conv1.weight": (384, 16, 3, 3, 3),
    "encoder.conv1.weight": (96, 3, 3, 3, 3),
    "conv1.weight": (32, 32, 1, 1, 1),
}
QWEN = {
    "decoder.conv_in.weight": (384, 16, 3, 3, 3),
    "encoder.conv_in.weight": (96, 3, 3, 3, 3),
    "quant_conv.weight": (32, 32, 1, 1, 1),
}


@pytest.mark.parametrize("tensors", [WAN, QWEN])
def test_the_vae_of_qwen_image_is_known(
    tmp_path: Path, tensors: Mapping[str, tuple[int, ...]]
) -> None:
    info = recognise(write_hollow(tmp_path / "qwen_image_vae.safetensors", tensors))
    assert (info.family, info.fits) == ("qwen-image", ("qwen-image",))
    assert "Qwen-Image, which is recognised" in (info.problem or "")
    info = recognise(write_hollow(tmp_path / "wan_2.1_vae.safetensors", tensors))
    assert info.problem == "this is the VAE of Wan video, which is not supported"


@pytest.mark.parametrize("kind", ["AutoencoderKLFlux2", "AutoencoderKLQwenImage"])
def test_folders_of_other_vaes_of_flow_models_are_known(tmp_path: Path, kind: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": kind}))
    tensors = _flux2() if "Flux2" in kind else QWEN
    write_hollow(tmp_path / "diffusion_pytorch_model.safetensors", tensors)
    info = VaeLoader().recognise(tmp_path)
    assert info is not None
    assert info.fits == (("flux2",) if "Flux2" in kind else ("qwen-image",))
    assert "cannot be used yet" in (info.problem or "")


# ------------------------------------------------------------------------------- what cannot serve


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (
            diffusers_shapes(latent_channels=12),
            r"of 12 channels, which is not supported; .* have 4, 16, 32",
        ),
        (diffusers_shapes("AutoencoderTiny", latent_channels=12), "of 12 channels"),
        ({"decoder.conv_in.weight": ()}, "of 0 channels"),
        (authors_names(TINY, decoder=None), "the encoder of a TAESD alone, .* take its decoder"),
        (
            {key: shape for key, shape in TINY.items() if key.startswith("encoder.")},
            "the encoder of a TAESD alone",
        ),
        (
            {**FULL["original"], "decoder.mid.block_1.conv1.weight": (512, 256, 3, 3)},
            r"'decoder.mid.block_1.conv1.weight' has the shape \[512, 256, 3, 3\]",
        ),
        (
            {key: s for key, s in FULL["original"].items() if key != "encoder.conv_out.bias"},
            "'encoder.conv_out.bias' missing",
        ),
        (
            {key: s for key, s in TINY.items() if key != "decoder.layers.4.conv.2.bias"},
            r"'decoder.layers.4.conv.2.bias' missing",
        ),
    ],
)
def test_a_vae_that_no_model_can_use_says_why(
    tmp_path: Path, tensors: Mapping[str, tuple[int, ...]], words: str
) -> None:
    info = hollow(tmp_path, tensors, metadata={"modelspec.title": "Mine"})
    assert info.family == "vae"
    assert re.search(words, info.problem or ""), info.problem
    assert info.metadata == {"title": "Mine"}


@pytest.mark.parametrize(
    "config", ['{"x":', "[]", '{"vae/config.json": {"layers_per_block": "x"}}']
)
def test_a_damaged_configuration_inside_a_vae_is_told(tmp_path: Path, config: str) -> None:
    info = hollow(tmp_path, FULL["original"], metadata={"imagine.config": config})
    assert re.search("damaged|no JSON object|not understood", info.problem or ""), info.problem


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"_class_name": "AutoencoderKLWan"}, "the class AutoencoderKLWan; only AutoencoderKL or"),
        ({"_class_name": "AutoencoderKL"}, "has no weights"),
    ],
)
def test_a_folder_that_cannot_serve_says_why(
    tmp_path: Path, config: Mapping[str, object], words: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert re.search(words, recognise(tmp_path).problem or "")


def test_a_broken_file_in_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SD1_VAE))
    (tmp_path / "diffusion_pytorch_model.safetensors").touch()
    assert "the file is empty" in (recognise(tmp_path).problem or "")
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    (tmp_path / "diffusion_pytorch_model.bin").touch()
    assert "in a pickle (.bin)" in (recognise(tmp_path).problem or "")


@pytest.mark.parametrize(
    "tensors",
    [
        shapes(SD1),
        shapes(SDXL),
        {**FULL["original"], "double_blocks.0.img_attn.qkv.weight": (9, 3)},
        {**FULL["original"], "decoder.up.0.block.0.time_stack.in_layers.2.weight": (1,)},
        {"model.0.weight": (64, 3, 3, 3)},
        {"0.weight": (64, 3, 3, 3), "2.weight": (64, 64, 3, 3)},
        {"emb_params": (4, 768)},
        {},
    ],
)
def test_what_is_no_vae_is_not_its_business(
    tmp_path: Path, tensors: Mapping[str, tuple[int, ...]]
) -> None:
    path = write_hollow(tmp_path / "a.safetensors", tensors)
    assert VaeLoader().recognise(path) is None


def test_other_files_and_folders_are_not_its_business(tmp_path: Path) -> None:
    write_hollow(tmp_path / ".a.safetensors", FULL["original"])
    (tmp_path / "b.safetensors").touch()
    (tmp_path / "c.pt").write_bytes(b"PK")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "config.json").write_text("[]")
    assert [VaeLoader().recognise(path) for path in sorted(tmp_path.iterdir())] == [None] * 5
