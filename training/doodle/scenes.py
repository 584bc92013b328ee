"""Draws storybook scenes from their facts, seeded."""

import random

from PIL import Image, ImageDraw

from doodle.facts import NEON, NOTHING, Picture, Scene
from doodle.neon import paint_neon
from doodle.pen import shade
from doodle.places import DRESSING
from doodle.skies import paint_sky
from doodle.staging import put_subject
from doodle.styles import apply_style
from doodle.view import GROUNDS, MARS_SKIES, SKIES, View, gradient, jitter

CELL = 16  # pixels that the autoencoder makes one latent of, across


def draw(scene: Scene, width: int, height: int, *, seed: int) -> Picture:
    """`scene` on a canvas of `width` x `height`; the same seed draws the same picture."""
    rng = random.Random(seed)
    factor = 3 if max(width, height) <= 320 else 2  # drawn larger, then reduced: smooth edges
    size = width * factor, height * factor
    image, view = _empty_place(scene, size, CELL * factor, rng)
    mask = Image.new("L", size)
    if scene.subject not in (NOTHING, NEON):
        put_subject(image, mask, view, scene)
    image, mask = image.reduce(factor), mask.reduce(factor)
    return Picture(apply_style(image, scene.style, rng), mask)


def _empty_place(
    scene: Scene, size: tuple[int, int], cell: int, rng: random.Random
) -> tuple[Image.Image, View]:
    """The place at its time of day, before the subject comes."""
    horizon = int(size[1] * rng.uniform(0.61, 0.65))
    skies = MARS_SKIES if scene.place == "mars" else SKIES
    top, bottom = (jitter(color, rng) for color in skies[scene.time])
    image = Image.new("RGB", size, bottom)
    image.paste(gradient((size[0], horizon), top, bottom), (0, 0))
    view = View(ImageDraw.Draw(image), *size, horizon, scene.time, rng, min(size), cell)
    paint_sky(view)
    ground = jitter(view.lit(GROUNDS[scene.place]), rng)
    image.paste(gradient((size[0], size[1] - horizon), ground, shade(ground, 0.84)), (0, horizon))
    if scene.subject == NEON:
        paint_neon(view)
    else:
        DRESSING[scene.place](view, ground)
    return image, view
