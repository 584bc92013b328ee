"""The facts of a scene, and how they are drawn at random."""

import random
from dataclasses import dataclass

from PIL import Image

from doodle.styles import STYLES
from doodle.subjects import COLORS, HAT_PLACES, SUBJECTS
from doodle.view import PLACES, TIMES

SIZES: dict[str, float] = {  # height of the subject in shorter sides of the canvas
    "tiny":   3 / 16,
    "small":  5 / 16,
    "medium": 9 / 16,
    "big":    11 / 16,
    "huge":   13 / 16,
}  # fmt: skip
SIDES: dict[str, float] = {  # centre of the subject in widths of the canvas
    "left":   0.27,
    "centre": 0.50,
    "right":  0.73,
    "":       0.50,
}  # fmt: skip
NOTHING, NEON, RIDER = "nothing", "neon city", "rider"
OFTEN = 2.5  # times as often comes a scene for each thing that makes it hard to learn
HARD = {
    "astronaut", "bear", "bird", "cat", "dog", "duck", "elephant", "horse", "owl", "tree", "turtle",
    "umbrella", NEON, RIDER,
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """The facts of one picture; `subject` may also be nothing, a neon city or a rider."""

    subject: str
    color: str
    place: str
    time: str
    style: str = "plain"
    size: str = "medium"
    side: str = ""
    hat: bool = False


@dataclass(frozen=True)
class Picture:
    """A drawn scene; `mask` is white where the subject is."""

    image: Image.Image
    mask: Image.Image


def random_scene(rng: random.Random) -> Scene:
    """Facts drawn at random, every subject with every colour in every place."""
    kind = rng.random()
    place, time = rng.choice(PLACES), rng.choice(TIMES)
    style = rng.choices(STYLES, (55, 15, 15, 15))[0]
    if kind < 0.06:
        return Scene(NOTHING, "", place, time, style)
    if kind < 0.10:
        return Scene(NEON, "", "city", time, style)
    if kind < 0.14:
        color = rng.choice(list(COLORS)) if rng.random() < 0.6 else "brown"
        place = "mars" if rng.random() < 0.3 else place
        return Scene(RIDER, color, place, time, style, side=_side(rng, 0.12))
    name = rng.choice(list(SUBJECTS))
    subject = SUBJECTS[name]
    color = rng.choice(list(COLORS)) if rng.random() < 0.75 else rng.choice(subject.usual)
    size = rng.choices(tuple(SIZES), (6, 8, 68, 10, 8))[0]
    hat = name in HAT_PLACES and size != "tiny" and rng.random() < 0.16
    return Scene(name, color, place, time, style, size, _side(rng, 0.27), hat)


def training_scene(rng: random.Random) -> Scene:
    """A random scene; hard subjects, hats, and other sizes and sides come OFTEN times as often."""
    while True:
        scene = random_scene(rng)
        usual = scene.size == "medium" and scene.side in ("", "centre")
        rare = not usual or scene.subject in (NEON, RIDER)
        extreme = scene.size in ("tiny", "huge")
        if rng.random() < OFTEN ** ((scene.subject in HARD) + scene.hat + rare + extreme - 4):
            return scene


def _side(rng: random.Random, share: float) -> str:
    return rng.choice(("left", "centre", "right")) if rng.random() < share else ""
