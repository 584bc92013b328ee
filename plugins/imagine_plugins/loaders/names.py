"""Gives the tensors of a checkpoint their usual names, whichever tool wrote the file.

Those are the names of the original code (LDM, and SGM for SDXL). What other tools write in their
place is taken here if diffusers' `from_single_file`, ComfyUI, A1111 or stable-diffusion.cpp do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from imagine_plugins.loaders.layout import UNET, VAE, Slot

_TEXT = r"^(cond_stage_model\.|conditioner\.embedders\.\d+\.)"
_ATTENTION = r"^(first_stage_model\.\w+\.mid\.attn_1\.)"
_RULES = (
    (r"^vae\.", "first_stage_model."),
    # diffusers' converters of early 2023 left its own names here.
    (_ATTENTION + r"to_([qkv])\.", r"\1\2."),
    (_ATTENTION + r"to_out\.0\.", r"\1proj_out."),
    # Hugging Face's names: as they are in ComfyUI, and as NovelAI and transformers shorten them.
    (_TEXT + r"model\.transformer\.(text_model|text_projection)\.", r"\1transformer.\2."),
    (
        _TEXT + r"transformer\.(embeddings|encoder|final_layer_norm)\.",
        r"\1transformer.text_model.\2.",
    ),
)
# Names of the attention's parameters in autoencoders saved before diffusers 0.18.
_OLD_ATTENTION = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}
_ONE_ENCODER = (  # SD1 and SD2 in SDXL's names, as SD Turbo came
    (r"^conditioner\.embedders\.0\.", "cond_stage_model."),
)
_OPENCLIP_LAYERS = (  # diffusers' first converters of SD2 renamed the layers alone
    (_TEXT + r"model\.transformer\.text_model\.final_layer_norm\.", r"\1model.ln_final."),
    (
        _TEXT + r"model\.transformer\.text_model\.embeddings\.token_embedding\.",
        r"\1model.token_embedding.",
    ),
    (
        _TEXT + r"model\.transformer\.text_model\.embeddings\.position_embedding\.weight$",
        r"\1model.positional_embedding",
    ),
)


def usual_names(stored: Collection[str], encoders: int) -> dict[str, str]:
    """The usual names of a file's tensors, each with the one that it has there.

    Args:
        stored: The names in the file.
        encoders: How many text encoders its model has: 2 for SDXL.
    """
    rules = list(_RULES)
    if any(".model.transformer.resblocks." in name for name in stored):
        rules[:0] = _OPENCLIP_LAYERS
    if encoders == 1:
        rules[:0] = _ONE_ENCODER
    patterns = [(re.compile(pattern), usual) for pattern, usual in rules]

    def usual(name: str) -> str:
        for pattern, replacement in patterns:
            name = pattern.sub(replacement, name)
        return present_name(name) if name.startswith(VAE) else name

    renamed = {usual(name): name for name in stored if not name.startswith(UNET)}
    return renamed | {name: name for name in stored if name in renamed or name.startswith(UNET)}


def present_name(name: str) -> str:
    """What diffusers calls a parameter of an autoencoder now."""
    if ".attentions." in name:
        for old, new in _OLD_ATTENTION.items():
            name = name.replace(old, new)
    return name


def text_prefixes(usual: Collection[str], encoders: int) -> list[tuple[str, bool]]:
    """What the names of each text encoder begin with, and whether the rest is OpenCLIP's."""
    roots = [f"conditioner.embedders.{number}." for number in range(encoders)]
    if encoders == 1:
        roots = ["cond_stage_model."]
    openclip = [
        any(name.startswith(f"{root}model.transformer.resblocks.") for name in usual)
        for root in roots
    ]
    return [
        (f"{root}model." if is_openclip else f"{root}transformer.", is_openclip)
        for root, is_openclip in zip(roots, openclip, strict=True)
    ]


def turned(slots: Sequence[Slot], usual: Collection[str]) -> list[Slot]:
    """The same slots for a file whose projection of texts is not transposed.

    diffusers' converter of SDXL leaves it as Hugging Face has it, and tells by `.weight`.
    """
    return [
        replace(slot, key=f"{slot.key}.weight", shape=slot.shape[::-1], transposed=False)
        if slot.transposed and slot.key not in usual and f"{slot.key}.weight" in usual
        else slot
        for slot in slots
    ]
