"""Times a cold model's request to its first step, and diffusers' load of that file."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from measure import median, row, server, timed

from checkpoints import SD1, write_checkpoint, write_folder

ROUNDS = 5
REST = 5.0
"""Seconds before each load. A virtual machine hands memory that has been free for some seconds back
to its host, and to get it again takes longer than the load itself: both sides have to."""


def loading() -> None:
    """A checkpoint of SD1.5's size, fp16 in the file, bfloat16 in memory, warm page cache.

    diffusers loads in a process of its own, as a script does; its imports are not counted.
    """
    with tempfile.TemporaryDirectory() as models, tempfile.TemporaryDirectory() as configs:
        file = write_checkpoint(Path(models) / "sd15.safetensors", SD1, dtype="F16")
        config = write_folder(Path(configs) / "sd15", SD1, dtype="F16")
        for weights in Path(configs).rglob("*.safetensors"):
            weights.unlink()  # diffusers reads nothing but the configurations there
        with server(Path(models), "--device", "cpu") as client:
            first_step(client)  # the imports, and the page cache
            theirs, ours = [], []
            for _ in range(ROUNDS):
                theirs.append(seconds_of_diffusers(file, config))
                time.sleep(REST)
                ours.append(first_step(client))
    row("work", "median s", "ratio")
    row("---", "---", "---")
    row("diffusers `from_single_file`", f"{median(theirs):.2f}", "1.00")
    for work, seconds in zip(("begins", "is done"), zip(*ours, strict=True), strict=True):
        ratio = median([one / other for one, other in zip(seconds, theirs, strict=True)])
        row(f"request until the first step {work}", f"{median(seconds):.2f}", f"{ratio:.2f}")


def seconds_of_diffusers(file: Path, config: Path) -> float:
    """Seconds that diffusers takes to load `file` in a new process."""
    command = [sys.executable, __file__, str(file), str(config)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def load_with_diffusers(file: Path, config: Path) -> float:
    """Seconds that loading `file` takes as the documentation of diffusers has it."""
    import torch
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401 - the imports behind it

    from imagine_plugins.loaders.vocabulary import clip_vocabulary

    vocabulary, merges = clip_vocabulary()
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    options = {"config": str(config), "torch_dtype": torch.bfloat16, "tokenizer": tokenizer}
    time.sleep(REST)
    return timed(lambda: StableDiffusionPipeline.from_single_file(str(file), **options))


def first_step(client: httpx.Client) -> tuple[float, float]:
    """Seconds until a cold model begins the first of two steps of 64x64 pixels, and ends it."""
    body = {"model": "sd15", "prompt": "a house", "width": 64, "height": 64, "steps": 2, "seed": 1}
    asked = time.perf_counter()
    with client.stream("POST", "/generate", json={**body, "progress": True}) as response:
        response.raise_for_status()
        lines = (json.loads(line) for line in response.iter_lines())
        next(line for line in lines if line.get("step"))
        done = time.perf_counter() - asked
        *_, last = lines
    begins = sum(last["timings"][phase] for phase in ("queued", "loading", "encoding"))
    client.post("/stop", json={"model": "sd15"}).raise_for_status()
    while client.get("/ps").json()["models"]:
        time.sleep(0.01)
    return begins, done


if __name__ == "__main__":
    print(load_with_diffusers(*map(Path, sys.argv[1:])))
