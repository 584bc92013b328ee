"""What tools call the tensors of a checkpoint, and that each is loaded as the same model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from checkpoints import (
    SD1,
    SD2,
    SDXL,
    TINY_SD1,
    TINY_SD2,
    TINY_SDXL,
    Layout,
    shapes,
    write_checkpoint,
    write_hollow,
)
from imagine_plugins.loaders.checkpoint import CheckpointLoader
from reference import load, single_file_pipeline

Tensors = dict[str, torch.Tensor]

SECOND = "conditioner.embedders.1.model."
FIRST = "conditioner.embedders.0."
VAE = "first_stage_model."


def moved(old: str, new: str) -> Callable[[Tensors, Any], Tensors]:
    def change(tensors: Tensors, _: Any) -> Tensors:
        assert any(name.startswith(old) for name in tensors)
        return {
            new + name.removeprefix(old) if name.startswith(old) else name: value
            for name, value in tensors.items()
        }

    return change


def without(tensors: Tensors, prefix: str) -> Tensors:
    return {name: value for name, value in tensors.items() if not name.startswith(prefix)}


def diffusers_projection(tensors: Tensors, _: Any) -> Tensors:
    """As convert_diffusers_to_original_sdxl.py writes it: Hugging Face's weight, as it is."""
    projection = tensors.pop(f"{SECOND}text_projection")
    return tensors | {f"{SECOND}text_projection.weight": projection.T.contiguous()}


def diffusers_attention(tensors: Tensors, _: Any) -> Tensors:
    """As the same converter did until it was mended."""
    new = {".q.": ".to_q.", ".k.": ".to_k.", ".v.": ".to_v.", ".proj_out.": ".to_out.0."}
    for name in [name for name in tensors if ".mid.attn_1." in name]:
        for old, other in new.items():
            if old in name:
                tensors[name.replace(old, other)] = tensors.pop(name).squeeze()
    return tensors


def hugging_face(component: str, old: str, new: str) -> Callable[[Tensors, Any], Tensors]:
    """With a component as diffusers or transformers name its parameters."""

    def change(tensors: Tensors, pipeline: Any) -> Tensors:
        state = getattr(pipeline, component).state_dict()
        prefix = "" if component == "vae" else "text_model."
        names = {
            name if name.startswith(("text_model.", "text_projection.")) else prefix + name: value
            for name, value in state.items()
        }
        return without(tensors, old) | {
            new + name: value.half().contiguous() for name, value in names.items()
        }

    return change


def layers_alone(tensors: Tensors, _: Any) -> Tensors:
    """OpenCLIP's layers, and the rest in Hugging Face's names."""
    root = "cond_stage_model.model."
    other = f"{root}transformer.text_model."
    for old, new in {
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
        "ln_final.weight": "final_layer_norm.weight",
        "ln_final.bias": "final_layer_norm.bias",
    }.items():
        tensors[other + new] = tensors.pop(root + old)
    return tensors | {f"{other}embeddings.position_ids": torch.arange(77)[None]}


def no_extras(tensors: Tensors, _: Any) -> Tensors:
    extra = ("position_ids", "logit_scale")
    return {name: value for name, value in tensors.items() if not name.endswith(extra)}


def float_positions(tensors: Tensors, _: Any) -> Tensors:
    names = [name for name in tensors if name.endswith("position_ids")]
    assert names
    return tensors | {name: tensors[name].half() for name in names}


CLIP = "cond_stage_model.transformer."
OPENCLIP = "cond_stage_model.model."
CASES: dict[str, tuple[Layout, Callable[[Tensors, Any], Tensors]]] = {
    "sdxl, projection of diffusers": (TINY_SDXL, diffusers_projection),
    "sdxl, first encoder shortened": (
        TINY_SDXL,
        moved(f"{FIRST}transformer.text_model.", f"{FIRST}transformer."),
    ),
    "sdxl, second encoder of transformers in comfyui's place": (
        TINY_SDXL,
        hugging_face("text_encoder_2", SECOND, f"{SECOND}transformer."),
    ),
    "sdxl, second encoder of transformers": (
        TINY_SDXL,
        hugging_face("text_encoder_2", SECOND, "conditioner.embedders.1.transformer."),
    ),
    "sdxl, vae of diffusers": (TINY_SDXL, hugging_face("vae", VAE, VAE)),
    "sdxl, no extras": (TINY_SDXL, no_extras),
    "sd1, in sdxl's names": (TINY_SD1, moved("cond_stage_model.", FIRST)),
    "sd1, novelai": (TINY_SD1, moved(f"{CLIP}text_model.", CLIP)),
    "sd1, positions as floats": (TINY_SD1, float_positions),
    "sd1, vae under its short name": (TINY_SD1, moved(VAE, "vae.")),
    "sd1, vae of diffusers under its short name": (TINY_SD1, hugging_face("vae", VAE, "vae.")),
    "sd1, attention of diffusers": (TINY_SD1, diffusers_attention),
    "sd2, turbo": (TINY_SD2, moved("cond_stage_model.", FIRST)),
    "sd2, encoder of transformers": (TINY_SD2, hugging_face("text_encoder", OPENCLIP, CLIP)),
    "sd2, encoder of transformers in comfyui's place": (
        TINY_SD2,
        hugging_face("text_encoder", OPENCLIP, f"{OPENCLIP}transformer."),
    ),
    "sd2, openclip's layers alone": (TINY_SD2, layers_alone),
}


def state(model: Any) -> Tensors:
    modules = {"unet": model.unet, "vae": model.autoencoder.model, "text": model.text.model}
    if hasattr(model, "second"):
        modules["second"] = model.second.model
    return {
        f"{part}.{name}": value
        for part, module in modules.items()
        for name, value in module.named_parameters()
    }


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SimpleNamespace]:
    """A checkpoint of each family in the usual names, and what diffusers makes of it."""
    made = {}
    for layout in (TINY_SD1, TINY_SD2, TINY_SDXL):
        folder = tmp_path_factory.mktemp(layout.name)
        path = write_checkpoint(folder / "usual.safetensors", layout)
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        pipeline = single_file_pipeline(path, layout, folder / "configs")
        made[layout.name] = SimpleNamespace(
            path=path, metadata=metadata, pipeline=pipeline, state=state(load(path))
        )
    return made


@pytest.mark.parametrize(("layout", "change"), CASES.values(), ids=CASES)
def test_a_checkpoint_in_another_tools_names_is_the_same_model(
    tmp_path: Path,
    usual: dict[str, SimpleNamespace],
    layout: Layout,
    change: Callable[[Tensors, Any], Tensors],
) -> None:
    known = usual[layout.name]
    tensors = change(load_file(known.path), known.pipeline)
    assert set(tensors) != set(load_file(known.path)) or change is float_positions
    other = tmp_path / "other.safetensors"
    save_file({name: value.contiguous() for name, value in tensors.items()}, other, known.metadata)
    found = state(load(other))
    assert set(found) == set(known.state)
    assert [name for name in found if not torch.equal(found[name], known.state[name])] == []


@pytest.mark.parametrize(
    ("layout", "old", "new"),
    [
        (SDXL, f"{SECOND}text_projection", f"{SECOND}text_projection.weight"),
        (SD2, "cond_stage_model.", FIRST),
        (SD1, "cond_stage_model.", FIRST),
        (SD1, f"{CLIP}text_model.", CLIP),
        (SDXL, VAE, "vae."),
    ],
)
def test_full_size_checkpoints_are_known_in_those_names(
    tmp_path: Path, layout: Layout, old: str, new: str
) -> None:
    tensors = {
        new + name.removeprefix(old) if name.startswith(old) else name: shape
        for name, shape in shapes(layout).items()
    }
    info = CheckpointLoader().recognise(write_hollow(tmp_path / "a.safetensors", tensors))
    assert info is not None
    assert (info.family, info.problem) == (layout.name, None)


def test_a_usual_name_wins_over_another_for_the_same_tensor(
    tmp_path: Path, usual: dict[str, SimpleNamespace]
) -> None:
    known = usual["sd1"]
    tensors = load_file(known.path)
    weight = tensors[f"{VAE}decoder.conv_in.weight"]
    strange = {"vae.decoder.conv_in.weight": torch.zeros_like(weight)}
    save_file(strange | tensors, tmp_path / "both.safetensors", known.metadata)
    model = load(tmp_path / "both.safetensors")
    assert torch.equal(model.autoencoder.model.decoder.conv_in.weight, weight.float())
