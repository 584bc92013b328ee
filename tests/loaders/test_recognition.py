"""Files are told apart by their header: supported ones load, others get a message."""

from __future__ import annotations

import json
import os
import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoints import (
    SD1,
    SD2,
    SDXL,
    TINY_SD1,
    TINY_SDXL,
    Layout,
    configs,
    header_bytes,
    inpainting,
    shapes,
    write_checkpoint,
    write_hollow,
)
from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders.checkpoint import CheckpointLoader
from upscalers import rrdb

U = "model.diffusion_model."


def upscaler(layout: str, **sizes: int) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in rrdb(layout, **sizes).items()}


FULL = {"sd1": SD1, "sd2": SD2, "sdxl": SDXL}


def recognise(path: Path) -> ModelInfo:
    info = CheckpointLoader().recognise(path)
    assert info is not None
    return info


def hollow(
    folder: Path, tensors: dict[str, tuple[int, ...]], dtype: str = "F16", **metadata: str
) -> ModelInfo:
    path = write_hollow(folder / "file.safetensors", tensors, dtype=dtype, metadata=metadata)
    return recognise(path)


# ------------------------------------------------------------------------------ what can serve


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_each_family_is_known_in_every_precision(tmp_path: Path, name: str, dtype: str) -> None:
    path = write_hollow(tmp_path / f"{name}.safetensors", shapes(FULL[name]), dtype=dtype)
    info = recognise(path)
    sizes = {"sd1": (512, 512), "sd2": (512, 512), "sdxl": (1024, 1024)}
    layers = {"sd1": 12, "sd2": 23, "sdxl": 11}
    kinds = {
        "F32": "float32",
        "F16": "float16",
        "BF16": "bfloat16",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E5M2": "float8_e5m2",
    }
    parameters = {"sd1": 1_066_235_307, "sd2": 1_289_952_427, "sdxl": 3_468_837_867}
    assert info == ModelInfo(
        name=name,
        path=path,
        loader="checkpoint",
        family=name,
        size=path.stat().st_size,
        parameters=parameters[name],
        dtype=kinds[dtype],
        clip_layers=layers[name],
        recommended_size=sizes[name],
        takes=("lora", "embedding", "vae", "controlnet"),
    )


@pytest.mark.parametrize("name", FULL)
def test_inpainting_variants_are_known_by_their_nine_channels(tmp_path: Path, name: str) -> None:
    info = hollow(tmp_path, shapes(inpainting(FULL[name])))
    assert (info.family, info.problem) == (f"{name}-inpaint", None)
    assert info.takes == ("lora", "embedding", "vae", "controlnet", "mask")


def test_harmless_extras_of_full_checkpoints_are_ignored(tmp_path: Path) -> None:
    extras = {
        "alphas_cumprod": (1000,),
        "model_ema.decay": (),
        "model_ema.diffusion_modelinput_blocks00weight": (320, 4, 3, 3),
        "global_step": (),
    }
    assert hollow(tmp_path, {**shapes(SD1), **extras}).problem is None


def test_a_sidecar_of_another_tool_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text('{"description": "mine", "sd version": "SD1"}', "utf-8")
    assert hollow(tmp_path, shapes(SD1)).problem is None


def test_metadata_says_title_licence_and_size(tmp_path: Path) -> None:
    said = {
        "modelspec.title": "My model",
        "modelspec.license": "CreativeML Open RAIL-M",
        "modelspec.resolution": "640x768",
        "modelspec.thumbnail": "data:image/jpeg;base64," + "A" * 5000,
        "ss_tag_frequency": "{}",
    }
    path = write_hollow(tmp_path / "a.safetensors", shapes(SD1), metadata=said)
    info = recognise(path)
    assert info.recommended_size == (640, 768)
    assert info.metadata == {
        "title": "My model",
        "license": "CreativeML Open RAIL-M",
        "resolution": "640x768",
    }


@pytest.mark.parametrize("text", ["9x9", "100000x100000", "1024", "0x0", "1023x1024", "-8x8", ""])
def test_a_nonsensical_resolution_is_not_believed(tmp_path: Path, text: str) -> None:
    path = write_hollow(
        tmp_path / "a.safetensors", shapes(SDXL), metadata={"modelspec.resolution": text}
    )
    assert recognise(path).recommended_size == (1024, 1024)


# ---------------------------------------------------------------------------- what lacks a part


@pytest.mark.parametrize("name", FULL)
def test_any_one_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    tensors = shapes(FULL[name])
    unused = {key for key in tensors if key.endswith(("position_ids", "logit_scale"))}
    if name == "sd2":  # trained on the last but one layer of OpenCLIP
        unused |= {key for key in tensors if ".resblocks.23." in key or "text_projection" in key}
    needed = [key for key in tensors if key not in unused]
    for key in [*needed[:: len(needed) // 10], f"{U}input_blocks.0.0.weight"]:
        info = hollow(tmp_path, {k: shape for k, shape in tensors.items() if k != key})
        assert info.family == name
        assert repr(key) in (info.problem or ""), key
    for key in sorted(unused):
        assert hollow(tmp_path, {k: s for k, s in tensors.items() if k != key}).problem is None


def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    key = f"{U}middle_block.0.in_layers.2.weight"
    info = hollow(tmp_path, {**shapes(SD1), key: (1280, 640, 3, 3)})
    assert info.problem == (
        f"UNet: tensor {key!r} has the shape [1280, 640, 3, 3], "
        "this architecture wants [1280, 1280, 3, 3]"
    )


@pytest.mark.parametrize("name", FULL)
def test_missing_parts_are_named(tmp_path: Path, name: str) -> None:
    unet = {key: shape for key, shape in shapes(FULL[name]).items() if key.startswith(U)}
    info = hollow(tmp_path, unet)
    texts = {
        "sd1": "text encoder",
        "sd2": "text encoder",
        "sdxl": "first text encoder (CLIP-L) and no second text encoder (OpenCLIP-bigG)",
    }
    assert info.family == name
    assert info.problem == (
        f"it has no VAE and no {texts[name]} in it; take the full checkpoint of this model"
    )


def test_integers_in_place_of_weights_are_quantised(tmp_path: Path) -> None:
    tensors = shapes(SD1)
    kinds = {key: "I8" if key.startswith(U) else "F16" for key in tensors}
    path = write_hollow(tmp_path / "a.safetensors", tensors, dtype=kinds)
    assert "quantised" in (recognise(path).problem or "")


# ------------------------------------------------------------------------- what is another thing

XL = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
V2 = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
TE2 = "lora_te2_text_model_encoder_layers_0_mlp_fc1"
UP = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
CLIP = "transformer.resblocks.0.mlp.c_fc.weight"
SDXL_UNET = {key: shape for key, shape in shapes(SDXL).items() if key.startswith(U)}
CUT_XL = {key: s for key, s in shapes(SDXL).items() if ".transformer_blocks.9." not in key}

FOREIGN: list[tuple[dict[str, tuple[int, ...]], str, str]] = [
    (
        {f"{UP}.lora_down.weight": (8, 768), f"{UP}.lora_up.weight": (320, 8)},
        "lora",
        "LoRA for SD1",
    ),
    (
        {f"{XL}.lora_down.weight": (8, 2048), f"{XL}.lora_up.weight": (640, 8)},
        "lora",
        "LoRA for SDXL: .* folder loras/",
    ),
    (
        {f"{V2}.lora_A.weight": (8, 1024), f"{V2}.lora_B.weight": (320, 8)},
        "lora",
        "LoRA for SD2",
    ),
    ({f"{TE2}.lora_down.weight": (4, 1280), f"{TE2}.lora_up.weight": (5120, 4)}, "lora", "SDXL"),
    ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 4)}, "lora", "Flux, which"),
    ({f"{UP}.hada_w1_a": (8, 8)}, "lora", "for a model that is not known: .* loras/ beside"),
    ({f"{UP}.lokr_w1": (8, 8)}, "lora", "LoRA"),
    ({f"{UP}.oft_blocks": (8, 8)}, "lora", "LoRA"),
    ({"emb_params": (4, 768)}, "embedding", "embedding for SD1: .* folder embeddings/"),
    ({"emb_params": (4, 1024)}, "embedding", "embedding for SD2"),
    ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "embedding", "embedding for SDXL"),
    ({"<cat>": (1, 768)}, "embedding", "embedding for SD1"),
    ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "controlnet", "ControlNet"),
    ({"input_hint_block.0.weight": (16, 3, 3, 3)}, "controlnet", "ControlNet"),
    ({"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)}, "controlnet", "ControlNet"),
    ({"image_proj.proj.weight": (4, 4)}, "ip-adapter", "IP-Adapter"),
    ({"double_blocks.0.img_attn.qkv.weight": (9, 3)}, "flux", "a relative of FLUX, which is not"),
    ({f"{U}double_blocks.0.img_attn.qkv.weight": (9, 3)}, "flux", "a relative of FLUX"),
    ({"transformer_blocks.0.attn.add_q_proj.weight": (4, 4)}, "mmdit", "Stable Diffusion 3"),
    ({"clip_txt_mapper.weight": (4, 4)}, "cascade", "Cascade"),
    ({**shapes(SD1), f"{U}input_blocks.1.0.time_stack.x": (1,)}, "video", "video model"),
    ({**shapes(SD1), "scaled_fp8": (0,)}, "scaled-fp8", "separate scales"),
    ({**shapes(SD1), f"{U}out.2.scale_weight": ()}, "scaled-fp8", "fp16 file"),
    ({**shapes(SD1), f"{U}out.2.weight.absmax": (4,)}, "quantised", "quantised"),
    ({"decoder.conv_in.weight": (512, 4, 3, 3), "a": (1,)}, "vae", "VAE, .* folder vae/"),
    ({"first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3)}, "vae", "folder vae/"),
    ({"decoder.layers.0.weight": (64, 4, 3, 3)}, "vae", "TAESD"),
    (
        {
            "conv_in.weight": (320, 4, 3, 3),
            "down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3),
        },
        "unet",
        "UNet alone, .* model_index.json",
    ),
    ({"text_model.encoder.layers.0.mlp.fc1.weight": (4, 4)}, "text-encoder", "text encoder alone"),
    (upscaler("first"), "upscaler", "an upscaler, .* folder upscale_models/"),
    (upscaler("basicsr", channels=1, colours=1), "upscaler", "of 1 channels"),
    ({"model_ema.diffusion_modelout2weight": (4,)}, "ema", "running average"),
    ({}, "unknown", "no tensors"),
    ({"who.knows": (700, 3)}, "unknown", "'who.knows'"),
    ({**SDXL_UNET, "edm_mean": (1,)}, "playground", "Playground 2.5"),
    ({**SDXL_UNET, "edm_vpred.sigma_max": ()}, "cosxl", "CosXL"),
    (CUT_XL, "sdxl-distilled", "cut-down SDXL"),
    (
        {f"{U}input_blocks.0.0.weight": (384, 4, 3, 3), f"{U}x.attn2.to_k.weight": (384, 1280)},
        "sdxl-refiner",
        "refiner.* take an SDXL base model",
    ),
    (
        {f"{U}input_blocks.0.0.weight": (256, 7, 3, 3), f"{U}x.attn2.to_k.weight": (256, 1024)},
        "upscaler",
        "x4 upscaler",
    ),
    (
        {**shapes(SD2), f"{U}label_emb.0.0.weight": (1280, 2048)},
        "unclip",
        "unCLIP",
    ),
    (shapes(replace(SD1, inputs=8)), "unknown", "instruct-pix2pix"),
    (shapes(replace(SD2, inputs=5)), "unknown", "depth-to-image"),
    (shapes(replace(SD1, inputs=12)), "unknown", "12 input channels"),
    (shapes(replace(SD1, context=640)), "unknown", "unknown architecture"),
    (shapes(TINY_SD1), "unknown", "unknown architecture"),
]


@pytest.mark.parametrize(("tensors", "family", "words"), FOREIGN, ids=lambda value: str(value)[:40])
def test_a_file_that_is_another_thing_is_told_what_and_where_it_belongs(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], family: str, words: str
) -> None:
    info = hollow(tmp_path, tensors)
    assert info.family == family
    assert re.search(words, info.problem or ""), info.problem


@pytest.mark.parametrize(
    ("said", "family"),
    [
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "SDXL"),
        ({"ss_base_model_version": "sd_v1"}, "SD1"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}, "SD2"),
        ({"modelspec.architecture": "flux-1-dev/lora"}, "Flux"),
    ],
)
def test_metadata_tells_what_a_lora_is_for_where_its_shapes_do_not(
    tmp_path: Path, said: dict[str, str], family: str
) -> None:
    metadata = {"ss_network_module": "networks.lora", **said}
    info = hollow(tmp_path, {"x.alpha": ()}, **metadata)
    assert f"LoRA for {family}" in (info.problem or "")


# ------------------------------------------------------------------------------ other files


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("model.ckpt", "pickle"),
        ("model.PT", "pickle"),
        ("model.pth", "pickle"),
        ("model.bin", "pickle"),
        ("flux.gguf", "gguf"),
        ("model.onnx", "onnx"),
        ("model.safetensors.part", "download"),
        ("Unconfirmed 1234.crdownload", "download"),
        ("model.safetensors.aria2", "download"),
    ],
)
def test_files_of_other_formats_are_listed_under_their_whole_name(
    tmp_path: Path, name: str, family: str
) -> None:
    (tmp_path / name).write_bytes(b"12345")
    info = recognise(tmp_path / name)
    assert (info.name, info.family, info.size) == (name, family, 5)
    assert info.problem


@pytest.mark.parametrize(
    "name", [".hidden.safetensors", "a.json", "a.png", "a.txt", "README", "a.yaml"]
)
def test_hidden_files_and_sidecars_are_not_its_business(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert CheckpointLoader().recognise(tmp_path / name) is None


def test_folders_are_not_its_business_whatever_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "a.safetensors").mkdir()
    assert CheckpointLoader().recognise(tmp_path / "vae") is None
    assert CheckpointLoader().recognise(tmp_path / "a.safetensors") is None


def test_damaged_files_are_broken_models_with_the_reason(tmp_path: Path) -> None:
    path = write_hollow(tmp_path / "half.safetensors", shapes(SD1))
    os.truncate(path, path.stat().st_size // 2)
    (tmp_path / "page.safetensors").write_text("<!doctype html>", "utf-8")
    half, page = recognise(path), recognise(tmp_path / "page.safetensors")
    assert (half.family, page.family) == ("broken", "broken")
    assert "incomplete" in (half.problem or "")
    assert "web page" in (page.problem or "")


# ------------------------------------------------------------------- a configuration inside it


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("not json", "inside the file is damaged"),
        ("[]", "no JSON object"),
        ("{}", "model_index.json is missing"),
        ({"unet/config.json": None}, "unet/config.json is missing"),
        ({"unet/config.json": []}, "no JSON object"),
        ({"unet/config.json": {"block_out_channels": "many"}}, "no usable block_out_channels"),
        ({"vae/config.json": {"block_out_channels": None}}, "block_out_channels"),
        ({"scheduler/scheduler_config.json": {"prediction_type": "flow"}}, "flow"),
        ({"scheduler/scheduler_config.json": {"beta_schedule": "wavy"}}, "wavy"),
        ({"text_encoder/config.json": {"vocab_size": "x"}}, "vocab_size"),
        ({"model_index.json": {"_class_name": "FluxPipeline"}}, "FluxPipeline"),
    ],
)
def test_a_broken_configuration_inside_is_told(
    tmp_path: Path, change: str | dict[str, object], words: str
) -> None:
    text = change if isinstance(change, str) else json.dumps({**configs(TINY_SD1), **change})
    path = write_checkpoint(
        tmp_path / "a.safetensors", TINY_SD1, embed=False, metadata={"imagine.config": text}
    )
    problem = recognise(path).problem or ""
    assert re.search(words, problem), problem


def test_a_configuration_inside_that_the_tensors_contradict_is_told(tmp_path: Path) -> None:
    wider: Layout = replace(TINY_SD1, channels=(32, 32))
    path = write_checkpoint(
        tmp_path / "a.safetensors",
        TINY_SD1,
        embed=False,
        metadata={"imagine.config": json.dumps(configs(wider))},
    )
    assert "this architecture wants" in (recognise(path).problem or "")


@pytest.mark.parametrize(
    ("layout", "kind"), [(TINY_SDXL, "StableDiffusion"), (TINY_SD1, "StableDiffusionXL")]
)
def test_a_configuration_inside_for_another_number_of_text_encoders_is_told(
    tmp_path: Path, layout: Layout, kind: str
) -> None:
    other = TINY_SD1 if layout is TINY_SDXL else TINY_SDXL
    text = json.dumps(configs(other))
    assert f"{kind}Pipeline" in text
    path = write_checkpoint(
        tmp_path / "a.safetensors", layout, embed=False, metadata={"imagine.config": text}
    )
    assert recognise(path).problem


def test_an_sdxl_without_its_embedding_of_sizes_is_damaged(tmp_path: Path) -> None:
    tensors = {key: s for key, s in shapes(SDXL).items() if ".label_emb." not in key}
    info = hollow(tmp_path, tensors)
    assert info.family == "sdxl"
    assert re.search(r"label_emb.* and 3 more missing", info.problem or ""), info.problem


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_mixture_of_tensors_is_something(tmp_path: Path, data: st.DataObject) -> None:
    """Tensors lost, reshaped and taken from other files: an answer, and never an exception."""
    pool = {**shapes(data.draw(st.sampled_from([SD1, SD2, SDXL, TINY_SD1])))}
    keys = sorted(pool)
    for key in data.draw(st.lists(st.sampled_from(keys), max_size=4)):
        pool.pop(key, None)
    shape = st.lists(st.integers(0, 4), max_size=5).map(tuple)
    pool |= data.draw(st.dictionaries(st.sampled_from(keys), shape, max_size=3))
    foreign = [tensors for tensors, _, _ in FOREIGN if len(tensors) < 5]
    pool |= data.draw(st.just({}) | st.sampled_from(foreign))
    info = hollow(tmp_path, pool)
    assert (info.problem is None) == (info.clip_layers is not None)


def test_random_files_are_recognised_as_something_without_an_exception(tmp_path: Path) -> None:
    head, _ = header_bytes(shapes(TINY_SD1), metadata={"imagine.config": "{}"})
    for length in range(0, len(head), 997):
        (tmp_path / "a.safetensors").write_bytes(head[:length])
        assert recognise(tmp_path / "a.safetensors").problem
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    assert "no tensors" in (recognise(tmp_path / "a.safetensors").problem or "")
