"""From a request for a cold model to its first step, and diffusers' loading of the same file."""

from __future__ import annotations

import gc
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import httpx
import torch
from measure import interleaved, median, row, server

from checkpoints import SD1, write_checkpoint, write_folder

ROUNDS = 5


def loading() -> None:
    """A checkpoint of SD1.5's size, fp16 in the file, bfloat16 in memory, warm page cache."""
    with tempfile.TemporaryDirectory() as models, tempfile.TemporaryDirectory() as configs:
        file = write_checkpoint(Path(models) / "sd15.safetensors", SD1, dtype="F16")
        write_folder(Path(configs) / "sd15", SD1, dtype="F16")
        for weights in Path(configs).rglob("*.safetensors"):
            weights.unlink()  # diffusers reads nothing but the configurations there
        load = partial(load_with_diffusers, file, Path(configs) / "sd15")
        with server(Path(models), "--device", "cpu") as client:
            theirs, ours = interleaved(ROUNDS, load, partial(until_first_step, client))
    ratio = median([b / a for a, b in zip(theirs, ours, strict=True)])
    row("diffusers from_single_file, s", "Imagine from request to first step, s", "ratio")
    row("---", "---", "---")
    row(f"{median(theirs):.2f}", f"{median(ours):.2f}", f"{ratio:.2f}")


def load_with_diffusers(file: Path, config: Path) -> None:
    """Load `file` as its documentation says, with the imports behind it."""
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer

    from imagine_plugins.loaders.vocabulary import clip_vocabulary

    vocabulary, merges = clip_vocabulary()
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    pipeline = StableDiffusionPipeline.from_single_file(
        str(file), config=str(config), torch_dtype=torch.bfloat16, tokenizer=tokenizer
    )
    del pipeline
    gc.collect()


def until_first_step(client: httpx.Client) -> None:
    """The first of two steps of 64x64 pixels on a cold model, which is stopped afterwards."""
    body = {"model": "sd15", "prompt": "a house", "width": 64, "height": 64, "steps": 2, "seed": 1}
    with client.stream("POST", "/generate", json={**body, "stream": 1}) as response:
        response.raise_for_status()
        lines = response.iter_lines()
        while json.loads(next(lines))["status"] != "intermediate":
            pass
    client.post("/stop", json={"model": "sd15"}).raise_for_status()
    while client.get("/ps").json()["models"]:
        time.sleep(0.01)
