"""Stored tensors find the parameters of flow transformers, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import write_hollow
from flow_keys import OFFICIAL, expanded
from flow_models import CONFIGS, original, tiny
from imagine_plugins.loaders.components import Piece
from imagine_plugins.loaders.flow.conversion import pieces_of
from imagine_plugins.loaders.flow.recognition import flow_in_file
from imagine_plugins.loaders.header import read_header
from imagine_plugins.loaders.problems import ProblemError

# diffusers' Chroma imports what diffusers deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.FluxPosEmbed:FutureWarning")

AUTHORS = [name for name in CONFIGS if name != "Qwen-Image"]  # whose authors use diffusers' names


def shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def assembled(tensors: Mapping[str, torch.Tensor], pieces: tuple[Piece, ...]) -> torch.Tensor:
    return torch.cat([tensors[piece.key][piece.start : piece.stop] for piece in pieces])


@pytest.mark.parametrize("name", AUTHORS)
def test_pieces_of_the_authors_layout_make_up_diffusers_parameters(name: str) -> None:
    model = tiny(name)
    wanted, stored = model.state_dict(), original(name, model)
    assert set(stored) != set(wanted)
    pieces = pieces_of(CONFIGS[name][0], shapes(stored), shapes(wanted), original=True)
    assert set(pieces) == set(wanted)
    for target, value in wanted.items():
        assert torch.equal(assembled(stored, pieces[target]), value), target


@pytest.mark.parametrize("name", CONFIGS)
def test_diffusers_own_names_are_whole_pieces(name: str) -> None:
    wanted = tiny(name).state_dict()
    pieces = pieces_of(CONFIGS[name][0], shapes(wanted), shapes(wanted), original=False)
    assert pieces == {
        target: (Piece(target, 0, value.shape[0]),) for target, value in wanted.items()
    }


def on_meta(kind: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    import diffusers

    with torch.device("meta"):
        return shapes(getattr(diffusers, kind)(**config).state_dict())


@pytest.mark.parametrize("name", OFFICIAL)
def test_all_rows_of_the_official_layout_find_their_place_once(tmp_path: Path, name: str) -> None:
    tensors = expanded(OFFICIAL[name])
    path = write_hollow(tmp_path / "model.safetensors", tensors)
    found = flow_in_file(path, read_header(path))
    assert found is not None
    wanted = on_meta(found.family.transformer, found.config)
    stored = {key: value.tensor.shape for key, value in found.transformer.items()}
    assert stored == tensors
    pieces = pieces_of(found.family.transformer, stored, wanted, original=found.original)
    rows = sorted(piece[:3] for each in pieces.values() for piece in each)
    ends = dict.fromkeys(tensors, 0)
    for key, start, stop in rows:
        assert start == ends[key]
        assert stop is not None
        ends[key] = stop
    assert ends == {key: shape[0] for key, shape in tensors.items()}
    assert set(pieces) == set(wanted)


def test_a_missing_tensor_is_named() -> None:
    model = tiny("FLUX.1")
    stored = shapes(original("FLUX.1", model))
    del stored["double_blocks.1.img_attn.proj.weight"]
    wanted = shapes(model.state_dict())
    with pytest.raises(
        ProblemError, match=r"'double_blocks\.1\.img_attn\.proj\.weight' is missing"
    ):
        pieces_of("FluxTransformer2DModel", stored, wanted, original=True)
    named = {key: shape for key, shape in wanted.items() if key != "proj_out.bias"}
    with pytest.raises(ProblemError, match=r"no tensor holds 'proj_out\.bias'"):
        pieces_of("FluxTransformer2DModel", named, wanted, original=False)


@pytest.mark.parametrize("name", AUTHORS)
def test_a_tensor_of_another_shape_is_named(name: str) -> None:
    model = tiny(name)
    stored, wanted = shapes(original(name, model)), shapes(model.state_dict())
    for key, shape in stored.items():
        other = {**stored, key: (*shape[:-1], shape[-1] + 7)}
        with pytest.raises(ProblemError, match="shape"):
            pieces_of(CONFIGS[name][0], other, wanted, original=True)


def test_scales_beside_fp8_weights_are_no_parameters() -> None:
    model = tiny("FLUX.2")
    stored, wanted = shapes(original("FLUX.2", model)), shapes(model.state_dict())
    scales = {
        "scaled_fp8": (2,),
        "double_blocks.0.img_attn.qkv.scale_weight": (),
        "double_blocks.0.img_attn.qkv.weight_scale": (),
        "double_blocks.0.img_attn.qkv.comfy_quant": (20,),
    }
    plain = pieces_of("Flux2Transformer2DModel", stored, wanted, original=True)
    assert pieces_of("Flux2Transformer2DModel", stored | scales, wanted, original=True) == plain
