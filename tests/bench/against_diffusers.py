"""The same work of SD1.5's size through our HTTP server and through diffusers' own pipeline."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import torch
from measure import interleaved, median, row, server

from checkpoints import SD1, write_folder

SIZE, STEPS, ROUNDS = 256, 4, 5
PROMPT, NEGATIVE = "a photo of an astronaut riding a horse on mars", "ugly, blurry"


def against_diffusers() -> None:
    """float32 and bfloat16, warm, 256x256, 4 steps, guidance 7."""
    row("dtype", "diffusers median s", "Imagine over HTTP median s", "ratio")
    row("---", "---", "---", "---")
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder) / "sd15", SD1, dtype="F16")
        for dtype, options in (("float32", ["--full_prec"]), ("bfloat16", [])):
            compare(Path(folder), dtype, options)


def compare(folder: Path, dtype: str, options: list[str]) -> None:
    """One row of the table."""
    pipeline = load(folder / "sd15", getattr(torch, dtype))
    with server(folder, "--device", "cpu", *options) as client:
        theirs, ours = interleaved(ROUNDS, partial(draw, pipeline), partial(ask, client))
    ratio = median([b / a for a, b in zip(theirs, ours, strict=True)])
    row(dtype, f"{median(theirs):.2f}", f"{median(ours):.2f}", f"{ratio:.3f}")


def load(folder: Path, dtype: torch.dtype) -> Any:
    """diffusers' pipeline as its documentation builds it, with our default sampler."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    from imagine_plugins.loaders.vocabulary import clip_vocabulary

    vocabulary, merges = clip_vocabulary()
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=dtype, tokenizer=tokenizer
    )
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: Any) -> None:
    """One picture through the pipeline."""
    pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        width=SIZE,
        height=SIZE,
        num_inference_steps=STEPS,
        guidance_scale=7.0,
        generator=torch.Generator().manual_seed(1),
    )


def ask(client: httpx.Client) -> None:
    """The same picture through the server."""
    body = {
        "model": "sd15",
        "prompt": PROMPT,
        "neg": NEGATIVE,
        "width": SIZE,
        "height": SIZE,
        "steps": STEPS,
        "seed": 1,
    }
    client.post("/generate", json=body).raise_for_status()
