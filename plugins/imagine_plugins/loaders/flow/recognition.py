"""Recognises flow models in files, by the names and the shapes of their tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from imagine_plugins.loaders import configs
from imagine_plugins.loaders.architectures import Config
from imagine_plugins.loaders.components import Stored, Weights
from imagine_plugins.loaders.control_layouts import control_problem
from imagine_plugins.loaders.flow import chroma, flux, flux2, qwen_image, sd3, z_image
from imagine_plugins.loaders.flow.checkpoint import FlowCheckpoint
from imagine_plugins.loaders.flow.family import Family, Shapes
from imagine_plugins.loaders.header import Header, modelspec
from imagine_plugins.loaders.problems import ProblemError

FAMILIES: tuple[Family, ...] = (
    sd3.FAMILY,
    flux.FAMILY,
    flux2.FAMILY,
    z_image.FAMILY,
    qwen_image.FAMILY,
    chroma.FAMILY,
)

PREFIXES = (
    "",
    "model.diffusion_model.",  # ComfyUI's checkpoints
    "diffusion_model.",
    "model.",
    "transformer.",  # pipelines whose state was saved as one
    "model.model.",
    "net.",
)

# Where checkpoints of ComfyUI and Forge keep text encoders, by the family of each.
TEXTS = {
    "clip-l": "text_encoders.clip_l.transformer.",
    "clip-g": "text_encoders.clip_g.transformer.",
    "t5-xxl": "text_encoders.t5xxl.transformer.",
    "qwen3-4b": "text_encoders.qwen3_4b.transformer.",
    "qwen3-8b": "text_encoders.qwen3_8b.transformer.",
    "qwen2.5-vl-7b": "text_encoders.qwen25_7b.transformer.",
    "mistral-3-small": "text_encoders.mistral3_24b.transformer.",
}
VAES = ("first_stage_model.", "vae.")
OTHERS = (*VAES, "text_encoders.", "model_ema.")

NORM = re.compile(r"(.*(?:(?:query|key)_norm|distilled_guidance_layer\.norms\.\d+))\.weight")
"""Scales of norms under the name that ComfyUI saves them by now."""

EMBEDDED = "transformer/config.json"
WHOLE_NUMBERS = ("U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "BOOL", "F4")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a file has a transformer of a family.

    Attributes:
        family: The family.
        prefix: What comes before the names of its tensors.
        original: Whether these are the names of its authors, not diffusers'.
    """

    family: Family
    prefix: str
    original: bool


def layout_of(header: Header) -> Layout | None:
    """Where a file has a transformer of a flow model; None for any other file."""
    for family, prefix in product(FAMILIES, PREFIXES):
        for original, marks in ((True, family.original), (False, family.diffusers)):
            if marks and all(f"{prefix}{mark}" in header.tensors for mark in marks):
                is_control = control_problem(header) is not None  # which is made of the same blocks
                return None if is_control else Layout(family, prefix, original)
    return None


def flow_in_file(path: Path, header: Header) -> FlowCheckpoint | None:
    """The flow model in a file; None for any other file. Takes milliseconds.

    Raises:
        ProblemError: It is one that cannot serve.
    """
    layout = layout_of(header)
    if layout is None:
        return None
    metadata = modelspec(header)
    try:
        return _found(path, header, layout, metadata)
    except ProblemError as error:
        error.family, error.metadata = layout.family.name, metadata
        raise


def _found(
    path: Path, header: Header, layout: Layout, metadata: Mapping[str, str]
) -> FlowCheckpoint:
    family, files = layout.family, configs.embedded(header.metadata)
    transformer = dict(_transformer(path, header, layout))
    config = configured(family, transformer, original=layout.original, known=files.get(EMBEDDED))
    said = " ".join(metadata.get(entry, "") for entry in ("architecture", "title"))
    variant = family.variant(config, said, path.stem)
    others = {name: Stored(path, header.tensors[name]) for name in header.tensors if _is_part(name)}
    texts = {text: _part(others, (prefix,)) for text, prefix in TEXTS.items()}
    return FlowCheckpoint(
        family=family,
        variant=variant,
        config=config,
        shift=variant.shift,
        transformer=transformer,
        original=layout.original,
        texts={text: weights for text, weights in texts.items() if weights},
        vae=_part(others, VAES),
        read=files.get,
        metadata=metadata,
    )


def configured(
    family: Family, transformer: Weights, *, original: bool, known: object = None
) -> Config:
    """The configuration of a transformer; raises `ProblemError` for one that cannot serve.

    Args:
        family: Its family.
        transformer: Its tensors, without a prefix.
        original: Whether they have the names of its authors.
        known: What a file says that its configuration is; None for what shapes say.
    """
    for mark, title in family.refused.items():
        if mark in transformer:
            raise ProblemError(f"this is {title}, which is not supported", family=family.name)
    for stored in transformer.values():
        if stored.tensor.dtype in WHOLE_NUMBERS and len(stored.tensor.shape) > 1:
            raise ProblemError(
                f"its weights are quantised ({stored.tensor.dtype}), which is not supported; take "
                "the fp16, the fp8 or a GGUF file",
                family=family.name,
            )
    shapes = {name: stored.tensor.shape for name, stored in transformer.items()}
    try:
        if isinstance(known, dict):
            config: Config = known
        else:
            config = family.configure(Shapes(shapes, original=original))
        if not all(_is_sound(value) for name, value in config.items() if name != "qk_norm"):
            raise ProblemError(f"its transformer has parts of no size, unlike {family.title}'s")
        family.check(config)
    except KeyError as error:
        name = str(error.args[0])[:80]
        lacking = f"its {EMBEDDED} has no {name}" if known else f"tensor {name!r} is missing"
        raise ProblemError(
            f"{lacking}: the file is damaged or was cut down", family=family.name
        ) from error
    except (IndexError, ZeroDivisionError, TypeError) as error:
        raise ProblemError(
            f"this is a {family.title} of an unknown architecture, which is not supported",
            family=family.name,
        ) from error
    return config


def _is_sound(value: object) -> bool:
    """Whether a configuration may have a value: all but names, and numbers from 0 down."""
    if isinstance(value, bool):
        return True
    return value > 0 if isinstance(value, int | float) else not isinstance(value, str)


def _transformer(path: Path, header: Header, layout: Layout) -> Iterator[tuple[str, Stored]]:
    for name, tensor in header.tensors.items():
        if name.startswith(layout.prefix) and (layout.prefix or not _is_part(name)):
            bare = name.removeprefix(layout.prefix)
            match = NORM.fullmatch(bare) if layout.original else None
            yield (f"{match[1]}.scale" if match else bare), Stored(path, tensor)


def _is_part(name: str) -> bool:
    return name.startswith(OTHERS)


def _part(others: Weights, prefixes: tuple[str, ...]) -> Weights:
    return {
        name.removeprefix(prefix): stored
        for prefix in prefixes
        for name, stored in others.items()
        if name.startswith(prefix)
    }
