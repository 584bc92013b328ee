"""Recognises adapter files by their headers: what they are for, and what they hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from imagine_plugins.loaders.adapters.fitting import Fitting, Leftover, Spellings, fit, spellings
from imagine_plugins.loaders.adapters.kinds import SCALARS
from imagine_plugins.loaders.adapters.modules import Modules, layers_of
from imagine_plugins.loaders.adapters.names import UNSUPPORTED
from imagine_plugins.loaders.adapters.triggers import tags, triggers
from imagine_plugins.loaders.architectures import SD1, SD2, SDXL
from imagine_plugins.loaders.header import Header, read_header

FAMILIES = {plan.family: plan for plan in (SD1, SD2, SDXL)}
TITLES = {
    "sd1": "SD1",
    "sd2": "SD2",
    "sdxl": "SDXL",
    "flux": "Flux",
    "sd3": "Stable Diffusion 3",
    "cascade": "Stable Cascade",
    "qwen-image": "Qwen-Image",
    "z-image": "Z-Image",
    "wan": "Wan video",
    "hunyuan": "HunyuanVideo",
    "sdxl-refiner": "the SDXL refiner",
    "unknown": "a model that is not known",
}
"""What messages call the families of models."""

# Parts of names with underscores for dots; the first that a file has decides.
OTHERS = (
    ("_prior_unet_", "cascade"),
    ("_prior_te_", "cascade"),
    ("_img_mlp_net_", "qwen-image"),
    ("_txt_mlp_net_", "qwen-image"),
    ("individual_token_refiner", "hunyuan"),
    ("double_blocks_0_", "flux"),
    ("single_blocks_0_", "flux"),
    ("single_transformer_blocks_0_", "flux"),
    ("joint_blocks_0_", "sd3"),
    ("transformer_blocks_0_attn_add_", "sd3"),
    ("noise_refiner_0_", "z-image"),
    ("layers_0_attention_to_q", "z-image"),
    ("layers_0_attention_qkv", "z-image"),
    ("blocks_0_cross_attn_", "wan"),
)
TOLD = (  # in ss_base_model_version and modelspec.architecture
    ("flux", "flux"),
    ("refiner", "sdxl-refiner"),
    ("sdxl", "sdxl"),
    ("xl-v1", "sdxl"),
    ("sd3", "sd3"),
    ("stable-diffusion-3", "sd3"),
    ("cascade", "cascade"),
    ("qwen", "qwen-image"),
    ("zimage", "z-image"),
    ("wan", "wan"),
    ("hunyuan", "hunyuan"),
    ("sd_v2", "sd2"),
    ("v2-", "sd2"),
    ("sd_v1", "sd1"),
    ("v1", "sd1"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterInfo:
    """What an adapter file is, as its header says.

    Attributes:
        family: A key of `TITLES`.
        fits: The families that its modules fit equally well: "sd1", "sd2", "sdxl", or none.
        modules: How many modules of `family` it changes.
        components: Which parts of a model: "unet", "text_encoder", "text_encoder_2".
        kinds: "LoRA", "LoCon", "LoHa", "LoKr", "DoRA", "full", "norm", "bias"; the most frequent
            first.
        ranks: Of its factors, smallest first.
        words: The bundled embeddings.
        triggers: The words that call what was trained.
        tags: Of the training's pictures, the most frequent first.
        leftovers: What of it would not be applied to a model of `family`.
        own_sizes: Whether it names layers of Stable Diffusion, in sizes that no family has.
    """

    family: str
    fits: tuple[str, ...] = ()
    modules: int = 0
    components: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    own_sizes: bool = False


def recognise_adapter(path: Path) -> AdapterInfo | None:
    """The adapter at `path`, from its header alone; None for a file that is none.

    Raises:
        HeaderError: It is no safetensors file.
    """
    return adapter_info(read_header(path))


def adapter_info(header: Header) -> AdapterInfo | None:
    """The adapter that a header belongs to; None where it is none.

    The last one is remembered: the loader of checkpoints asks, and that of LoRAs.
    """
    global _last  # noqa: PLW0603 - one adapter, for whichever loader is asked next
    last = _last
    if last is None or last[0] is not header:
        _last = last = (header, _adapter_info(header))
    return last[1]


_last: tuple[Header, AdapterInfo | None] | None = None


def _adapter_info(header: Header) -> AdapterInfo | None:
    said = spellings(header)
    if not _is_adapter(header, said):
        return None
    fittings = {family: fit(header, said, _modules(family)) for family in FAMILIES}
    most = max(len(each.fitted) for each in fittings.values())
    fits = tuple(name for name, each in fittings.items() if most and len(each.fitted) == most)
    told = _told(header)
    if not fits:
        found = _described(header, told or _named(said) or "unknown", fittings["sd1"], ())
        if found.family in {"unknown", *FAMILIES} and _has_layers(said):
            return replace(found, family="unknown", own_sizes=True)
        return found
    family = told if told in fits else fits[0]
    return _described(header, family, fittings[family], fits)


def _has_layers(said: Spellings) -> bool:
    """Whether it has something to add to a layer that Stable Diffusion has."""
    return any(
        modules.find(each.component, each.module) is not None
        for each in said.values()
        if each is not None and each.part not in {*SCALARS, *UNSUPPORTED}
        for modules in map(_modules, FAMILIES)
    )


def _described(header: Header, family: str, fitting: Fitting, fits: tuple[str, ...]) -> AdapterInfo:
    fitted = fitting.fitted.values()
    kinds = Counter(kind for each in fitted for kind in each.kinds.names)
    return AdapterInfo(
        family=family,
        fits=fits,
        modules=len(fitted),
        components=tuple(sorted({target.component for target in fitting.fitted}, reverse=True)),
        kinds=tuple(kind for kind, _ in kinds.most_common()),
        ranks=tuple(sorted({each.kinds.rank for each in fitted if each.kinds.rank})),
        words=tuple(fitting.words),
        triggers=triggers(header.metadata),
        tags=tags(header.metadata),
        leftovers=fitting.leftovers,
    )


def _is_adapter(header: Header, said: Spellings) -> bool:
    parts = {each.part for each in said.values() if each is not None}
    tells = len(said) < len(header.tensors) or "ss_network_module" in header.metadata
    return not parts <= set(SCALARS) or (tells and bool(header.tensors))


@cache
def _modules(family: str) -> Modules:
    return Modules(layers_of(FAMILIES[family]))


def _told(header: Header) -> str | None:
    """The family that the metadata says."""
    names = ("ss_base_model_version", "modelspec.architecture")
    said = " ".join(header.metadata.get(name, "") for name in names).lower()
    return next((family for tell, family in TOLD if tell in said), None)


def _named(said: Spellings) -> str | None:
    """The family that the names of modules belong to."""
    modules = {f"{each.component}_{each.module}" for each in said.values() if each is not None}
    found = (family for tell, family in OTHERS if any(tell in module for module in modules))
    return next(found, None)
