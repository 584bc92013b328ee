"""Names of a component's weight files in diffusers folders: variants, shards and their indices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

STEMS = ("diffusion_pytorch_model", "model")
VARIANTS = ("", ".fp16", ".bf16")
"""In the order of preference: the plain file, then those that some repositories hold alone."""

SHARD = r"-\d+-of-\d+"


def weight_files(names: Iterable[str], *, variants: Sequence[str] = VARIANTS) -> list[str]:
    """Of the file names of a component, its weights: one file, or the shards of one variant.

    The shards of a variant have two spellings: `model.fp16-00001-of-00002.safetensors`, and
    `model-00001-of-00002.fp16.safetensors`, which older versions of diffusers wrote.
    """
    names = sorted(names)
    for variant in map(re.escape, variants):
        for stem in STEMS:
            for ending in (variant, variant + SHARD, SHARD + variant):
                pattern = re.compile(rf"{stem}{ending}\.safetensors")
                if found := [name for name in names if pattern.fullmatch(name)]:
                    return found
    return []


def index_files(weights: Sequence[str]) -> set[str]:
    """The names that the index of these shards may have; none for a single file."""
    shard = weights and re.fullmatch(rf"(\w+)(\.\w+)?{SHARD}(\.\w+)?\.safetensors", weights[0])
    if not shard:
        return set()
    whole, variant = f"{shard[1]}.safetensors", shard[2] or shard[3] or ""
    return {f"{whole}.index{variant}.json", f"{whole}{variant}.index.json"}
