"""Reads what the name of a tensor in an adapter file says: component, module and part.

Written by kohya's scripts (`lora_unet_`, `lora_te1_`), diffusers (`unet.`, with or without
processors), PEFT (`base_model.model.`), ComfyUI (`diffusion_model.`), LyCORIS (`lycoris_`),
OneTrainer and the Open Model Initiative (`unet.`, `clip_l.`), or bare.
"""

from __future__ import annotations

import re
from typing import NamedTuple

UNSUPPORTED = {
    "oft_blocks": "OFT",
    "oft_diag": "OFT",
    "oft_R.weight": "OFT",
    "a1.weight": "GLoRA",
    "a2.weight": "GLoRA",
    "b1.weight": "GLoRA",
    "b2.weight": "GLoRA",
    "bm.weight": "GLoRA",
    "on_input": "IA3",
    "lora_embedding_A": "a LoRA of a table of embeddings",
    "lora_embedding_B": "a LoRA of a table of embeddings",
    "set_weight": "a whole weight in place of a difference",
    "reshape_weight": "a weight of another shape",
    "lokr_t1": "LoKr with a core in its first factor",
}
"""Parts of methods that are not read, each with what it belongs to."""

LONGEST = 500
"""Characters of a name; the longest that tools write have some 150."""

EMBEDDING = "bundle_emb."
ENCODERS = {".string_to_param.*": "", ".clip_l": "clip_l", ".clip_g": "clip_g"}
"""Ends of the names of bundled embeddings."""

_ENCODERS = {
    **dict.fromkeys(("te", "te1", "text_encoder", "clip_l", "clip_h"), "text_encoder"),
    **dict.fromkeys(("te2", "text_encoder_2", "clip_g"), "text_encoder_2"),
}
_SAME = {"w_norm": "diff", "b_norm": "diff_b"}
_VERBATIM = (
    *("alpha", "scale", "dora_scale", "diff", "diff_b", "w_norm", "b_norm", "hada_t1", "hada_t2"),
    *(f"hada_w{number}_{half}" for number in "12" for half in "ab"),
    *(f"lokr_w{number}{half}" for number in "12" for half in ("", "_a", "_b")),
    "lokr_t2",
    *UNSUPPORTED,
)
_ENDS = tuple(f".{part}" for part in _VERBATIM)
_WHOSE = r"(?:\.(?!weight$|bias$)[^.]+)?"  # PEFT's name of the adapter
_PART = re.compile(
    rf"""(?:
      (?:\.lora_down|[._]lora\.down|\.lora_linear_layer\.down|\.lora_A{_WHOSE})
        (?P<down>(?:\.weight)?)
    | (?:\.lora_up|[._]lora\.up|\.lora_linear_layer\.up|\.lora_B{_WHOSE})
        (?:(?P<up_bias>\.bias)|(?P<up>(?:\.weight)?))
    | \.lora_mid(?P<mid>(?:\.weight)?)
    | \.lora_magnitude_vector(?P<magnitude>(?:\.[^.]+){{0,2}})
    | (?:[._]lora)?\.(?P<verbatim>{"|".join(map(re.escape, _VERBATIM))})
    )$""",
    re.VERBOSE,
)
_PEFT = r"(?:base_model_model_)?"
_TOOL = rf"(?:lora_|lycoris_)?{_PEFT}"
_UNET = re.compile(rf"{_TOOL}(?:unet_|(?:model_)?diffusion_model_){_PEFT}(.+)")
_TEXT = re.compile(
    rf"{_TOOL}(?:text_encoders_)?(te\d?|text_encoder(?:_\d)?|clip_[lgh])_"
    rf"{_PEFT}(?:transformer_)?(?:text_model_)?(.+)"
)
_BARE = re.compile(rf"{_TOOL}(?:text_model_)?(.+)")


class Spelled(NamedTuple):
    """What a name says.

    Attributes:
        component: "unet", "text_encoder", "text_encoder_2", another that Stable Diffusion lacks;
            None where the name has none.
        module: The module's name with underscores for dots, of any convention.
        part: "down", "up", "mid", "up_bias", "alpha", "scale", "magnitude" (PEFT's, by outputs),
            "dora_scale", "diff", "diff_b", `hada_*`, `lokr_*`, or a key of `UNSUPPORTED`.
    """

    component: str | None
    module: str
    part: str


def spelled(name: str) -> Spelled | None:
    """What the name of a tensor says; None where it is no part of an adapter that is known."""
    if len(name) > LONGEST or ("lora" not in name and not name.endswith(_ENDS)):
        return None  # most names of a checkpoint, at once
    match = _PART.search(name)
    if match is None:
        return None
    part = match["verbatim"] or str(match.lastgroup)
    component, module = _place(name[: match.start()].replace(".", "_"))
    return Spelled(component, module.replace("_processor_to_", "_to_"), _SAME.get(part, part))


def embedding(name: str) -> tuple[str, str] | None:
    """The word and the encoder ("clip_l", "clip_g", "" for any) of a bundled embedding's tensor."""
    if not name.startswith(EMBEDDING):
        return None
    rest = name.removeprefix(EMBEDDING)
    for ending, encoder in ENCODERS.items():
        if rest.endswith(ending) and rest != ending:
            return rest.removesuffix(ending), encoder
    return None


def _place(stem: str) -> tuple[str | None, str]:
    if match := _UNET.fullmatch(stem):
        return "unet", match[1]
    if match := _TEXT.fullmatch(stem):
        return _ENCODERS.get(match[1], match[1]), match[2]
    match = _BARE.fullmatch(stem)
    return None, match[1] if match else stem
