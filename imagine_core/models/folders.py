"""The kinds of files in the models folder, and where those of each kind lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = [
    "FOLDERS",
    "KINDS",
    "LABELS",
    "folder_of",
    "place_of",
]

FOLDERS: Mapping[str, str] = {
    "model": "",
    "lora": "loras",
    "embedding": "embeddings",
    "vae": "vae",
    "text-encoder": "text_encoders",
    "controlnet": "controlnet",
    "upscaler": "upscale_models",
}
"""The folder of each kind inside the models folder, as other programs call them."""

KINDS: Mapping[str, str] = {
    "model": "this is a model",
    "lora": "this is a LoRA, which changes what a model draws, and draws nothing alone",
    "embedding": "this is an embedding, a word for prompts, which draws nothing alone",
    "vae": "this is a VAE, which only turns latents into pictures and back",
    "controlnet": "this is a ControlNet, which steers what a model draws, and draws nothing alone",
    "upscaler": "this is an upscaler, which enlarges pictures, and draws none",
}
"""The kinds that are listed, models first, and what is said of a file of that kind."""

LABELS: Mapping[str, str] = {
    "model": "model",
    "lora": "LoRA",
    "embedding": "embedding",
    "vae": "VAE",
    "controlnet": "ControlNet",
    "upscaler": "upscaler",
}
"""What messages call a file of each kind."""


def folder_of(models: Path, kind: str) -> Path:
    """The folder of the files of `kind`, where `models` is the models folder."""
    return models / FOLDERS[kind]


def place_of(kind: str) -> str:
    """Where a file of `kind` belongs, as the end of a sentence that begins with "it belongs"."""
    if kind == "model":
        return "in the models folder itself"
    return f"in the folder {FOLDERS[kind]}/ beside the checkpoints"
