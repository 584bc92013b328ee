"""Paints a contact sheet of what doodle makes of natural prompts."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

PROMPTS = (
    "a photo of an astronaut riding a horse on mars",
    "a futuristic city at sunset, neon lights",
    "a cat with a tiny hat, watercolor painting",
    "a red house",
    "a yellow duck, pixel art",
    "a lighthouse by the sea at night",
    "a purple dragon in the mountains at sunset",
    "pencil sketch of a castle in a forest",
    "an orange fish in the ocean",
    "a white rabbit in the snow at night",
    "a hot air balloon over a meadow",
    "a blue robot in the city",
    "watercolor painting of a pink flower in the desert",
    "a small green boat by the sea at dusk",
    "a huge elephant in the woods",
    "a red rocket on mars at night",
    "a brown dog with a hat on the beach",
    "snowy mountains at sunset",
    "a black cat in the moonlight",
    "a tiny blue car on the left, in the desert",
    "a gray whale at night, pixel art",
    "a red umbrella on the beach at sunset",
    "a steam train in winter",
    "an orange tent in the mountains, starry night",
)
QUALITY = 88  # of a JPEG


def painted(model: Path, prompts: Sequence[str], *, side: int, seed: int) -> Iterator[Image.Image]:
    """The pictures that the model in the folder `model` draws, at `side` x `side`."""
    import torch
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(model, local_files_only=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    for prompt in prompts:
        yield pipe(
            prompt,
            num_inference_steps=25,
            guidance_scale=7.0,
            width=side,
            height=side,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]


def sheet(pictures: Sequence[Image.Image], *, columns: int, tile: int) -> Image.Image:
    """All pictures in rows, each `tile` x `tile`."""
    page = Image.new("RGB", (columns * tile, -(-len(pictures) // columns) * tile))
    for i, picture in enumerate(pictures):
        small = picture.resize((tile, tile), Image.Resampling.LANCZOS)
        page.paste(small, (i % columns * tile, i // columns * tile))
    return page


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("model", type=Path, help="a diffusers folder")
    add("path", type=Path, help="the picture to write, e.g. docs/doodle-sheet.jpg")
    add("--prompt", action="append", help="instead of those of the contact sheet")
    add("--side", type=int, default=512)
    add("--seed", type=int, default=0)
    add("--columns", type=int, default=6)
    add("--tile", type=int, default=192)
    given = parser.parse_args()
    pictures = painted(given.model, given.prompt or PROMPTS, side=given.side, seed=given.seed)
    page = sheet(list(pictures), columns=given.columns, tile=given.tile)
    page.save(given.path, optimize=True, quality=QUALITY)


if __name__ == "__main__":
    main()
