"""FLUX.1: what its files are.

Sources: black-forest-labs/flux, src/flux/model.py and util.py; the model cards and
scheduler_config.json of black-forest-labs/FLUX.1-dev, -schnell, -Fill-dev, -Kontext-dev, -Krea-dev.
"""

from __future__ import annotations

from dataclasses import replace

from imagine_plugins.loaders.architectures import Config
from imagine_plugins.loaders.flow.family import Family, Shapes, Variant
from imagine_plugins.loaders.flow.shifts import FixedShift, ShiftBySize
from imagine_plugins.loaders.problems import ProblemError

TEXTS = ("clip-l", "t5-xxl")
AXES = (16, 56, 56)


def _config(shapes: Shapes) -> Config:
    config = common(shapes)
    first, guide = "in_layer.weight", "time_text_embed.guidance_embedder.linear_1.weight"
    pooled = f"vector_in.{first}", "time_text_embed.text_embedder.linear_1.weight"
    config["pooled_projection_dim"] = shapes.size(*pooled, axis=1)
    config["guidance_embeds"] = shapes.has(f"guidance_in.{first}", guide)
    return config


def _check(config: Config) -> None:
    """Refuse FLUX.1 [dev] for depth maps and for edges, which reads a second latent of them."""
    if config["in_channels"] == 2 * config["out_channels"]:
        raise ProblemError(
            "this is FLUX.1 Depth [dev] or FLUX.1 Canny [dev], which draw by a depth map or by "
            "edges, and are not supported; take FLUX.1 [dev]"
        )


def common(shapes: Shapes) -> dict[str, object]:
    """What FLUX.1 and Chroma share of their configurations."""
    norm = "img_attn.norm.query_norm.scale"
    head = shapes.size(f"double_blocks.0.{norm}", "transformer_blocks.0.attn.norm_q.weight")
    if head != sum(AXES):
        raise ProblemError(f"its heads have {head} numbers, those of FLUX.1 have {sum(AXES)}")
    image = "img_in.weight", "x_embedder.weight"
    return {
        "patch_size": 1,
        "in_channels": shapes.size(*image, axis=1),
        "out_channels": shapes.size("final_layer.linear.weight", "proj_out.weight"),
        "num_layers": shapes.count("double_blocks", "transformer_blocks"),
        "num_single_layers": shapes.count("single_blocks", "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": shapes.size(*image) // head,
        "joint_attention_dim": shapes.size("txt_in.weight", "context_embedder.weight", axis=1),
        "axes_dims_rope": AXES,
    }


def _is_fill(config: Config) -> bool:
    """Whether it reads a masked latent and its mask of 8 x 8 for each cell as well."""
    return bool(config["in_channels"] > 2 * config["out_channels"])


def _is_distilled(config: Config) -> bool:
    return bool(config.get("guidance_embeds"))


DEV = Variant(
    title="FLUX.1 [dev]",
    texts=TEXTS,
    steps=28,
    distilled_guidance=3.5,
    kind="distilled",
    shift=ShiftBySize(),
    tokens=512,
    fits=_is_distilled,
)
FILL = replace(DEV, title="FLUX.1 Fill [dev]", steps=50, distilled_guidance=30.0, fits=_is_fill)
KONTEXT = replace(DEV, title="FLUX.1 Kontext [dev]", distilled_guidance=2.5, named="kontext")
KREA = replace(DEV, title="FLUX.1 Krea [dev]", distilled_guidance=4.5, named="krea")

FAMILY = Family(
    name="flux",
    title="FLUX.1",
    transformer="FluxTransformer2DModel",
    pipelines=(
        "FluxPipeline",
        "FluxImg2ImgPipeline",
        "FluxInpaintPipeline",
        "FluxFillPipeline",
        "FluxControlPipeline",
        "FluxControlImg2ImgPipeline",
        "FluxControlInpaintPipeline",
        "FluxKontextPipeline",
        "FluxKontextInpaintPipeline",
    ),
    vae="flux",
    original=(
        "double_blocks.0.img_mod.lin.weight",
        "img_in.weight",
        "vector_in.in_layer.weight",
    ),
    diffusers=(
        "transformer_blocks.0.norm1.linear.weight",
        "x_embedder.weight",
        "single_transformer_blocks.0.proj_mlp.weight",
        "time_text_embed.text_embedder.linear_1.weight",
    ),
    configure=_config,
    check=_check,
    variants=(
        FILL,
        KONTEXT,
        KREA,
        DEV,
        Variant(
            title="FLUX.1 [schnell]",
            texts=TEXTS,
            steps=4,
            kind="none",
            shift=FixedShift(1.0),
            tokens=256,
        ),
    ),
)
