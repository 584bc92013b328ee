"""diffusers folders of flow models are told by their index, and read by their configurations."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from checkpoints import write_hollow
from flow_keys import Shape
from flow_models import CONFIGS
from imagine_plugins.loaders.flow.checkpoint import FlowCheckpoint
from imagine_plugins.loaders.flow.folder import flow_in_folder
from imagine_plugins.loaders.flow.shifts import FixedShift, ShiftBySize
from imagine_plugins.loaders.folder import FolderLoader
from vaes import diffusers_shapes

CLASSES = {
    "SD3": ("StableDiffusion3Pipeline", ("CLIPTextModelWithProjection",) * 2 + ("T5EncoderModel",)),
    "FLUX.1": ("FluxPipeline", ("CLIPTextModel", "T5EncoderModel")),
    "FLUX.2": ("Flux2KleinPipeline", ("Qwen3ForCausalLM",)),
    "Z-Image": ("ZImagePipeline", ("Qwen3Model",)),
    "Qwen-Image": ("QwenImagePipeline", ("Qwen2_5_VLForConditionalGeneration",)),
    "Chroma": ("ChromaPipeline", ("T5EncoderModel",)),
}
VARIANTS = {
    "SD3": "Stable Diffusion 3 Medium",
    "FLUX.1": "FLUX.1 [dev]",
    "FLUX.2": "FLUX.2 [klein] 4B",
    "Z-Image": "Z-Image Turbo",
    "Qwen-Image": "Qwen-Image",
    "Chroma": "Chroma",
}
TEXT: dict[str, Shape] = {"text_model.embeddings.token_embedding.weight": (8, 4)}


def write(
    folder: Path, name: str, *, index: Any = None, config: Any = None, scheduler: Any = None
) -> Path:
    """A folder of hollow weights; a component whose entry in the index is None is left out."""
    pipeline, texts = CLASSES[name]
    kind, usual = CONFIGS[name]
    if name == "FLUX.2":
        usual = {**usual, "joint_attention_dim": 7680, "guidance_embeds": False}
    places = [f"text_encoder{'' if number == 0 else f'_{number + 1}'}" for number in range(3)]
    components: dict[str, Any] = {
        "transformer": ["diffusers", kind],
        "vae": ["diffusers", "AutoencoderKL"],
        **{place: ["transformers", text] for place, text in zip(places, texts, strict=False)},
        **(index or {}),
    }
    folder.mkdir()
    said = {"_class_name": pipeline, **components}
    (folder / "model_index.json").write_text(json.dumps(said))
    for component, entry in components.items():
        if not isinstance(entry, list) or entry[0] is None:
            continue
        (folder / component).mkdir()
        tensors = diffusers_shapes() if component == "vae" else TEXT
        stem = "model" if component.startswith("text") else "diffusion_pytorch_model"
        if component == "transformer":
            tensors = {"proj_out.weight": (4, 4), "pos_embed.proj.weight": (4, 4, 2, 2)}
            whole = {"_class_name": kind, **usual, **(config or {})}
            (folder / component / "config.json").write_text(json.dumps(whole))
        write_hollow(folder / component / f"{stem}.safetensors", tensors)
    (folder / "scheduler").mkdir()
    if scheduler is not None:
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


def found_in(folder: Path) -> FlowCheckpoint:
    found = flow_in_folder(folder)
    assert found is not None
    return found


@pytest.mark.parametrize("name", CLASSES)
def test_each_familys_folder_is_recognised_with_its_parts(tmp_path: Path, name: str) -> None:
    found = found_in(write(tmp_path / "mine", name))
    assert found.variant.title == VARIANTS[name]
    assert (found.needs, found.original) == ((), False)
    assert list(found.components) == ["vae", *found.variant.texts]
    assert set(found.texts) == set(found.variant.texts)
    assert found.config["in_channels"] == CONFIGS[name][1]["in_channels"]
    info = FolderLoader().recognise(tmp_path / "mine")
    assert info is not None
    assert info.problem == f"{VARIANTS[name]} is recognised, but cannot draw yet"
    assert (info.family, info.noise) == (found.family.name, "flow")


def test_the_order_of_text_encoders_is_that_of_the_pipeline(tmp_path: Path) -> None:
    assert found_in(write(tmp_path / "a", "SD3")).components == {
        "vae": "vae",
        "clip-l": "text_encoder",
        "clip-g": "text_encoder_2",
        "t5-xxl": "text_encoder_3",
    }


def test_a_folder_may_lack_the_text_encoder_that_its_family_draws_without(tmp_path: Path) -> None:
    found = found_in(write(tmp_path / "a", "SD3", index={"text_encoder_3": [None, None]}))
    assert (found.needs, set(found.texts)) == ((), {"clip-l", "clip-g"})
    found = found_in(write(tmp_path / "b", "FLUX.1", index={"text_encoder_2": [None, None]}))
    assert found.needs == ("t5-xxl",)


@pytest.mark.parametrize(
    ("name", "index", "scheduler", "title"),
    [
        ("FLUX.2", {"is_distilled": False}, None, "FLUX.2 [klein] Base 4B"),
        ("FLUX.2", {"is_distilled": True}, None, "FLUX.2 [klein] 4B"),
        ("FLUX.2", {}, None, "FLUX.2 [klein] Base 4B"),  # by the folder's name
        ("FLUX.2", {"is_distilled": [0]}, None, "FLUX.2 [klein] Base 4B"),
        ("Z-Image", {}, {"shift": [6.0]}, "Z-Image"),
        ("Z-Image", {}, {"shift": 6.0}, "Z-Image"),
        ("FLUX.1", {"_class_name": "FluxKontextPipeline"}, None, "FLUX.1 Kontext [dev]"),
    ],
)
def test_the_index_and_the_scheduler_tell_what_shapes_cannot(
    tmp_path: Path, name: str, index: Any, scheduler: Any, title: str
) -> None:
    folder = write(tmp_path / "klein-base", name, index=index, scheduler=scheduler)
    assert found_in(folder).variant.title == title


def test_a_folders_scheduler_decides_the_shift(tmp_path: Path) -> None:
    dynamic = {"use_dynamic_shifting": True, "max_shift": 1.0}
    assert found_in(write(tmp_path / "a", "SD3", scheduler=dynamic)).shift == ShiftBySize(most=1.0)
    assert found_in(write(tmp_path / "b", "SD3")).shift == FixedShift(3.0)


def test_shards_are_read_together(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", "FLUX.1") / "transformer"
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    for number in (1, 2):
        shard = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        write_hollow(folder / shard, {f"proj_out.{number}": (2, 2)})
    found = found_in(tmp_path / "a")
    assert set(found.transformer) == {"proj_out.1", "proj_out.2"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": {"_class_name": "UNet2DConditionModel"}}, "transformer is a UNet2D"),
        ({"config": {"_class_name": None}}, "transformer is of no class"),
        ({"config": {"in_channels": 32, "out_channels": 16}}, "FLUX.1 Depth"),
        ({"config": {"in_channels": 0}}, "no size"),
        ({"config": {"in_channels": "many", "out_channels": "more"}}, "no size"),
    ],
)
def test_a_folder_that_cannot_serve_says_why(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    info = FolderLoader().recognise(write(tmp_path / "a", "FLUX.1", **changes))
    assert info is not None
    assert info.family == "flux"
    assert re.search(words, info.problem or ""), info.problem


def test_a_folder_without_a_part_of_its_configuration_says_so(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", "FLUX.1")
    known = {"_class_name": "FluxTransformer2DModel", "num_layers": 1}
    (folder / "transformer" / "config.json").write_text(json.dumps(known))
    info = FolderLoader().recognise(folder)
    assert info is not None
    assert "transformer/config.json has no in_channels" in (info.problem or "")


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", "FLUX.1")
    (folder / "text_encoder_2" / "model.safetensors").unlink()
    info = FolderLoader().recognise(folder)
    assert info is not None
    assert "text_encoder_2 has no weights" in (info.problem or "")


def test_folders_of_anything_else_are_not_its_business(tmp_path: Path) -> None:
    others: list[Any] = [{}, [], {"_class_name": "StableDiffusionPipeline"}, {"_class_name": ["x"]}]
    for index in others:
        (tmp_path / "model_index.json").write_text(json.dumps(index))
        assert flow_in_folder(tmp_path) is None
