"""FLUX.2: what its files are.

Sources: black-forest-labs/flux2, src/flux2/model.py and util.py; the model cards and
model_index.json of black-forest-labs/FLUX.2-dev, -klein-4B, -klein-base-4B, -klein-9B,
-klein-base-9B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from imagine_plugins.loaders.architectures import Config
from imagine_plugins.loaders.flow.family import Family, Shapes, Variant
from imagine_plugins.loaders.flow.shifts import EmpiricalShift
from imagine_plugins.loaders.problems import ProblemError

AXES = (32, 32, 32, 32)
BASE = "(?<!data)base"  # as in flux-2-klein-base-4b
# Widths of three layers of each text encoder side by side.
MISTRAL, QWEN_8B, QWEN_4B = 3 * 5120, 3 * 4096, 3 * 2560


def _config(shapes: Shapes) -> Config:
    norm = "img_attn.norm.query_norm.scale"
    head = shapes.size(f"double_blocks.0.{norm}", "transformer_blocks.0.attn.norm_q.weight")
    if head != sum(AXES):
        raise ProblemError(f"its heads have {head} numbers, those of FLUX.2 have {sum(AXES)}")
    image = "img_in.weight", "x_embedder.weight"
    width = shapes.size(*image)
    leaving = "double_blocks.0.img_mlp.2.weight", "transformer_blocks.0.ff.linear_out.weight"
    embedder = "time_guidance_embed"
    first, second = f"{embedder}.timestep_embedder", f"{embedder}.guidance_embedder"
    time = "time_in.in_layer.weight", f"{first}.linear_1.weight"
    guide = "guidance_in.in_layer.weight", f"{second}.linear_1.weight"
    config = {
        "patch_size": 1,
        "in_channels": shapes.size(*image, axis=1),
        "out_channels": shapes.size("final_layer.linear.weight", "proj_out.weight"),
        "num_layers": shapes.count("double_blocks", "transformer_blocks"),
        "num_single_layers": shapes.count("single_blocks", "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shapes.size("txt_in.weight", "context_embedder.weight", axis=1),
        "timestep_guidance_channels": shapes.size(*time, axis=1),
        "mlp_ratio": shapes.size(*leaving, axis=1) / width,
        "axes_dims_rope": AXES,
        "rope_theta": 2000,
        "eps": 1e-6,
        "guidance_embeds": shapes.has(*guide),
    }
    if config["joint_attention_dim"] not in {MISTRAL, QWEN_8B, QWEN_4B}:
        raise ProblemError(
            f"it reads prompts of width {config['joint_attention_dim']}, of no text encoder of "
            "FLUX.2's"
        )
    return config


def _is_guided(config: Config) -> bool:
    return bool(config.get("guidance_embeds", True))


def _is_large(config: Config) -> bool:
    return not _is_guided(config) and bool(config.get("joint_attention_dim") == QWEN_8B)


def _tell(index: Mapping[str, Any], _scheduler: Mapping[str, Any]) -> str:
    match index.get("is_distilled"):
        case True:
            return "distilled"
        case False:
            return "base"
    return ""


def _klein(size: str, text: str, fits: Callable[[Config], bool]) -> tuple[Variant, Variant]:
    """The trained model, and the one distilled to four steps without guidance."""
    distilled = Variant(
        title=f"FLUX.2 [klein] {size}",
        texts=(text,),
        steps=4,
        kind="none",
        shift=EmpiricalShift(),
        tokens=512,
        fits=fits,
    )
    title = f"FLUX.2 [klein] Base {size}"
    base = replace(distilled, title=title, steps=50, guidance=4.0, kind="free", named=BASE)
    return base, distilled


FAMILY = Family(
    name="flux2",
    title="FLUX.2",
    transformer="Flux2Transformer2DModel",
    pipelines=("Flux2Pipeline", "Flux2KleinPipeline", "Flux2KleinInpaintPipeline"),
    vae="flux2",
    original=("double_stream_modulation_img.lin.weight", "img_in.weight"),
    diffusers=("double_stream_modulation_img.linear.weight", "x_embedder.weight"),
    configure=_config,
    variants=(
        Variant(
            title="FLUX.2 [dev]",
            texts=("mistral-3-small",),
            steps=28,
            distilled_guidance=4.0,
            kind="distilled",
            shift=EmpiricalShift(),
            tokens=512,
            fits=_is_guided,
        ),
        *_klein("9B", "qwen3-8b", _is_large),
        *_klein("4B", "qwen3-4b", lambda _config: True),
    ),
    tell=_tell,
)
