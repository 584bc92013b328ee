"""The tensors of flow transformers as their authors publish them, as data.

A row is a name, the shape of its weight, and whether a bias is beside it. `{a,b}` stands for
either, `[n]` for 0 .. n-1. A name that ends in "=" is a whole one; to others ".weight" is added.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Shape = tuple[int, ...]
Row = tuple[str, Shape, bool]


def flux(
    *, doubles: int = 19, singles: int = 38, guided: bool = True, channels: int = 64
) -> list[Row]:
    """FLUX.1: black-forest-labs/flux, src/flux/model.py and src/flux/modules/layers.py."""
    w = 3072
    embedders = "{time_in,vector_in,guidance_in}" if guided else "{time_in,vector_in}"
    return [
        ("img_in", (w, channels), True),
        ("txt_in", (w, 4096), True),
        ("time_in.in_layer", (w, 256), True),
        *([("guidance_in.in_layer", (w, 256), True)] if guided else []),
        ("vector_in.in_layer", (w, 768), True),
        (f"{embedders}.out_layer", (w, w), True),
        (f"double_blocks.[{doubles}].{{img,txt}}_mod.lin", (6 * w, w), True),
        *attention(doubles, w, biased=True),
        (f"double_blocks.[{doubles}].{{img,txt}}_mlp.0", (4 * w, w), True),
        (f"double_blocks.[{doubles}].{{img,txt}}_mlp.2", (w, 4 * w), True),
        (f"single_blocks.[{singles}].linear1", (7 * w, w), True),
        (f"single_blocks.[{singles}].linear2", (w, 5 * w), True),
        (f"single_blocks.[{singles}].norm.{{query,key}}_norm.scale=", (128,), False),
        (f"single_blocks.[{singles}].modulation.lin", (3 * w, w), True),
        ("final_layer.linear", (64, w), True),
        ("final_layer.adaLN_modulation.1", (2 * w, w), True),
    ]


def attention(doubles: int, w: int, *, biased: bool) -> list[Row]:
    """That of the double blocks of FLUX.1, FLUX.2 and Chroma."""
    blocks = f"double_blocks.[{doubles}].{{img,txt}}_attn"
    return [
        (f"{blocks}.qkv", (3 * w, w), biased),
        (f"{blocks}.proj", (w, w), biased),
        (f"{blocks}.norm.{{query,key}}_norm.scale=", (128,), False),
    ]


def chroma() -> list[Row]:
    """Chroma: lodestone-rock/flow, src/models/chroma/model.py."""
    w, layer = 3072, "distilled_guidance_layer"
    left_out = ("time_in", "vector_in", "_mod.lin", "modulation", "{time_in")
    return [
        *(row for row in flux(guided=False) if not any(part in row[0] for part in left_out)),
        (f"{layer}.in_proj", (5120, 64), True),
        (f"{layer}.out_proj", (w, 5120), True),
        (f"{layer}.layers.[5].{{in,out}}_layer", (5120, 5120), True),
        (f"{layer}.norms.[5].scale=", (5120,), False),
    ]


def flux2(w: int, doubles: int, singles: int, context: int, *, guided: bool = False) -> list[Row]:
    """FLUX.2: black-forest-labs/flux2, src/flux2/model.py; nothing has a bias."""
    embedders = ("time_in", "guidance_in") if guided else ("time_in",)
    return [
        ("img_in", (w, 128), False),
        ("txt_in", (w, context), False),
        *((f"{name}.in_layer", (w, 256), False) for name in embedders),
        *((f"{name}.out_layer", (w, w), False) for name in embedders),
        ("double_stream_modulation_{img,txt}.lin", (6 * w, w), False),
        ("single_stream_modulation.lin", (3 * w, w), False),
        *attention(doubles, w, biased=False),
        (f"double_blocks.[{doubles}].{{img,txt}}_mlp.0", (6 * w, w), False),
        (f"double_blocks.[{doubles}].{{img,txt}}_mlp.2", (w, 3 * w), False),
        (f"single_blocks.[{singles}].linear1", (9 * w, w), False),
        (f"single_blocks.[{singles}].linear2", (w, 4 * w), False),
        (f"single_blocks.[{singles}].norm.{{query,key}}_norm.scale=", (128,), False),
        ("final_layer.linear", (128, w), False),
        ("final_layer.adaLN_modulation.1", (2 * w, w), False),
    ]


def sd3(depth: int, side: int, *, normed: bool = False, duals: int = 0) -> list[Row]:
    """SD3: Stability-AI/sd3.5, mmditx.py. The last block leaves the text's tokens as they are."""
    w, last = 64 * depth, depth - 1
    x, text = "joint_blocks.{}.x_block", "joint_blocks.{}.context_block"
    every, rest, dual = f"[{depth}]", f"[{last}]", f"[{duals}]"
    rows: list[Row] = [
        ("pos_embed=", (1, side * side, w), False),
        ("x_embedder.proj", (w, 16, 2, 2), True),
        ("t_embedder.mlp.0", (w, 256), True),
        ("y_embedder.mlp.0", (w, 2048), True),
        ("{t,y}_embedder.mlp.2", (w, w), True),
        ("context_embedder", (w, 4096), True),
        ("final_layer.linear", (64, w), True),
        ("final_layer.adaLN_modulation.1", (2 * w, w), True),
        (f"{text.format(last)}.adaLN_modulation.1", (2 * w, w), True),
    ]
    for block, numbers in ((x, every), (text, rest)):
        rows += [
            (f"{block.format(numbers)}.attn.proj", (w, w), True),
            (f"{block.format(numbers)}.mlp.fc1", (4 * w, w), True),
            (f"{block.format(numbers)}.mlp.fc2", (w, 4 * w), True),
        ]
    rows += [(f"{block.format(every)}.attn.qkv", (3 * w, w), True) for block in (x, text)]
    rows.append((f"{text.format(rest)}.adaLN_modulation.1", (6 * w, w), True))
    rows += [
        (f"{x.format(number)}.adaLN_modulation.1", ((9 if number < duals else 6) * w, w), True)
        for number in range(depth)
    ]
    if normed:
        rows += [(f"{block.format(every)}.attn.ln_{{q,k}}", (64,), False) for block in (x, text)]
    if duals:
        rows += [
            (f"{x.format(dual)}.attn2.qkv", (3 * w, w), True),
            (f"{x.format(dual)}.attn2.proj", (w, w), True),
            (f"{x.format(dual)}.attn2.ln_{{q,k}}", (64,), False),
        ]
    return rows


def z_image(depth: int = 30) -> list[Row]:
    """Z-Image: Tongyi-MAI/Z-Image, src/zimage/transformer.py, fused as Comfy-Org/z_image_turbo."""
    w, hidden = 3840, 10240
    rows: list[Row] = [
        ("x_embedder", (w, 64), True),
        ("cap_embedder.0", (2560,), False),
        ("cap_embedder.1", (w, 2560), True),
        ("t_embedder.mlp.0", (1024, 256), True),
        ("t_embedder.mlp.2", (256, 1024), True),
        ("{x,cap}_pad_token=", (1, w), False),
        ("final_layer.linear", (64, w), True),
        ("final_layer.adaLN_modulation.1", (w, 256), True),
        (f"layers.[{depth}].adaLN_modulation.0", (4 * w, 256), True),
        ("noise_refiner.[2].adaLN_modulation.0", (4 * w, 256), True),
    ]
    for name, count in (("layers", depth), ("{noise,context}_refiner", 2)):
        block = f"{name}.[{count}]"
        rows += [
            (f"{block}.attention.qkv", (3 * w, w), False),
            (f"{block}.attention.out", (w, w), False),
            (f"{block}.attention.{{q,k}}_norm", (128,), False),
            (f"{block}.{{attention,ffn}}_norm{{1,2}}", (w,), False),
            (f"{block}.feed_forward.w{{1,3}}", (hidden, w), False),
            (f"{block}.feed_forward.w2", (w, hidden), False),
        ]
    return rows


def qwen_image(depth: int = 60) -> list[Row]:
    """Qwen-Image: Qwen/Qwen-Image, transformer/diffusion_pytorch_model.safetensors.index.json."""
    w, block = 3072, f"transformer_blocks.[{depth}]"
    attention = f"{block}.attn"
    return [
        ("img_in", (w, 64), True),
        ("txt_in", (w, 3584), True),
        ("txt_norm", (3584,), False),
        ("time_text_embed.timestep_embedder.linear_1", (w, 256), True),
        ("time_text_embed.timestep_embedder.linear_2", (w, w), True),
        (f"{block}.{{img,txt}}_mod.1", (6 * w, w), True),
        (f"{attention}.{{to_q,to_k,to_v,add_q_proj,add_k_proj,add_v_proj}}", (w, w), True),
        (f"{attention}.{{to_out.0,to_add_out}}", (w, w), True),
        (f"{attention}.norm_{{q,k,added_q,added_k}}", (128,), False),
        (f"{block}.{{img,txt}}_mlp.net.0.proj", (4 * w, w), True),
        (f"{block}.{{img,txt}}_mlp.net.2", (w, 4 * w), True),
        ("norm_out.linear", (2 * w, w), True),
        ("proj_out", (64, w), True),
    ]


OFFICIAL: dict[str, list[Row]] = {
    "SD3 Medium": sd3(24, 192),
    "SD3.5 Medium": sd3(24, 384, normed=True, duals=13),
    "SD3.5 Large": sd3(38, 192, normed=True),
    "FLUX.1 [dev]": flux(),
    "FLUX.1 [schnell]": flux(guided=False),
    "FLUX.1 Fill [dev]": flux(channels=384),
    "FLUX.1-lite": flux(doubles=8),
    "FLUX.2 [klein] 4B": flux2(3072, 5, 20, 7680),
    "FLUX.2 [klein] 9B": flux2(4096, 8, 24, 12288),
    "FLUX.2 [dev]": flux2(6144, 8, 48, 15360, guided=True),
    "Z-Image": z_image(),
    "Qwen-Image": qwen_image(),
    "Chroma": chroma(),
}


def expanded(rows: list[Row], *, prefix: str = "") -> dict[str, Shape]:
    """The tensors of a table by name."""
    tensors: dict[str, Shape] = {}
    for pattern, shape, biased in rows:
        for name in _names(pattern):
            whole = name.removesuffix("=") if name.endswith("=") else f"{name}.weight"
            tensors[f"{prefix}{whole}"] = shape
            if biased:
                tensors[f"{prefix}{name}.bias"] = shape[:1]
    return tensors


def _names(pattern: str) -> Iterator[str]:
    match = re.search(r"\{([^}]*)\}|\[(\d+)\]", pattern)
    if match is None:
        yield pattern
        return
    choices = match[1].split(",") if match[1] is not None else map(str, range(int(match[2])))
    for choice in choices:
        yield from _names(f"{pattern[: match.start()]}{choice}{pattern[match.end() :]}")
