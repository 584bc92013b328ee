"""Recognises files of other kinds by their headers, and says where they belong."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from imagine_core.models.folders import place_of
from imagine_plugins.loaders.adapters.fitting import sentences
from imagine_plugins.loaders.adapters.recognition import (
    FAMILIES,
    TITLES,
    AdapterInfo,
    adapter_info,
)
from imagine_plugins.loaders.control_layouts import control_problem
from imagine_plugins.loaders.flow.recognition import layout_of
from imagine_plugins.loaders.header import Header
from imagine_plugins.loaders.inversions import inversion
from imagine_plugins.loaders.layout import UNET
from imagine_plugins.loaders.problems import ProblemError
from imagine_plugins.loaders.upscaler_layouts import upscaler_problem
from imagine_plugins.loaders.vae_layouts import vae_problem

# A key that each unsupported generator has, bare or after `UNET`.
GENERATORS = (
    ("double_blocks.0.img_attn.qkv.weight", "flux", "a relative of FLUX"),
    ("double_layers.0.attn.w1q.weight", "auraflow", "AuraFlow"),
    ("clip_txt_mapper.weight", "cascade", "Stable Cascade"),
    ("head.modulation", "wan", "Wan video"),
    ("cap_embedder.0.weight", "lumina", "Lumina"),
    ("patchify_proj.weight", "ltx", "LTX-Video"),
    ("txt_in.individual_token_refiner.blocks.0.norm1.weight", "hunyuan", "HunyuanVideo"),
    ("t_embedder.mlp.0.weight", "dit", "a diffusion transformer (PixArt, HunyuanDiT or kin)"),
    ("transformer_blocks.0.attn.add_q_proj.weight", "mmdit", "a relative of Stable Diffusion 3"),
)

# Files that hold one part of a model have one of these keys.
PARTS = (
    (
        ("down_blocks.0.resnets.0.conv1.weight",),
        "unet",
        (
            "this is a UNet alone, a part of a diffusers folder; take the whole folder, the one "
            "with model_index.json"
        ),
    ),
    (
        (
            "text_model.embeddings.token_embedding.weight",
            "text_model.encoder.layers.0.mlp.fc1.weight",
            "token_embedding.weight",
            "encoder.block.0.layer.0.SelfAttention.q.weight",
        ),
        "text-encoder",
        (f"this is a text encoder alone, a part of a model; it belongs {place_of('text-encoder')}"),
    ),
)
EMA_ONLY = (
    "it holds only the running average of a training (model_ema), no UNet; take the pruned or the "
    "full file"
)

SCALES = (".scale_weight", ".weight_scale", ".scale_input", ".comfy_quant")
QUANTISED = (".absmax", ".quant_map", ".quant_state.bitsandbytes__nf4", ".qweight", ".SCB")


def unsupported(header: Header) -> ProblemError | None:
    """What a file of another kind is, and where it belongs; None for a checkpoint."""
    return next(filter(None, (test(header) for test in TESTS)), None)


def _adapter(header: Header) -> ProblemError | None:
    info = adapter_info(header)
    if info is None:
        return None
    problem = unfit(info) or (
        f"this is a LoRA for {TITLES[info.family]}: it changes a checkpoint and draws nothing "
        f"alone; it belongs {place_of('lora')}"
    )
    return ProblemError(problem, family="lora")


def unfit(info: AdapterInfo) -> str | None:
    """Why no model can take a LoRA; None if models of some family can."""
    if info.fits or info.own_sizes:
        return None
    if info.family not in {*FAMILIES, "unknown"}:
        known = ", ".join(TITLES[family] for family in FAMILIES)
        return f"this is a LoRA for {TITLES[info.family]}, which is not supported; {known} are"
    whose = "" if info.family == "unknown" else f" for {TITLES[info.family]}"
    reason = next(sentences(info.leftovers), "it holds nothing")
    return f"this is a LoRA{whose} of which nothing can be applied: {reason}"


def _embedding(header: Header) -> ProblemError | None:
    found = inversion(header)
    if found is None:
        return None
    problem = found.problem or (
        f"this is a textual inversion embedding for {TITLES[found.family]}: a word for prompts, "
        f"not a model; it belongs {place_of('embedding')}"
    )
    return ProblemError(problem, family="embedding")


def _flow(header: Header) -> ProblemError | None:
    """A flow model, which has a recognition of its own."""
    layout = layout_of(header)
    if layout is None:
        return None
    return ProblemError(f"this is {layout.family.title}, a model", family=layout.family.name)


def _generator(header: Header) -> ProblemError | None:
    for key, family, name in GENERATORS:
        if _has(header, (key, UNET + key)):
            return ProblemError(
                f"this is {name}, which is not supported; Stable Diffusion 1, 2 and XL are",
                family=family,
            )
    if any("time_stack" in name or "motion_modules" in name for name in header.tensors):
        return ProblemError("this is a video model, which is not supported", family="video")
    return None


def _scaled(header: Header) -> ProblemError | None:
    if "scaled_fp8" in header.tensors or _ends(header, SCALES):
        return ProblemError(
            "its weights are fp8 with separate scales, which is not supported; "
            "take the fp16 file, or a plain fp8 one",
            family="scaled-fp8",
        )
    if _ends(header, QUANTISED):
        return ProblemError(
            "its weights are quantised, which is not supported; take the fp16 file",
            family="quantised",
        )
    return None


def _part(header: Header) -> ProblemError | None:
    """Parts of a model, which lack the UNet that would draw."""
    if _begins(header, UNET):
        return None
    if _begins(header, "model_ema.diffusion_model"):
        return ProblemError(EMA_ONLY, family="ema")
    for told, family in ((vae_problem(header), "vae"), (upscaler_problem(header), "upscaler")):
        if told is not None:
            return ProblemError(told, family=family)
    for keys, family, problem in PARTS:
        if _has(header, keys):
            return ProblemError(problem, family=family)
    if not header.tensors:
        return ProblemError("the file holds no tensors; download it again")
    example = next(iter(header.tensors))
    return ProblemError(
        "it is no Stable Diffusion checkpoint in a layout known here "
        f"(its first tensor is {example[:80]!r})",
        family="unknown",
    )


TESTS: tuple[Callable[[Header], ProblemError | None], ...] = (
    _adapter,
    _embedding,
    control_problem,
    _flow,
    _generator,
    _scaled,
    _part,
)


def _has(header: Header, names: Iterable[str]) -> bool:
    return any(name in header.tensors for name in names)


def _begins(header: Header, *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in header.tensors)


def _ends(header: Header, endings: tuple[str, ...]) -> bool:
    return any(name.endswith(endings) for name in header.tensors)
