"""Writes the trained parts as a diffusers folder in float16."""

import json
from pathlib import Path
from typing import Any

import torch

from doodle import unet
from doodle.runs import say
from doodle.tokenizer import load_tokenizer

INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.30.0",
    "feature_extractor": [None, None], "image_encoder": [None, None],
    "requires_safety_checker": False, "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderTiny"],
}  # fmt: skip


def export(state: Path, folder: Path) -> None:
    """The averaged weights of `state` as a folder that any Stable Diffusion loader takes."""
    from diffusers import AutoencoderTiny, DDIMScheduler

    model = unet.build(state)
    model.load_state_dict(torch.load(state / "unet.pt", weights_only=True)["average"])
    folder.mkdir(parents=True, exist_ok=True)
    model["unet"].half().save_pretrained(folder / "unet")
    model["text"].half().save_pretrained(folder / "text_encoder")
    _load_in_float32(folder / "text_encoder" / "config.json")
    AutoencoderTiny.from_pretrained(state / "vae").half().save_pretrained(folder / "vae")
    _forget_where_it_was_made(folder / "vae" / "config.json")
    load_tokenizer(state / "tokenizer").save_pretrained(folder / "tokenizer")
    DDIMScheduler.from_config(unet.SCHEDULE).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
    for path in filter(Path.is_file, folder.rglob("*")):
        path.chmod(0o644)  # safetensors writes for its owner alone
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    say(f"exported {size / 1e6:.1f} MB to {folder}")


def _forget_where_it_was_made(config: Path) -> None:
    settings = json.loads(config.read_text())
    settings.pop("_name_or_path", None)
    config.write_text(json.dumps(settings, indent=2) + "\n")


def _load_in_float32(config: Path) -> None:
    """Makes transformers load the text encoder as diffusers loads the rest: float32 unless told.

    transformers 5 goes by the dtype of the file, diffusers by its argument; left alone, a pipeline
    loaded without torch_dtype mixes the two and fails.
    """
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"dtype": "float32"}, indent=2) + "\n")
