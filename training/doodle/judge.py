"""The judge: a small network, taught by fresh drawings alone, that says what a picture shows."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import nn
from torch.nn import functional

from doodle.facts import NEON, NOTHING, RIDER, Scene, random_scene
from doodle.runs import device, save_atomically, say, wait_while_paused
from doodle.scenes import draw
from doodle.styles import STYLES
from doodle.subjects import COLORS, SUBJECTS
from doodle.view import PLACES, TIMES

SIDE, GRID = 96, 24
NAMES = (*SUBJECTS, NOTHING, NEON, RIDER)
EPOCHS, HELD_OUT = 8, 1500


def block(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    """A convolution with what usually follows it."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


class Eye(nn.Module):
    """Says which subject a picture shows, and which of its GRID x GRID squares belong to it."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(block(3, 32, 2), block(32, 64, 2), block(64, 64))
        self.high = nn.Sequential(
            block(64, 128, 2), block(128, 128), block(128, 160, 2), block(160, 160)
        )
        self.name = nn.Linear(320, len(NAMES))
        self.back = block(160, 64)
        self.where = nn.Sequential(block(128, 64), nn.Conv2d(64, 1, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the subjects and of the squares."""
        low = self.low(x)
        high = self.high(low)
        pooled = torch.cat([high.mean((2, 3)), high.amax((2, 3))], 1)
        wide = functional.interpolate(self.back(high), scale_factor=4)
        return self.name(pooled), self.where(torch.cat([low, wide], 1))[:, 0]


class Air(nn.Module):
    """Says place and time by nothing but the mean colours of a coarse grid, subject left out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8 * 4 * 4, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU())
        self.place, self.time = nn.Linear(96, len(PLACES)), nn.Linear(96, len(TIMES))

    def forward(self, x: torch.Tensor, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the places and of the times."""
        free = (1 - where)[:, None]
        small = functional.adaptive_avg_pool2d(x, GRID)
        share = functional.adaptive_avg_pool2d(free, (8, 4))
        color = functional.adaptive_avg_pool2d(small * free, (8, 4)) / (share + 0.02)
        found = self.body(torch.cat([color, share], 1).flatten(1))
        return self.place(found), self.time(found)


def seen(image: Image.Image) -> np.ndarray[Any, Any]:
    """The input of the judge: the middle square of a picture at SIDE x SIDE pixels."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BOX))


@dataclass
class Drawings:
    """Drawn scenes as the judge sees them, with the truth about each."""

    pixels: torch.Tensor
    masks: torch.Tensor
    scenes: list[Scene]

    def truth(self, field: str, names: tuple[str, ...]) -> torch.Tensor:
        """The index in `names` of each scene's `field`."""
        return torch.tensor([names.index(getattr(s, field)) for s in self.scenes])


def drawings(count: int, seed: str, *, soft: bool) -> Drawings:
    """`count` fresh scenes; with `soft`, half of them blurred a little, as generated ones are."""
    rng = random.Random(seed)
    pixels, masks, scenes = [], [], []
    for _ in range(count):
        wait_while_paused()
        scene = random_scene(rng)
        drawn = draw(
            scene, *rng.choice(((256, 256), (256, 256), (512, 512))), seed=rng.getrandbits(40)
        )
        image = drawn.image
        if soft and rng.random() < 0.5:
            image = image.filter(ImageFilter.GaussianBlur(image.width * rng.uniform(0.002, 0.009)))
        pixels.append(seen(image))
        masks.append(np.asarray(drawn.mask.resize((GRID, GRID), Image.Resampling.BOX)))
        scenes.append(scene)
    stack = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Drawings(stack, torch.from_numpy(np.stack(masks)), scenes)


def as_input(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels as the networks want them."""
    return (pixels.float() / 127.5 - 1).to(device())


class Judge:
    """Both networks and, for every style, what the eleven colours look like in it."""

    def __init__(self) -> None:
        self.eye, self.air = Eye().to(device()), Air().to(device())
        self.palette = torch.zeros(len(STYLES), len(COLORS), 3)

    def state(self) -> dict[str, Any]:
        """All that `load` needs."""
        return {"eye": self.eye.state_dict(), "air": self.air.state_dict(), "palette": self.palette}

    def load(self, path: Path) -> "Judge":
        """The judge as saved at `path`, ready to judge."""
        saved = torch.load(path, map_location=device(), weights_only=True)
        self.eye.load_state_dict(saved["eye"])
        self.air.load_state_dict(saved["air"])
        self.palette = saved["palette"]
        self.eye.eval()
        self.air.eval()
        return self

    @torch.no_grad()
    def verdicts(self, pixels: torch.Tensor, styles: list[str]) -> list[dict[str, str]]:
        """The subject, color, place and time of each picture, given its style."""
        found = []
        for start in range(0, len(pixels), 64):
            x = as_input(pixels[start : start + 64])
            names, where = self.eye(x)
            places, times = self.air(x, where.sigmoid())
            for i in range(len(x)):
                palette = self.palette[STYLES.index(styles[start + i])]
                found.append({
                    "subject": NAMES[int(names[i].argmax())],
                    "color": dominant(pixels[start + i], where[i].sigmoid().cpu(), palette),
                    "place": PLACES[int(places[i].argmax())],
                    "time": TIMES[int(times[i].argmax())],
                })  # fmt: skip
        return found


def votes(pixels: torch.Tensor, where: torch.Tensor, palette: torch.Tensor) -> torch.Tensor:
    """The number of pixels of the subject that are nearest to each colour of `palette`."""
    mask = functional.interpolate(where[None, None], size=(SIDE, SIDE), mode="bilinear")[0, 0]
    inside = pixels.permute(1, 2, 0)[mask > 0.5].float()
    if not len(inside):
        return torch.zeros(len(COLORS))
    nearest = torch.cdist(inside, palette).argmin(1)
    return torch.bincount(nearest, minlength=len(COLORS)).float()


def dominant(pixels: torch.Tensor, where: torch.Tensor, palette: torch.Tensor) -> str:
    """The colour with most votes."""
    return tuple(COLORS)[int(votes(pixels, where, palette).argmax())]


def measured_palette(data: Drawings) -> torch.Tensor:
    """The median colour of the subjects of each colour in each style, from their true masks."""
    palette = torch.tensor([list(COLORS.values())] * len(STYLES)).float()
    for s, style in enumerate(STYLES):
        for c, color in enumerate(COLORS):
            own = [
                i
                for i, f in enumerate(data.scenes)
                if (f.style, f.color) == (style, color) and f.subject in SUBJECTS
            ]
            near = [_near(data, i, palette[0, c]) for i in own]
            if near:
                palette[s, c] = torch.cat(near).median(0).values
    return palette


def _near(data: Drawings, i: int, color: torch.Tensor) -> torch.Tensor:
    """The pixels inside a subject that are like its colour: not its windows, eyes or outline."""
    mask = functional.interpolate(data.masks[i].float()[None, None], size=(SIDE, SIDE))[0, 0]
    inside = data.pixels[i].permute(1, 2, 0)[mask > 250].float()
    distance = (inside - color).norm(dim=1)
    return inside[distance <= distance.quantile(0.6)] if len(inside) else inside


def train(path: Path, count: int) -> None:
    """Teaches a judge by `count` drawings and leaves it at `path`."""
    torch.manual_seed(5)
    judge, data = Judge(), drawings(count, "judge", soft=True)
    say(f"judge: {count} drawings")
    judge.palette = measured_palette(data)
    nets = nn.ModuleList([judge.eye, judge.air])
    batches = count // 64
    optimizer = torch.optim.AdamW(nets.parameters(), lr=3e-3, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=EPOCHS * batches)
    truth = [data.truth("subject", NAMES), data.truth("place", PLACES), data.truth("time", TIMES)]
    for epoch in range(EPOCHS):
        order = torch.randperm(count)
        total = 0.0
        for part in order[: batches * 64].split(64):
            wait_while_paused()
            loss = _loss(judge, data, truth, part)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            total += loss.item()
        say(f"judge: epoch {epoch + 1} loss {total / batches:.3f}")
    save_atomically(judge.state(), path)


def _loss(
    judge: Judge, data: Drawings, truth: list[torch.Tensor], part: torch.Tensor
) -> torch.Tensor:
    x, masks = as_input(data.pixels[part]), data.masks[part].float().to(device()) / 255
    name, place, time = (t[part].to(device()) for t in truth)
    if torch.rand(()) < 0.5:
        x, masks = x.flip(3), masks.flip(2)
    x = x + 0.06 * torch.rand(()) * torch.randn_like(x)
    names, where = judge.eye(x)
    places, times = judge.air(x, where.sigmoid().detach())
    return (
        functional.cross_entropy(names, name, label_smoothing=0.05)
        + functional.binary_cross_entropy_with_logits(where, masks)
        + functional.cross_entropy(places, place)
        + functional.cross_entropy(times, time)
    )


def accuracy_on_drawings(judge: Judge) -> dict[str, float]:
    """The judge's accuracy on drawings that it was not trained with."""
    data = drawings(HELD_OUT, "held out for the judge", soft=False)
    found = judge.verdicts(data.pixels, [s.style for s in data.scenes])
    pairs = [(v, s) for v, s in zip(found, data.scenes, strict=True) if s.subject in SUBJECTS]
    return {
        key: sum(v[key] == getattr(s, key) for v, s in pairs) / len(pairs)
        for key in ("subject", "color", "place", "time")
    }
