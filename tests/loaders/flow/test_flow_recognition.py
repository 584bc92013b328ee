"""Flow models are told by the names and the shapes of their tensors alone."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from checkpoints import write_hollow
from flow_keys import OFFICIAL, Shape, expanded, flux, flux2, sd3
from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders.checkpoint import CheckpointLoader
from imagine_plugins.loaders.flow.checkpoint import FlowCheckpoint
from imagine_plugins.loaders.flow.recognition import FAMILIES, PREFIXES, flow_in_file
from imagine_plugins.loaders.flow.shifts import EmpiricalShift, FixedShift, ShiftBySize
from imagine_plugins.loaders.header import Header, Tensor, read_header
from imagine_plugins.loaders.problems import ProblemError
from imagine_plugins.loaders.vae import VaeLoader
from vaes import vae_shapes

U = "model.diffusion_model."

# diffusers' names where its classes need not be built: the marks and what configurations are read
# from. The whole of them is in test_conversion.
FLUX_CONFIG = {
    "patch_size": 1,
    "in_channels": 64,
    "out_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "axes_dims_rope": (16, 56, 56),
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
}
SD3_CONFIG = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "out_channels": 16,
    "pos_embed_max_size": 192,
    "dual_attention_layers": (),
    "qk_norm": None,
}
FLUX2_CONFIG = {
    "patch_size": 1,
    "in_channels": 128,
    "out_channels": 128,
    "num_layers": 5,
    "num_single_layers": 20,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "timestep_guidance_channels": 256,
    "mlp_ratio": 3.0,
    "axes_dims_rope": (32, 32, 32, 32),
    "rope_theta": 2000,
    "eps": 1e-6,
    "guidance_embeds": False,
}
# The values of config.json in the folder transformer/ of each official repository.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "SD3 Medium": ("sd3", SD3_CONFIG),
    "SD3.5 Medium": (
        "sd3",
        {
            **SD3_CONFIG,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
    ),
    "SD3.5 Large": (
        "sd3",
        {
            **SD3_CONFIG,
            "num_layers": 38,
            "num_attention_heads": 38,
            "caption_projection_dim": 2432,
            "qk_norm": "rms_norm",
        },
    ),
    "FLUX.1 [dev]": ("flux", FLUX_CONFIG),
    "FLUX.1 [schnell]": ("flux", {**FLUX_CONFIG, "guidance_embeds": False}),
    "FLUX.1 Fill [dev]": ("flux", {**FLUX_CONFIG, "in_channels": 384}),
    "FLUX.1-lite": ("flux", {**FLUX_CONFIG, "num_layers": 8}),
    "FLUX.2 [klein] 4B": ("flux2", FLUX2_CONFIG),
    "FLUX.2 [klein] 9B": (
        "flux2",
        {
            **FLUX2_CONFIG,
            "num_layers": 8,
            "num_single_layers": 24,
            "num_attention_heads": 32,
            "joint_attention_dim": 12288,
        },
    ),
    "FLUX.2 [dev]": (
        "flux2",
        {
            **FLUX2_CONFIG,
            "num_layers": 8,
            "num_single_layers": 48,
            "num_attention_heads": 48,
            "joint_attention_dim": 15360,
            "guidance_embeds": True,
        },
    ),
    "Z-Image": (
        "z-image",
        {
            "all_patch_size": (2,),
            "all_f_patch_size": (1,),
            "in_channels": 16,
            "dim": 3840,
            "n_layers": 30,
            "n_refiner_layers": 2,
            "n_heads": 30,
            "n_kv_heads": 30,
            "norm_eps": 1e-5,
            "qk_norm": True,
            "cap_feat_dim": 2560,
            "rope_theta": 256.0,
            "t_scale": 1000.0,
            "axes_dims": (32, 48, 48),
            "axes_lens": (1536, 512, 512),
        },
    ),
    "Qwen-Image": (
        "qwen-image",
        {
            "patch_size": 2,
            "in_channels": 64,
            "out_channels": 16,
            "num_layers": 60,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 3584,
            "guidance_embeds": False,
            "axes_dims_rope": (16, 56, 56),
        },
    ),
    "Chroma": (
        "chroma",
        {
            "patch_size": 1,
            "in_channels": 64,
            "out_channels": 64,
            "num_layers": 19,
            "num_single_layers": 38,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "axes_dims_rope": (16, 56, 56),
            "approximator_num_channels": 64,
            "approximator_hidden_dim": 5120,
            "approximator_layers": 5,
        },
    ),
}
# Millions of parameters, as the pages of the official repositories say.
SIZES = {
    "SD3.5 Large": 8057 + 90,  # the table of positions is no parameter
    "FLUX.1 [dev]": 11901,
    "FLUX.1 [schnell]": 11891,
    "FLUX.2 [klein] 4B": 3876,
    "FLUX.2 [klein] 9B": 9079,
    "FLUX.2 [dev]": 32223,
    "Z-Image": 6155,
    "Qwen-Image": 20430,
    "Chroma": 8900,
}


def found_in(
    folder: Path, tensors: Mapping[str, Shape], name: str = "model", **options: Any
) -> FlowCheckpoint:
    path = write_hollow(folder / f"{name}.safetensors", tensors, **options)
    found = flow_in_file(path, read_header(path))
    assert found is not None
    return found


def listed(folder: Path, tensors: Mapping[str, Shape], **options: Any) -> ModelInfo:
    info = CheckpointLoader().recognise(
        write_hollow(folder / "model.safetensors", tensors, **options)
    )
    assert info is not None
    return info


# ------------------------------------------------------------------------------ what the shapes say


@pytest.mark.parametrize("name", OFFICIAL)
def test_shapes_give_the_configuration_of_each_official_transformer(
    tmp_path: Path, name: str
) -> None:
    found = found_in(tmp_path, expanded(OFFICIAL[name]))
    family, config = CONFIGS[name]
    assert (found.family.name, found.config) == (family, config)


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_as_many_as_the_official_pages_say(tmp_path: Path, name: str) -> None:
    parameters = listed(tmp_path, expanded(OFFICIAL[name])).parameters
    assert parameters is not None
    assert parameters / 1e6 == pytest.approx(SIZES[name], rel=0.01)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", ["SD3.5 Medium", "FLUX.1 [dev]", "Z-Image", "Qwen-Image"])
def test_prefixes_of_real_files_are_known(tmp_path: Path, name: str, prefix: str) -> None:
    found = found_in(tmp_path, expanded(OFFICIAL[name], prefix=prefix))
    assert found.config == CONFIGS[name][1]
    assert set(found.transformer) == set(expanded(OFFICIAL[name]))


@pytest.mark.parametrize("name", ["FLUX.1 [dev]", "FLUX.2 [klein] 4B", "Chroma"])
def test_norms_may_be_called_weight_as_comfyui_saves_them_by_now(tmp_path: Path, name: str) -> None:
    usual = expanded(OFFICIAL[name])
    renamed = {re.sub(r"scale$", "weight", key): shape for key, shape in usual.items()}
    assert renamed != usual
    found = found_in(tmp_path, renamed)
    assert set(found.transformer) == set(usual)
    assert found.config == CONFIGS[name][1]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_a_recognised_flow_model_says_what_it_is(tmp_path: Path, dtype: str) -> None:
    tensors = expanded(flux(doubles=1, singles=1))
    info = listed(tmp_path, tensors, dtype=dtype, metadata={"modelspec.title": "Mine"})
    assert (info.family, info.noise, info.recommended_size) == ("flux", "flow", (1024, 1024))
    assert info.problem == "FLUX.1 [dev] is recognised, but cannot draw yet"
    assert info.metadata == {"title": "Mine"}
    assert info.details == {"variant": "FLUX.1 [dev]"}
    assert info.size == (tmp_path / "model.safetensors").stat().st_size
    assert (
        info.dtype
        == {
            "F32": "float32",
            "F16": "float16",
            "BF16": "bfloat16",
            "F8_E4M3": "float8_e4m3fn",
            "F8_E5M2": "float8_e5m2",
        }[dtype]
    )


def test_fp8_with_scales_is_recognised(tmp_path: Path) -> None:
    tensors = expanded(flux(doubles=2, singles=1))
    scales = {"scaled_fp8": (2,), "double_blocks.0.img_attn.qkv.scale_weight": ()}
    assert found_in(tmp_path, tensors | scales).variant.title == "FLUX.1 [dev]"


def test_a_configuration_inside_a_file_is_believed(tmp_path: Path) -> None:
    config = {**FLUX_CONFIG, "attention_head_dim": 64, "axes_dims_rope": [8, 28, 28]}
    said = {"imagine.config": json.dumps({"transformer/config.json": config})}
    found = found_in(tmp_path, expanded(flux(doubles=1, singles=1)), metadata=said)
    assert found.config == config


# ------------------------------------------------------------------------------ which variant it is

GUIDED = flux(doubles=1, singles=1)
KLEIN = flux2(3072, 1, 1, 7680)
NAMED: list[tuple[list[Any], str, str]] = [
    (GUIDED, "flux1-dev-fp8", "FLUX.1 [dev]"),
    (GUIDED, "mine", "FLUX.1 [dev]"),
    (GUIDED, "flux1-kontext-dev", "FLUX.1 Kontext [dev]"),
    (GUIDED, "flux1-krea-dev_fp8_scaled", "FLUX.1 Krea [dev]"),
    (flux(doubles=1, singles=1, guided=False), "mine", "FLUX.1 [schnell]"),
    (flux(doubles=1, singles=1, channels=384), "mine", "FLUX.1 Fill [dev]"),
    (sd3(38, 8, normed=True), "sd3.5_large", "Stable Diffusion 3.5 Large"),
    (sd3(38, 8, normed=True), "sd3.5_large_turbo", "Stable Diffusion 3.5 Large Turbo"),
    (sd3(24, 8, normed=True, duals=13), "mine", "Stable Diffusion 3.5 Medium"),
    (sd3(24, 8), "mine", "Stable Diffusion 3 Medium"),
    (KLEIN, "flux-2-klein-4b", "FLUX.2 [klein] 4B"),
    (KLEIN, "flux-2-klein-base-4b-fp8", "FLUX.2 [klein] Base 4B"),
    (KLEIN, "database", "FLUX.2 [klein] 4B"),
    (flux2(4096, 1, 1, 12288), "mine", "FLUX.2 [klein] 9B"),
    (flux2(4096, 1, 1, 12288), "FLUX.2-klein-base-9B", "FLUX.2 [klein] Base 9B"),
    (flux2(6144, 1, 1, 15360, guided=True), "mine", "FLUX.2 [dev]"),
    (OFFICIAL["Z-Image"], "z_image_turbo_bf16", "Z-Image Turbo"),
    (OFFICIAL["Z-Image"], "mine", "Z-Image Turbo"),
    (OFFICIAL["Z-Image"], "z_image_bf16", "Z-Image"),
    (OFFICIAL["Z-Image"], "z-image-Q8_0", "Z-Image"),
    (OFFICIAL["Z-Image"], "zImageBase_v1", "Z-Image"),
    (OFFICIAL["Qwen-Image"], "qwen_image_bf16", "Qwen-Image"),
    (OFFICIAL["Qwen-Image"], "qwen-image-lightning-8steps", "Qwen-Image Lightning"),
    (OFFICIAL["Chroma"], "Chroma1-HD", "Chroma"),
]


@pytest.mark.parametrize(("rows", "name", "title"), NAMED, ids=lambda value: str(value)[:30])
def test_the_name_tells_what_shapes_cannot(
    tmp_path: Path, rows: list[Any], name: str, title: str
) -> None:
    assert found_in(tmp_path, expanded(rows), name).variant.title == title


def test_metadata_is_believed_before_the_name(tmp_path: Path) -> None:
    said = {"modelspec.title": "FLUX.1 Krea dev"}
    found = found_in(tmp_path, expanded(GUIDED), "kontext", metadata=said)
    assert found.variant.title == "FLUX.1 Krea [dev]"


def test_each_variant_has_what_its_pipeline_has() -> None:
    """The model cards' values; guidance 1 is none."""
    facts = {
        variant.title: (
            variant.texts,
            variant.steps,
            variant.guidance,
            variant.distilled_guidance,
            variant.kind,
            variant.tokens,
        )
        for family in FAMILIES
        for variant in family.variants
    }
    three, two = ("clip-l", "clip-g", "t5-xxl"), ("clip-l", "t5-xxl")
    four, eight, vision = ("qwen3-4b",), ("qwen3-8b",), ("qwen2.5-vl-7b",)
    assert facts == {
        "Stable Diffusion 3 Medium": (three, 28, 7.0, None, "free", 256),
        "Stable Diffusion 3.5 Medium": (three, 40, 4.5, None, "free", 256),
        "Stable Diffusion 3.5 Large": (three, 28, 3.5, None, "free", 256),
        "Stable Diffusion 3.5 Large Turbo": (three, 4, 1.0, None, "none", 256),
        "FLUX.1 [dev]": (two, 28, 1.0, 3.5, "distilled", 512),
        "FLUX.1 Kontext [dev]": (two, 28, 1.0, 2.5, "distilled", 512),
        "FLUX.1 Krea [dev]": (two, 28, 1.0, 4.5, "distilled", 512),
        "FLUX.1 Fill [dev]": (two, 50, 1.0, 30.0, "distilled", 512),
        "FLUX.1 [schnell]": (two, 4, 1.0, None, "none", 256),
        "FLUX.2 [klein] 4B": (four, 4, 1.0, None, "none", 512),
        "FLUX.2 [klein] 9B": (eight, 4, 1.0, None, "none", 512),
        "FLUX.2 [klein] Base 4B": (four, 50, 4.0, None, "free", 512),
        "FLUX.2 [klein] Base 9B": (eight, 50, 4.0, None, "free", 512),
        "FLUX.2 [dev]": (("mistral-3-small",), 28, 1.0, 4.0, "distilled", 512),
        "Z-Image": (four, 50, 4.0, None, "free", 512),
        "Z-Image Turbo": (four, 8, 1.0, None, "none", 512),
        "Qwen-Image": (vision, 50, 4.0, None, "free", 512),
        "Qwen-Image Lightning": (vision, 8, 1.0, None, "none", 512),
        "Chroma": (("t5-xxl",), 40, 3.0, None, "free", 512),
    }


def test_a_variant_gives_the_defaults_of_requests(tmp_path: Path) -> None:
    dev = found_in(tmp_path, expanded(GUIDED)).variant
    assert dev.defaults == {
        "steps": 28,
        "guidance_scale": 1.0,
        "sampler": "euler",
        "distilled_guidance": 3.5,
    }
    assert dev.negative
    schnell = found_in(tmp_path, expanded(flux(doubles=1, singles=1, guided=False))).variant
    assert schnell.defaults == {"steps": 4, "guidance_scale": 1.0, "sampler": "euler"}
    assert not schnell.negative


def test_each_variant_has_the_shift_of_its_scheduler() -> None:
    shifts = {variant.title: variant.shift for family in FAMILIES for variant in family.variants}
    assert shifts["FLUX.1 [dev]"] == ShiftBySize()
    assert shifts["FLUX.1 [schnell]"] == FixedShift(1.0)
    assert shifts["Z-Image"] == FixedShift(6.0)
    assert shifts["Z-Image Turbo"] == FixedShift(3.0)
    assert shifts["Qwen-Image"] == ShiftBySize(base=0.5, most=0.9, most_tokens=8192, terminal=0.02)
    assert {shifts[title] for title in shifts if "FLUX.2" in title} == {EmpiricalShift()}
    assert {shifts[title] for title in shifts if "Stable" in title} == {FixedShift(3.0)}


# ------------------------------------------------------------------------------- what else is in it

TEXT_KEYS = {
    "text_encoders.clip_l.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
    "text_encoders.clip_g.transformer.text_model.embeddings.token_embedding.weight": (49408, 1280),
    "text_encoders.t5xxl.transformer.shared.weight": (32128, 4096),
}


def test_a_transformer_alone_needs_a_vae_and_text_encoders(tmp_path: Path) -> None:
    assert found_in(tmp_path, expanded(GUIDED)).needs == ("vae", "clip-l", "t5-xxl")
    assert found_in(tmp_path, expanded(sd3(2, 8))).needs == ("vae", "clip-l", "clip-g")
    assert found_in(tmp_path, expanded(OFFICIAL["Z-Image"])).needs == ("vae", "qwen3-4b")


@pytest.mark.parametrize("root", ["first_stage_model.", "vae."])
def test_an_all_in_one_file_holds_what_it_draws_with(tmp_path: Path, root: str) -> None:
    vae = vae_shapes(root=root)
    tensors = {**expanded(sd3(2, 8), prefix=U), **vae, **TEXT_KEYS}
    found = found_in(tmp_path, tensors)
    assert found.needs == ()
    assert len(found.vae) == len(vae)
    assert "decoder.conv_in.weight" in found.vae
    assert {text: list(weights) for text, weights in found.texts.items()} == {
        "clip-l": ["text_model.embeddings.token_embedding.weight"],
        "clip-g": ["text_model.embeddings.token_embedding.weight"],
        "t5-xxl": ["shared.weight"],
    }
    assert set(found.transformer) == set(expanded(sd3(2, 8)))
    without = {name: shape for name, shape in tensors.items() if "t5xxl" not in name}
    assert found_in(tmp_path, without).needs == ()  # SD3 draws without T5
    flux = {**expanded(GUIDED, prefix=U), **vae, **TEXT_KEYS}
    assert found_in(tmp_path, flux).needs == ()
    without = {name: shape for name, shape in flux.items() if "t5xxl" not in name}
    assert found_in(tmp_path, without).needs == ("t5-xxl",)


def test_an_all_in_one_file_is_no_vae(tmp_path: Path) -> None:
    for prefix in ("", U, "diffusion_model."):
        tensors = {**expanded(GUIDED, prefix=prefix), **vae_shapes(root="vae.")}
        path = write_hollow(tmp_path / "model.safetensors", tensors)
        assert VaeLoader().recognise(path) is None


# -------------------------------------------------------------------------------- what cannot serve

LESS = {
    key: s
    for key, s in expanded(flux(doubles=3, singles=1)).items()
    if "blocks.1.img_mlp.0.weight" not in key
}
NO_BLOCK = {
    key: s
    for key, s in expanded(flux(doubles=3, singles=1)).items()
    if "double_blocks.1." not in key
}
REFUSED: list[tuple[dict[str, Shape], str, str]] = [
    (
        expanded(flux(doubles=1, singles=1, channels=128)),
        "flux",
        "FLUX.1 Depth .* take FLUX.1 .dev",
    ),
    (
        {**expanded(OFFICIAL["Z-Image"]), "siglip_embedder.1.weight": (1, 1)},
        "z-image",
        "Z-Image Omni",
    ),
    ({**expanded(OFFICIAL["Chroma"]), "img_in_patch.weight": (1, 1)}, "chroma", "Chroma Radiance"),
    (
        {**expanded(OFFICIAL["Qwen-Image"]), "__index_timestep_zero__": (0,)},
        "qwen-image",
        "Edit 2511",
    ),
    (expanded(flux2(3072, 1, 1, 4096)), "flux2", "prompts of width 4096"),
    (LESS, "flux", "'double_blocks.1.img_mlp.0.weight' is missing"),
    (NO_BLOCK, "flux", r"'double_blocks.1.*' is missing"),
    ({**expanded(GUIDED), "img_in.weight": (3072,)}, "flux", "unknown architecture"),
    (
        {**expanded(GUIDED), "double_blocks.0.img_attn.norm.query_norm.scale": (64,)},
        "flux",
        "heads",
    ),
    ({**expanded(GUIDED), "img_in.weight": (0, 64)}, "flux", "no size"),
    ({key: s for key, s in expanded(GUIDED).items() if key != "txt_in.weight"}, "flux", "txt_in"),
]


@pytest.mark.parametrize(
    ("tensors", "family", "words"), REFUSED, ids=lambda value: str(value)[-40:]
)
def test_what_cannot_serve_says_why(
    tmp_path: Path, tensors: dict[str, Shape], family: str, words: str
) -> None:
    info = listed(tmp_path, tensors)
    assert info.family == family
    assert re.search(words, info.problem or ""), info.problem


def test_quantised_weights_of_other_formats_are_refused(tmp_path: Path) -> None:
    tensors = expanded(GUIDED)
    kinds = {key: "I8" if key.endswith("qkv.weight") else "F16" for key in tensors}
    info = listed(tmp_path, tensors, dtype=kinds)
    assert (info.family, "quantised (I8)" in (info.problem or "")) == ("flux", True)


def test_a_controlnet_of_the_same_blocks_is_no_flow_model(tmp_path: Path) -> None:
    steered = {**expanded(GUIDED), "controlnet_blocks.0.weight": (3072, 3072)}
    path = write_hollow(tmp_path / "a.safetensors", steered)
    assert flow_in_file(path, read_header(path)) is None


# -------------------------------------------------------------------------------- any header at all

WHOLE = [
    expanded(sd3(4, 8, normed=True, duals=2), prefix=U),
    expanded(flux(doubles=2, singles=2)),
    expanded(flux2(3072, 2, 2, 7680)),
    {**expanded(flux(doubles=1, singles=1), prefix=U), **TEXT_KEYS},
]
WHOLE += [
    {
        name: shape
        for name, shape in expanded(OFFICIAL[title]).items()
        if not (match := re.search(r"(?:layers|blocks)\.(\d+)\.", name)) or int(match[1]) < 2
    }
    for title in ("Z-Image", "Qwen-Image", "Chroma")
]


BASES = [{name: Tensor("F16", shape, 0, 0) for name, shape in tensors.items()} for tensors in WHOLE]


def mutated(tensors: Mapping[str, Tensor], chance: random.Random) -> dict[str, Tensor]:
    """A header with some tensors gone, renamed, of other shapes, ranks and types."""
    found, names = dict(tensors), list(tensors)
    for name in chance.sample(names, chance.choice([1, 1, 2, 5, 30])):
        dtype, shape = "F16", found.pop(name).shape
        match chance.randrange(7):
            case 0:
                shape = tuple(chance.choice([0, 1, 2, 3, 64, 128, 2**48]) for _ in shape)
            case 1:
                shape = (*shape, chance.choice([0, 1, 7]))
            case 2:
                shape = shape[1:]
            case 3:
                dtype = chance.choice(["U8", "F8_E4M3", "Q4_K", "nonsense"])
            case 4:
                name = name[chance.randrange(len(name)) :]  # noqa: PLW2901 - another name for it
            case 5:
                number = chance.choice(["x", "99999999", "-1", "٣", ""])
                name = name.replace(".0.", f".{number}.")  # noqa: PLW2901 - another name for it
            case _:
                continue
        found[name] = Tensor(dtype, shape, 0, 0)
    return found


EMBEDDED = ["{}", "[", '{"transformer/config.json": {"in_channels": 0}}']


def test_ten_thousand_mutated_headers_never_crash_recognition() -> None:
    chance, path = random.Random(18), Path("mutated.safetensors")
    outcomes = {"none": 0, "found": 0, "problem": 0}
    for number in range(10_000):
        said = {"imagine.config": chance.choice(EMBEDDED)} if number % 20 == 0 else {}
        tensors = mutated(BASES[number % len(BASES)], chance)
        header = Header(tensors=tensors, metadata=said, start=0, size=0)
        try:
            found = flow_in_file(path, header)
        except ProblemError as error:
            outcomes["problem"] += bool(str(error))
        else:
            outcomes["none" if found is None else "found"] += 1
            assert found is None or found.variant.title
    assert sum(outcomes.values()) == 10_000
    assert min(outcomes.values()) > 200, outcomes
