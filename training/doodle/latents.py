"""Draws many scenes of many sizes and keeps their latents on disk, with their facts."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from doodle.autoencoder import tensor
from doodle.facts import Scene, training_scene
from doodle.runs import autocast, device, save_atomically, say, wait_while_paused
from doodle.scenes import draw

# (width, height), shards, scenes in a shard; in the order in which training wants them.
PLAN: tuple[tuple[tuple[int, int], int, int], ...] = (
    ((512, 512), 4, 500),
    ((256, 256), 3, 1000),
    ((512, 768), 1, 200),
    ((768, 512), 1, 200),
    ((384, 384), 2, 600),
    ((512, 512), 4, 500),
    ((384, 512), 2, 300),
    ((512, 384), 2, 300),
    ((768, 768), 1, 160),
    ((256, 384), 2, 400),
    ((384, 256), 2, 400),
    ((640, 640), 1, 200),
    ((512, 512), 8, 500),
    ((256, 256), 3, 1000),
    ((768, 768), 7, 160),
    ((768, 512), 4, 200),
    ((512, 768), 4, 200),
    ((640, 640), 3, 200),
    ((640, 448), 2, 200),
    ((448, 640), 2, 200),
)


def shards(state: Path) -> list[tuple[Path, tuple[int, int], int]]:
    """The path of each shard, the size of its canvases and their number."""
    found, counts = [], dict[tuple[int, int], int]()
    for size, number, scenes in PLAN:
        for _ in range(number):
            k = counts[size] = counts.get(size, 0) + 1
            found.append((state / "latents" / f"{size[0]}x{size[1]}_{k:03d}.pt", size, scenes))
    return found


@torch.no_grad()
def encode(state: Path, *, part: int = 0, parts: int = 1) -> None:
    """Makes every shard that is missing; of several processes each makes its part."""
    from diffusers import AutoencoderTiny

    model = AutoencoderTiny.from_pretrained(state / "vae").to(
        device(), memory_format=torch.channels_last
    )
    for i, (path, size, count) in enumerate(shards(state)):
        if i % parts != part or path.exists():
            continue
        rng = random.Random(path.name)
        scenes = [training_scene(rng) for _ in range(count)]
        drawn = [_drawn(model, scene, size, rng.getrandbits(40)) for scene in scenes]
        save_atomically({
            "latents": torch.cat([latent for latent, _ in drawn]),
            "subject": torch.cat([subject for _, subject in drawn]),
            "facts": [dataclasses.asdict(s) for s in scenes],
        }, path)  # fmt: skip
        say(f"latents {path.name}")


def _drawn(
    model: Any, scene: Scene, size: tuple[int, int], seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The latent of a drawing of `scene`, and how much of each of its cells is the subject."""
    wait_while_paused()
    drawn = draw(scene, *size, seed=seed)
    pixels = tensor(drawn.image)[None].to(device(), memory_format=torch.channels_last)
    with autocast():
        latent = model.encoder(pixels).half().cpu().contiguous()
    cells = drawn.mask.resize((latent.shape[3], latent.shape[2]), Image.Resampling.BOX)
    return latent, torch.from_numpy(np.asarray(cells).copy())[None]


class Latents:
    """The shards that exist by now, in memory, by the size of their canvases."""

    def __init__(self, state: Path) -> None:
        self.state, self.seen = state, set[Path]()
        self.latents: dict[tuple[int, int], torch.Tensor] = {}
        self.subjects: dict[tuple[int, int], torch.Tensor] = {}
        self.scenes: dict[tuple[int, int], list[Scene]] = {}
        self.look()

    def look(self) -> None:
        """Takes in the shards that were finished since the last look."""
        for path, size, _ in shards(self.state):
            if path in self.seen or not path.exists():
                continue
            shard = torch.load(path, weights_only=True)
            for kept, new in ((self.latents, "latents"), (self.subjects, "subject")):
                kept[size] = torch.cat([kept[size], shard[new]]) if size in kept else shard[new]
            self.scenes.setdefault(size, []).extend(Scene(**facts) for facts in shard["facts"])
            self.seen.add(path)

    def batch(
        self, size: tuple[int, int], count: int, rng: random.Random
    ) -> tuple[torch.Tensor, torch.Tensor, list[Scene]]:
        """`count` latents of canvases of `size`, the subject's share of each cell, the scenes."""
        chosen = rng.choices(range(len(self.scenes[size])), k=count)
        subjects = self.subjects[size][chosen].float() / 255
        return self.latents[size][chosen].float(), subjects, [self.scenes[size][i] for i in chosen]
