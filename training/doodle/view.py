"""The canvas with its horizon, and the colours of skies and grounds by place and time."""

import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from doodle.pen import Color, Pen

SKIES: dict[str, tuple[Color, Color]] = {
    "day":    ((88, 174, 240), (206, 236, 252)),
    "night":  ((14, 18, 58),   (54, 62, 126)),
    "sunset": ((104, 62, 148), (255, 166, 88)),
}  # fmt: skip
MARS_SKIES: dict[str, tuple[Color, Color]] = {
    "day":    ((226, 176, 138), (250, 222, 188)),
    "night":  ((26, 12, 36),    (84, 42, 58)),
    "sunset": ((112, 50, 96),   (252, 140, 76)),
}  # fmt: skip
GROUNDS: dict[str, Color] = {
    "meadow":    (130, 200, 76),
    "sea":       (38, 124, 190),
    "desert":    (238, 202, 128),
    "mars":      (200, 86, 48),
    "snow":      (238, 243, 250),
    "city":      (92, 92, 104),
    "mountains": (138, 146, 120),
    "forest":    (54, 108, 66),
}  # fmt: skip
LIGHTS: dict[str, tuple[float, float, float]] = {
    "day":    (1.0, 1.0, 1.0),
    "night":  (0.42, 0.46, 0.68),
    "sunset": (0.96, 0.78, 0.76),
}  # fmt: skip
PLACES = tuple(GROUNDS)
TIMES = tuple(SKIES)
SAND: Color = (240, 214, 150)


@dataclass
class View:
    """A canvas with a horizon, and the light of a time of day."""

    draw: ImageDraw.ImageDraw
    width: int
    height: int
    horizon: int
    time: str
    rng: random.Random
    unit: float  # the shorter side in pixels
    cell: int  # the pixels that become one latent, across

    def lit(self, color: Color) -> Color:
        """`color` as it looks at this time of day."""
        r, g, b = LIGHTS[self.time]
        return int(color[0] * r), int(color[1] * g), int(color[2] * b)

    def pen(self, x: float, y: float, scale: float) -> Pen:
        """A pen at a pixel, mirrored or not by chance."""
        return Pen(self.draw, x, y, scale, mirror=self.rng.random() < 0.5)

    def on_grid(self, x: float, y: float) -> tuple[float, float]:
        """The corner of a cell nearest to a point.

        A subject that starts at any pixel of a cell has hundreds of latents to learn, not one.
        """
        return round(x / self.cell) * self.cell, round(y / self.cell) * self.cell

    def somewhere(self, low: float, high: float) -> tuple[float, float]:
        """A point of the ground; 0 is the horizon and 1 the lower edge."""
        depth = self.horizon + self.rng.uniform(low, high) * (self.height - self.horizon)
        return self.rng.uniform(0, self.width), depth


def jitter(color: Color, rng: random.Random, by: int = 9) -> Color:
    """`color`, a little different."""
    r, g, b = (max(0, min(255, v + rng.randint(-by, by))) for v in color)
    return r, g, b


def gradient(size: tuple[int, int], top: Color, bottom: Color) -> Image.Image:
    """A picture that goes from `top` to `bottom`."""
    t = np.linspace(0, 1, max(size[1], 1))[:, None, None]
    column = (np.array(top) * (1 - t) + np.array(bottom) * t).astype("uint8")
    return Image.fromarray(column).resize(size, Image.Resampling.NEAREST)
