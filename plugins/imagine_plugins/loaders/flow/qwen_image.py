"""Qwen-Image: what its files are.

Sources: QwenLM/Qwen-Image; the model cards and scheduler_config.json of Qwen/Qwen-Image and
Qwen/Qwen-Image-2512. Its authors publish it in diffusers' names, and so does Comfy-Org.
"""

from __future__ import annotations

from imagine_plugins.loaders.architectures import Config
from imagine_plugins.loaders.flow.family import Family, Shapes, Variant
from imagine_plugins.loaders.flow.shifts import FixedShift, ShiftBySize
from imagine_plugins.loaders.problems import ProblemError

TEXTS = ("qwen2.5-vl-7b",)
AXES = (16, 56, 56)
BY_SIZE = ShiftBySize(base=0.5, most=0.9, most_tokens=8192, terminal=0.02)
MARKS = ("transformer_blocks.0.img_mod.1.weight", "txt_norm.weight", "img_in.weight")


def _config(shapes: Shapes) -> Config:
    head = shapes.size("transformer_blocks.0.attn.norm_q.weight")
    if head != sum(AXES):
        raise ProblemError(f"its heads have {head} numbers, those of Qwen-Image have {sum(AXES)}")
    return {
        "patch_size": 2,
        "in_channels": shapes.size("img_in.weight", axis=1),
        "out_channels": shapes.size("proj_out.weight") // 4,
        "num_layers": shapes.count("transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": shapes.size("img_in.weight") // head,
        "joint_attention_dim": shapes.size("txt_in.weight", axis=1),
        "guidance_embeds": False,
        "axes_dims_rope": AXES,
    }


FAMILY = Family(
    name="qwen-image",
    title="Qwen-Image",
    transformer="QwenImageTransformer2DModel",
    pipelines=("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"),
    vae="qwen-image",
    original=(),
    diffusers=MARKS,
    configure=_config,
    refused={
        "time_text_embed.addition_t_embedding.weight": "Qwen-Image Layered",
        "__index_timestep_zero__": "Qwen-Image Edit 2511",
    },
    variants=(
        # lightx2v/Qwen-Image-Lightning: eight or four steps, no guidance, a shift of 3.
        Variant(
            title="Qwen-Image Lightning",
            texts=TEXTS,
            steps=8,
            kind="none",
            shift=FixedShift(3.0),
            tokens=512,
            size=(1328, 1328),
            named="lightning",
        ),
        Variant(
            title="Qwen-Image",
            texts=TEXTS,
            steps=50,
            guidance=4.0,
            shift=BY_SIZE,
            tokens=512,
            size=(1328, 1328),
        ),
    ),
)
