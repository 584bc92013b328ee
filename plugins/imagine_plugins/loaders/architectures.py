"""The architectures of the families that single files come in, as diffusers configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Config = Mapping[str, Any]

CLIP_TOKENS = 77


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """A text encoder of an architecture.

    Attributes:
        config: Its CLIPTextConfig.
        pad: What fills a chunk: "<|endoftext|>", or "!" where OpenCLIP's zeros were trained with.
        projection: Whether its pooled output is projected and used.
        name: What error messages call it.
    """

    config: Config
    pad: str = "<|endoftext|>"
    projection: bool = False
    name: str = "text encoder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """All that a checkpoint's tensors do not say of the model.

    Attributes:
        family: "sd1", "sd2", "sdxl", or a name of its own.
        unet, vae: Configurations of the UNet and the autoencoder.
        texts: The text encoders, in the order in which their outputs are joined.
        scheduler: The noise levels of the training, as a diffusers scheduler configuration.
        size: Width and height that it was trained for.
        zero_empty_prompt: Whether an empty prompt stands for all-zero embeddings.
    """

    family: str
    unet: Config
    vae: Config
    texts: tuple[TextPart, ...]
    scheduler: Config
    size: tuple[int, int]
    zero_empty_prompt: bool = False

    @property
    def inpainting(self) -> bool:
        """Whether the UNet also reads a mask and a masked picture."""
        channels: int = self.unet["in_channels"]
        return channels == 2 * int(self.vae["latent_channels"]) + 1

    @property
    def clip_layers(self) -> int:
        """The largest clip skip: 1 is the layer that the model was trained on."""
        layers: int = min(text.config["num_hidden_layers"] for text in self.texts)
        return layers - 1 if len(self.texts) > 1 else layers  # two encoders: last but one

    def for_inpainting(self) -> Architecture:
        """The same with the five further input channels of an inpainting model."""
        return replace(self, unet={**self.unet, "in_channels": 9})


def _unet(**changes: Any) -> Config:
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
        **changes,
    }


def _vae(**changes: Any) -> Config:
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 512,
        "scaling_factor": 0.18215,
        "force_upcast": False,
        **changes,
    }


def _text(width: int, layers: int, heads: int, activation: str) -> Config:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "projection_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": activation,
        "max_position_embeddings": CLIP_TOKENS,
        "vocab_size": 49408,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }


def _scheduler(**changes: Any) -> Config:
    return {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "clip_sample": False,
        "skip_prk_steps": True,
        **changes,
    }


CLIP_L = _text(768, 12, 12, "quick_gelu")

SD1 = Architecture(
    family="sd1",
    unet=_unet(),
    vae=_vae(),
    texts=(TextPart(config=CLIP_L),),
    scheduler=_scheduler(),
    size=(512, 512),
)

SD2 = Architecture(
    family="sd2",
    unet=_unet(
        sample_size=96,
        attention_head_dim=[5, 10, 20, 20],
        cross_attention_dim=1024,
        use_linear_projection=True,
        upcast_attention=True,
    ),
    vae=_vae(sample_size=768),
    texts=(
        TextPart(
            # OpenCLIP ViT-H has 24 layers; the model was trained on the last but one.
            config={**_text(1024, 23, 16, "gelu"), "projection_dim": 512},
            pad="!",
        ),
    ),
    scheduler=_scheduler(),
    size=(768, 768),
)

SDXL = Architecture(
    family="sdxl",
    unet=_unet(
        sample_size=128,
        down_block_types=["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
        up_block_types=[*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
        block_out_channels=[320, 640, 1280],
        transformer_layers_per_block=[1, 2, 10],
        attention_head_dim=[5, 10, 20],
        cross_attention_dim=2048,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
        use_linear_projection=True,
    ),
    vae=_vae(sample_size=1024, scaling_factor=0.13025, force_upcast=True),
    texts=(
        TextPart(config=CLIP_L, name="first text encoder (CLIP-L)"),
        TextPart(
            config=_text(1280, 32, 20, "gelu"),
            pad="!",
            projection=True,
            name="second text encoder (OpenCLIP-bigG)",
        ),
    ),
    scheduler=_scheduler(timestep_spacing="leading"),
    size=(1024, 1024),
    zero_empty_prompt=True,
)
