"""Tiny transformers of flow models, and their tensors as their authors name them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]

FLUX = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": (2, 2, 4),
}
SD3 = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "caption_projection_dim": 16,
    "pooled_projection_dim": 20,
    "pos_embed_max_size": 6,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "SD3": ("SD3Transformer2DModel", SD3),
    "SD3.5": (
        "SD3Transformer2DModel",
        {**SD3, "qk_norm": "rms_norm", "dual_attention_layers": (0, 1)},
    ),
    "FLUX.1": (
        "FluxTransformer2DModel",
        {**FLUX, "pooled_projection_dim": 20, "guidance_embeds": True},
    ),
    "FLUX.1 without guidance": ("FluxTransformer2DModel", {**FLUX, "pooled_projection_dim": 20}),
    "FLUX.2": (
        "Flux2Transformer2DModel",
        {**FLUX, "axes_dims_rope": (2, 2, 2, 2), "guidance_embeds": True},
    ),
    "Z-Image": (
        "ZImageTransformer2DModel",
        {
            "in_channels": 4,
            "dim": 24,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 3,
            "n_kv_heads": 3,
            "cap_feat_dim": 12,
            "axes_dims": [2, 2, 4],
            "axes_lens": [8, 8, 8],
        },
    ),
    "Qwen-Image": (
        "QwenImageTransformer2DModel",
        {
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 24,
            "axes_dims_rope": (2, 2, 4),
        },
    ),
    "Chroma": (
        "ChromaTransformer2DModel",
        {
            **FLUX,
            "approximator_num_channels": 8,
            "approximator_hidden_dim": 12,
            "approximator_layers": 2,
        },
    ),
}


def tiny(name: str, **config: Any) -> Any:
    """A tiny transformer of random weights, a row of `CONFIGS`."""
    import diffusers

    kind, usual = CONFIGS[name]
    torch.manual_seed(0)
    model = getattr(diffusers, kind)(**usual, **config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


def original(name: str, model: Any) -> Tensors:
    """Its tensors in the layout of its authors."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    return LAYOUTS[CONFIGS[name][0]](state)


def _moved(state: Tensors, names: Iterable[tuple[str, str]]) -> Tensors:
    """The tensors that begin with diffusers' names, under the other ones."""
    moved: Tensors = {}
    for new, old in names:
        moved |= {
            old + key.removeprefix(new): value
            for key, value in state.items()
            if key.startswith(new)
        }
    return moved


def _fused(state: Tensors, block: str, parts: Iterable[str], name: str) -> Tensors:
    parts = list(parts)
    kinds = [kind for kind in ("weight", "bias") if f"{block}{parts[0]}.{kind}" in state]
    return {
        f"{name}.{kind}": torch.cat([state[f"{block}{part}.{kind}"] for part in parts])
        for kind in kinds
    }


def _swapped(tensors: Tensors, *names: str) -> Tensors:
    """Shift before scale, as the authors have it; diffusers has scale first."""
    for name in names:
        for kind in ("weight", "bias"):
            if f"{name}.{kind}" in tensors:
                scale, shift = tensors[f"{name}.{kind}"].chunk(2)
                tensors[f"{name}.{kind}"] = torch.cat([shift, scale])
    return tensors


def _scaled(tensors: Tensors, *parts: str) -> Tensors:
    return {
        (key.removesuffix("weight") + "scale" if any(part in key for part in parts) else key): value
        for key, value in tensors.items()
    }


QKV = {"img": ("to_q", "to_k", "to_v"), "txt": ("add_q_proj", "add_k_proj", "add_v_proj")}
NORMS = {"img": ("norm_q", "norm_k"), "txt": ("norm_added_q", "norm_added_k")}
OUT = {"img": "to_out.0", "txt": "to_add_out"}


def _doubles(state: Tensors, mlp: tuple[str, str], *, modulated: bool) -> Tensors:
    tensors: Tensors = {}
    number = 0
    while any(key.startswith(f"transformer_blocks.{number}.") for key in state):
        new, old = f"transformer_blocks.{number}.", f"double_blocks.{number}."
        for stream, context in (("img", ""), ("txt", "_context")):
            attention = f"{old}{stream}_attn"
            query, key = NORMS[stream]
            names = [
                (f"{new}attn.{query}.", f"{attention}.norm.query_norm."),
                (f"{new}attn.{key}.", f"{attention}.norm.key_norm."),
                (f"{new}attn.{OUT[stream]}.", f"{attention}.proj."),
                (f"{new}ff{context}.{mlp[0]}.", f"{old}{stream}_mlp.0."),
                (f"{new}ff{context}.{mlp[1]}.", f"{old}{stream}_mlp.2."),
            ]
            if modulated:
                names.append((f"{new}norm1{context}.linear.", f"{old}{stream}_mod.lin."))
            tensors |= _moved(state, names)
            tensors |= _fused(state, f"{new}attn.", QKV[stream], f"{attention}.qkv")
        number += 1
    return tensors


def _singles(state: Tensors, *, modulated: bool) -> Tensors:
    tensors: Tensors = {}
    number = 0
    while any(key.startswith(f"single_transformer_blocks.{number}.") for key in state):
        new, old = f"single_transformer_blocks.{number}.", f"single_blocks.{number}."
        names = [
            (f"{new}attn.norm_q.", f"{old}norm.query_norm."),
            (f"{new}attn.norm_k.", f"{old}norm.key_norm."),
            (f"{new}proj_out.", f"{old}linear2."),
        ]
        if modulated:
            names.append((f"{new}norm.linear.", f"{old}modulation.lin."))
        tensors |= _moved(state, names)
        parts = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        tensors |= _fused(state, new, parts, f"{old}linear1")
        number += 1
    return tensors


ENDS = (("x_embedder.", "img_in."), ("context_embedder.", "txt_in."))
LAST = (
    ("proj_out.", "final_layer.linear."),
    ("norm_out.linear.", "final_layer.adaLN_modulation.1."),
)


def _flux(state: Tensors) -> Tensors:
    embedders = [
        (f"time_text_embed.{new}_embedder.linear_{number}.", f"{old}_in.{layer}.")
        for new, old in (("timestep", "time"), ("text", "vector"), ("guidance", "guidance"))
        for number, layer in ((1, "in_layer"), (2, "out_layer"))
    ]
    tensors = _moved(state, [*ENDS, *LAST, *embedders])
    tensors |= _doubles(state, ("net.0.proj", "net.2"), modulated=True)
    tensors |= _singles(state, modulated=True)
    return _scaled(_swapped(tensors, "final_layer.adaLN_modulation.1"), "y_norm.")


def _chroma(state: Tensors) -> Tensors:
    layer = "distilled_guidance_layer."
    tensors = _moved(state, [*ENDS, *LAST, (layer, layer)])
    tensors = {
        key.replace(".linear_1.", ".in_layer.").replace(".linear_2.", ".out_layer."): value
        for key, value in tensors.items()
    }
    tensors |= _doubles(state, ("net.0.proj", "net.2"), modulated=False)
    tensors |= _singles(state, modulated=False)
    return _scaled(tensors, "y_norm.", "layer.norms.")


def _flux2(state: Tensors) -> Tensors:
    embedders = [
        (f"time_guidance_embed.{new}_embedder.linear_{number}.", f"{old}_in.{layer}.")
        for new, old in (("timestep", "time"), ("guidance", "guidance"))
        for number, layer in ((1, "in_layer"), (2, "out_layer"))
    ]
    modulations = [
        (f"{name}.linear.", f"{name}.lin.")
        for name in (
            "double_stream_modulation_img",
            "double_stream_modulation_txt",
            "single_stream_modulation",
        )
    ]
    tensors = _moved(state, [*ENDS, *LAST, *embedders, *modulations])
    tensors |= _doubles(state, ("linear_in", "linear_out"), modulated=False)
    for number in range(2):
        new, old = f"single_transformer_blocks.{number}.attn.", f"single_blocks.{number}."
        names = [
            (f"{new}to_qkv_mlp_proj.", f"{old}linear1."),
            (f"{new}to_out.", f"{old}linear2."),
            (f"{new}norm_q.", f"{old}norm.query_norm."),
            (f"{new}norm_k.", f"{old}norm.key_norm."),
        ]
        tensors |= _moved(state, names)
    return _scaled(_swapped(tensors, "final_layer.adaLN_modulation.1"), "y_norm.")


def _sd3(state: Tensors) -> Tensors:
    embedders = [
        (f"time_text_embed.{new}_embedder.linear_{number}.", f"{old}_embedder.mlp.{layer}.")
        for new, old in (("timestep", "t"), ("text", "y"))
        for number, layer in ((1, "0"), (2, "2"))
    ]
    names = [
        ("pos_embed.pos_embed", "pos_embed"),
        ("pos_embed.proj.", "x_embedder.proj."),
        ("context_embedder.", "context_embedder."),
        *LAST,
        *embedders,
    ]
    tensors = _moved(state, names)
    depth = SD3["num_layers"]
    assert isinstance(depth, int)
    for number in range(depth):
        new, old = f"transformer_blocks.{number}.", f"joint_blocks.{number}."
        for stream, block in (("img", "x_block"), ("txt", "context_block")):
            query, key = NORMS[stream]
            context = "" if stream == "img" else "_context"
            names = [
                (f"{new}attn.{query}.", f"{old}{block}.attn.ln_q."),
                (f"{new}attn.{key}.", f"{old}{block}.attn.ln_k."),
                (f"{new}attn.{OUT[stream]}.", f"{old}{block}.attn.proj."),
                (f"{new}ff{context}.net.0.proj.", f"{old}{block}.mlp.fc1."),
                (f"{new}ff{context}.net.2.", f"{old}{block}.mlp.fc2."),
                (f"{new}norm1{context}.linear.", f"{old}{block}.adaLN_modulation.1."),
            ]
            tensors |= _moved(state, names)
            tensors |= _fused(state, f"{new}attn.", QKV[stream], f"{old}{block}.attn.qkv")
        if f"{new}attn2.to_q.weight" in state:
            second = f"{old}x_block.attn2."
            names = [
                (f"{new}attn2.norm_q.", f"{second}ln_q."),
                (f"{new}attn2.norm_k.", f"{second}ln_k."),
                (f"{new}attn2.to_out.0.", f"{second}proj."),
            ]
            tensors |= _moved(state, names)
            tensors |= _fused(state, f"{new}attn2.", QKV["img"], f"{second}qkv")
    last = f"joint_blocks.{depth - 1}.context_block.adaLN_modulation.1"
    return _swapped(tensors, "final_layer.adaLN_modulation.1", last)


def _z_image(state: Tensors) -> Tensors:
    tensors: Tensors = {}
    for key, value in state.items():
        name = key.replace("all_x_embedder.2-1.", "x_embedder.")
        name = name.replace("all_final_layer.2-1.", "final_layer.")
        name = name.replace(".norm_q.", ".q_norm.").replace(".norm_k.", ".k_norm.")
        name = name.replace(".to_out.0.", ".out.")
        if ".to_q." in key:
            parts = [state[key.replace("to_q", part)] for part in ("to_q", "to_k", "to_v")]
            tensors[name.replace("to_q", "qkv")] = torch.cat(parts)
        elif ".to_k." not in key and ".to_v." not in key:
            tensors[name] = value
    return tensors


LAYOUTS: dict[str, Callable[[Tensors], Tensors]] = {
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
    "Flux2Transformer2DModel": _flux2,
    "ZImageTransformer2DModel": _z_image,
    "QwenImageTransformer2DModel": dict,
    "ChromaTransformer2DModel": _chroma,
}
