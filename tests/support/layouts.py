"""The sizes of the model families, full and tiny, and their diffusers configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A CLIP text encoder; `openclip` gives the key names."""

    prefix: str
    width: int
    layers: int
    heads: int
    openclip: bool = False
    file_layers: int | None = None  # OpenCLIP-H has one more than SD2 uses
    projection: int | None = None
    vocabulary: int = 49408
    activation: str = "quick_gelu"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The sizes of one family's modules."""

    name: str
    texts: tuple[Clip, ...]
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    depths: tuple[int, ...] = (1, 1, 1, 0)
    heads: Any = 8
    context: int = 768
    resnets: int = 2
    inputs: int = 4
    linear: bool = False
    labels: int | None = None
    time_ids: int = 256
    vae: tuple[int, ...] = (128, 256, 512, 512)
    vae_resnets: int = 2
    vae_scale: float = 0.18215
    groups: int = 32
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    zero_empty: bool = False


def _clip_l(prefix: str) -> Clip:
    return Clip(prefix=prefix, width=768, layers=12, heads=12)


SD1 = Layout(name="sd1", texts=(_clip_l("cond_stage_model.transformer."),))
SD2 = Layout(
    name="sd2",
    texts=(
        Clip(
            prefix="cond_stage_model.model.",
            width=1024,
            layers=23,
            file_layers=24,
            heads=16,
            openclip=True,
            projection=1024,
            activation="gelu",
        ),
    ),
    heads=(5, 10, 20, 20),
    context=1024,
    linear=True,
)
SDXL = Layout(
    name="sdxl",
    texts=(
        _clip_l("conditioner.embedders.0.transformer."),
        Clip(
            prefix="conditioner.embedders.1.model.",
            width=1280,
            layers=32,
            heads=20,
            openclip=True,
            projection=1280,
            activation="gelu",
        ),
    ),
    channels=(320, 640, 1280),
    depths=(0, 2, 10),
    heads=(5, 10, 20),
    context=2048,
    linear=True,
    labels=2816,
    vae_scale=0.13025,
    zero_empty=True,
)
TINY_SD1 = Layout(
    name="sd1",
    texts=(Clip(prefix="cond_stage_model.transformer.", width=32, layers=3, heads=2),),
    channels=(16, 32),
    depths=(1, 1),
    heads=2,
    context=32,
    resnets=1,
    vae=(8, 16, 16),
    vae_resnets=1,
    groups=8,
)
TINY_SD2 = replace(
    TINY_SD1,
    name="sd2",
    texts=(
        Clip(
            prefix="cond_stage_model.model.",
            width=32,
            layers=3,
            file_layers=4,
            heads=2,
            openclip=True,
            projection=32,
            activation="gelu",
        ),
    ),
    heads=(2, 4),
    linear=True,
)
TINY_SDXL = replace(
    TINY_SD1,
    name="sdxl",
    texts=(
        Clip(prefix="conditioner.embedders.0.transformer.", width=16, layers=3, heads=2),
        Clip(
            prefix="conditioner.embedders.1.model.",
            width=32,
            layers=4,
            heads=2,
            openclip=True,
            projection=32,
            activation="gelu",
        ),
    ),
    depths=(0, 2),
    heads=(2, 4),
    context=48,
    linear=True,
    labels=32 + 6 * 8,
    time_ids=8,
    vae_scale=0.13025,
    zero_empty=True,
)


def inpainting(layout: Layout) -> Layout:
    """The same with the UNet's five further input channels."""
    return replace(layout, inputs=9)


def configs(layout: Layout) -> dict[str, Any]:
    """The files of a diffusers folder for the layout, by name."""
    several = len(layout.texts) > 1
    cross = [bool(depth) for depth in layout.depths]
    unet: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 16 if len(layout.channels) < 3 else 64,
        "in_channels": layout.inputs,
        "out_channels": 4,
        "block_out_channels": list(layout.channels),
        "down_block_types": [f"{'CrossAttn' * on}DownBlock2D" for on in cross],
        "up_block_types": [f"{'CrossAttn' * on}UpBlock2D" for on in reversed(cross)],
        "layers_per_block": layout.resnets,
        "attention_head_dim": layout.heads if isinstance(layout.heads, int) else [*layout.heads],
        "transformer_layers_per_block": [depth or 1 for depth in layout.depths],
        "cross_attention_dim": layout.context,
        "use_linear_projection": layout.linear,
        "norm_num_groups": layout.groups,
    }
    if layout.labels:
        unet |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": layout.time_ids,
            "projection_class_embeddings_input_dim": layout.labels,
        }
    files: dict[str, Any] = {
        "model_index.json": _index(layout),
        "unet/config.json": unet,
        "vae/config.json": {
            "_class_name": "AutoencoderKL",
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 4,
            "block_out_channels": list(layout.vae),
            "down_block_types": ["DownEncoderBlock2D"] * len(layout.vae),
            "up_block_types": ["UpDecoderBlock2D"] * len(layout.vae),
            "layers_per_block": layout.vae_resnets,
            "norm_num_groups": layout.groups,
            "scaling_factor": layout.vae_scale,
            "force_upcast": several,
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "DDIMScheduler",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
            "steps_offset": 1,
            "clip_sample": False,
            "set_alpha_to_one": False,
            **layout.scheduler,
        },
    }
    for number, text in enumerate(layout.texts):
        files[f"text_encoder{f'_{number + 1}' * bool(number)}/config.json"] = clip_config(text)
    return files


def clip_config(text: Clip) -> dict[str, Any]:
    """The configuration of a text encoder, as its folder has it."""
    return {
        "hidden_size": text.width,
        "intermediate_size": 4 * text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "projection_dim": text.projection or text.width,
        "hidden_act": text.activation,
        "vocab_size": text.vocabulary,
        "max_position_embeddings": 77,
        "bos_token_id": text.vocabulary - 2,
        "eos_token_id": text.vocabulary - 1,
    }


def _index(layout: Layout) -> dict[str, Any]:
    several = len(layout.texts) > 1
    index: dict[str, Any] = {
        "_class_name": f"StableDiffusion{'XL' * several}Pipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "feature_extractor": [None, None],
    }
    if several:
        index |= {
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "force_zeros_for_empty_prompt": layout.zero_empty,
        }
    else:
        index |= {"safety_checker": [None, None], "requires_safety_checker": False}
    return index
