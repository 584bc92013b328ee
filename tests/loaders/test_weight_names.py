"""Names of weight files: variants, both spellings of their shards, and their indices."""

from __future__ import annotations

import pytest

from imagine_plugins.loaders.weight_names import index_files, weight_files

PLAIN = ["model.safetensors"]
NEW = ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"]
OLD = ["model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors"]
UNET = "diffusion_pytorch_model.fp16.safetensors"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (PLAIN + SHARDS + NEW, PLAIN),
        (SHARDS + NEW + OLD, SHARDS),
        (NEW + OLD, NEW),
        (OLD[::-1], OLD),
        ([UNET, *OLD], [UNET]),
        (["model.non_ema.safetensors", "model.bin", "model-one-of-two.safetensors"], []),
        ([], []),
    ],
)
def test_the_first_variant_that_is_there_is_taken_whole_and_unmixed(
    names: list[str], expected: list[str]
) -> None:
    assert weight_files(names) == expected


@pytest.mark.parametrize("shards", [NEW, OLD])
def test_another_order_of_preference_is_kept_in_both_spellings(shards: list[str]) -> None:
    assert weight_files(PLAIN + shards, variants=(".fp16", "")) == shards


def test_an_index_belongs_to_its_shards() -> None:
    assert index_files(SHARDS) == {"model.safetensors.index.json"}
    names = {"model.safetensors.index.fp16.json", "model.safetensors.fp16.index.json"}
    assert index_files(NEW) == index_files(OLD) == names
    assert index_files(PLAIN) == index_files([]) == set()
