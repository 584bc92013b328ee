"""Chroma: what its files are.

Sources: lodestone-rock/flow, src/models/chroma/model.py; the model card and scheduler_config.json
of lodestones/Chroma1-HD.
"""

from __future__ import annotations

from imagine_plugins.loaders.architectures import Config
from imagine_plugins.loaders.flow.family import Family, Shapes, Variant
from imagine_plugins.loaders.flow.flux import common
from imagine_plugins.loaders.flow.shifts import FixedShift

APPROXIMATOR = "distilled_guidance_layer"


def _config(shapes: Shapes) -> Config:
    config = common(shapes)
    layers = f"{APPROXIMATOR}.layers.{{}}.in_layer.weight"
    if not shapes.original:
        layers = layers.replace("in_layer", "linear_1")
    depth = 0
    while shapes.has(layers.format(depth)):
        depth += 1
    return {
        **config,
        "approximator_num_channels": shapes.size(f"{APPROXIMATOR}.in_proj.weight", axis=1),
        "approximator_hidden_dim": shapes.size(f"{APPROXIMATOR}.in_proj.weight"),
        "approximator_layers": depth,
    }


FAMILY = Family(
    name="chroma",
    title="Chroma",
    transformer="ChromaTransformer2DModel",
    pipelines=("ChromaPipeline", "ChromaImg2ImgPipeline", "ChromaInpaintPipeline"),
    vae="flux",
    original=(
        "distilled_guidance_layer.in_proj.weight",
        "double_blocks.0.img_attn.qkv.weight",
    ),
    diffusers=(
        "distilled_guidance_layer.in_proj.weight",
        "transformer_blocks.0.attn.add_q_proj.weight",
    ),
    configure=_config,
    refused={"img_in_patch.weight": "Chroma Radiance"},
    variants=(
        Variant(
            title="Chroma",
            texts=("t5-xxl",),
            steps=40,
            guidance=3.0,
            shift=FixedShift(3.0),
            tokens=512,
        ),
    ),
)
