"""Z-Image: what its files are.

Sources: Tongyi-MAI/Z-Image, src/zimage/transformer.py and config; the model cards and
scheduler_config.json of Tongyi-MAI/Z-Image-Turbo and Tongyi-MAI/Z-Image. The layout with fused
attention is that of Comfy-Org/z_image_turbo.
"""

from __future__ import annotations

from imagine_plugins.loaders.architectures import Config
from imagine_plugins.loaders.flow.family import Family, Shapes, Variant
from imagine_plugins.loaders.flow.shifts import FixedShift
from imagine_plugins.loaders.problems import ProblemError

TEXTS = ("qwen3-4b",)
AXES, LENGTHS = (32, 48, 48), (1536, 512, 512)
BASE = r"(?<!data)base|z[-_ ]?image([-_.]?(bf16|fp16|fp8.*|q\d.*))?$"
BASE_SHIFT, TURBO_SHIFT = 6.0, 3.0


def _config(shapes: Shapes) -> Config:
    head = shapes.size("layers.0.attention.q_norm.weight", "layers.0.attention.norm_q.weight")
    if head != sum(AXES):
        raise ProblemError(f"its heads have {head} numbers, those of Z-Image have {sum(AXES)}")
    image = "x_embedder.weight", "all_x_embedder.2-1.weight"
    width = shapes.size(*image)
    if shapes.original:
        keys = (shapes.size("layers.0.attention.qkv.weight") - width) // 2
    else:
        keys = shapes.size("layers.0.attention.to_k.weight")
    refiners = shapes.count("noise_refiner"), shapes.count("context_refiner")
    if refiners[0] != refiners[1]:
        raise ProblemError("its two refiners have different depths: the file is damaged")
    return {
        "all_patch_size": (2,),
        "all_f_patch_size": (1,),
        "in_channels": shapes.size(*image, axis=1) // 4,
        "dim": width,
        "n_layers": shapes.count("layers"),
        "n_refiner_layers": refiners[0],
        "n_heads": width // head,
        "n_kv_heads": keys // head,
        "norm_eps": 1e-5,
        "qk_norm": True,
        "cap_feat_dim": shapes.size("cap_embedder.1.weight", axis=1),
        "rope_theta": 256.0,
        "t_scale": 1000.0,
        "axes_dims": AXES,
        "axes_lens": LENGTHS,
    }


FAMILY = Family(
    name="z-image",
    title="Z-Image",
    transformer="ZImageTransformer2DModel",
    pipelines=("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"),
    vae="flux",
    original=("layers.0.adaLN_modulation.0.weight", "x_embedder.weight", "cap_embedder.1.weight"),
    diffusers=("layers.0.adaLN_modulation.0.weight", "all_x_embedder.2-1.weight"),
    configure=_config,
    refused={"siglip_embedder.1.weight": "Z-Image Omni"},
    variants=(
        Variant(
            title="Z-Image",
            texts=TEXTS,
            steps=50,
            guidance=4.0,
            shift=FixedShift(BASE_SHIFT),
            tokens=512,
            named=BASE,
        ),
        Variant(
            title="Z-Image Turbo",
            texts=TEXTS,
            steps=8,
            kind="none",
            shift=FixedShift(TURBO_SHIFT),
            tokens=512,
        ),
    ),
    tell=lambda _, scheduler: "base" if scheduler.get("shift") == BASE_SHIFT else "",
)
