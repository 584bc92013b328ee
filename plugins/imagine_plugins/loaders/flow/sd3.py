"""Stable Diffusion 3 and 3.5: what their files are.

Sources: Stability-AI/sd3.5, mmditx.py and sd3_infer.py; the model cards and scheduler_config.json
of stabilityai/stable-diffusion-3-medium-diffusers, -3.5-medium, -3.5-large, -3.5-large-turbo.
"""

from __future__ import annotations

from dataclasses import replace
from math import isqrt

from imagine_plugins.loaders.architectures import Config
from imagine_plugins.loaders.flow.family import Family, Shapes, Variant
from imagine_plugins.loaders.flow.shifts import FixedShift

TEXTS = ("clip-l", "clip-g", "t5-xxl")
SPARE = ("t5-xxl",)  # the transformer was trained without it for a part of the time
HEAD = 64
LAST = ("context_block.mlp.", "context_block.attn.proj.", "ff_context.", "attn.to_add_out.")
DUAL = ("x_block.attn2.", "attn2.")


def _config(shapes: Shapes) -> Config:
    patched = "x_embedder.proj.weight", "pos_embed.proj.weight"
    width, patch = shapes.size(*patched), shapes.size(*patched, axis=2)
    blocks = "joint_blocks", "transformer_blocks"
    head = HEAD
    norm = "joint_blocks.0.x_block.attn.ln_q.weight", "transformer_blocks.0.attn.norm_q.weight"
    is_normed = shapes.has(*norm)
    if is_normed:
        head = shapes.size(*norm)
    pooled = "y_embedder.mlp.0.weight", "time_text_embed.text_embedder.linear_1.weight"
    second = "x_block.attn2.qkv.weight" if shapes.original else "attn2.to_q.weight"
    return {
        "sample_size": 128,
        "patch_size": patch,
        "in_channels": shapes.size(*patched, axis=1),
        "num_layers": shapes.count(*blocks, spare=LAST + DUAL),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shapes.size("context_embedder.weight", axis=1),
        "caption_projection_dim": shapes.size("context_embedder.weight"),
        "pooled_projection_dim": shapes.size(*pooled, axis=1),
        "out_channels": shapes.size("final_layer.linear.weight", "proj_out.weight") // patch**2,
        "pos_embed_max_size": isqrt(shapes.size("pos_embed", "pos_embed.pos_embed", axis=1)),
        "dual_attention_layers": shapes.having(*blocks, second),
        "qk_norm": "rms_norm" if is_normed else None,
    }


def _is_large(config: Config) -> bool:
    return bool(config.get("num_layers", 18) >= 38)


def _is_dual(config: Config) -> bool:
    return bool(config.get("dual_attention_layers"))


MEDIUM = Variant(
    title="Stable Diffusion 3 Medium",
    texts=TEXTS,
    spare_texts=SPARE,
    steps=28,
    guidance=7.0,
    shift=FixedShift(3.0),
    tokens=256,
)
LARGE = replace(MEDIUM, title="Stable Diffusion 3.5 Large", steps=28, guidance=3.5, fits=_is_large)

FAMILY = Family(
    name="sd3",
    title="Stable Diffusion 3",
    transformer="SD3Transformer2DModel",
    pipelines=(
        "StableDiffusion3Pipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3InpaintPipeline",
    ),
    vae="sd3",
    original=("joint_blocks.0.x_block.attn.qkv.weight", "x_embedder.proj.weight"),
    diffusers=("transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight"),
    configure=_config,
    variants=(
        replace(
            LARGE,
            title="Stable Diffusion 3.5 Large Turbo",
            steps=4,
            guidance=1.0,
            kind="none",
            named="turbo",
        ),
        LARGE,
        replace(MEDIUM, title="Stable Diffusion 3.5 Medium", steps=40, guidance=4.5, fits=_is_dual),
        MEDIUM,
    ),
)
