"""A pen that draws shapes in a subject's own coordinates: x and y from -1 to 1, y downwards."""

from collections.abc import Sequence

import numpy as np
from PIL import ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]

INK: Color = (38, 34, 46)
PAPER: Color = (250, 248, 242)


def shade(color: Color, factor: float) -> Color:
    """`color` made darker (factor < 1) or lighter (factor > 1, towards white)."""
    if factor <= 1:
        return tuple(int(v * factor) for v in color)  # type: ignore[return-value]
    return mix(color, (255, 255, 255), factor - 1)


def mix(a: Color, b: Color, share: float) -> Color:
    """The colour `share` of the way from `a` to `b`."""
    return tuple(int(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def dark(color: Color) -> Color:
    """A shade of `color` for parts that lie behind; black gets lighter, or it would vanish."""
    return shade(color, 0.8) if sum(color) > 150 else shade(color, 1.08)


def light(color: Color) -> Color:
    """A tint of `color` for bellies and highlights."""
    return shade(color, 1.35) if sum(color) > 150 else shade(color, 1.13)


def smooth(points: Sequence[Point], *, closed: bool, pieces: int = 10) -> list[Point]:
    """A Catmull-Rom curve through `points`."""
    p = np.asarray(points, dtype=float)
    ends = np.vstack([p[-1:], p, p[:2]]) if closed else np.vstack([p[:1], p, p[-1:]])
    t = np.linspace(0, 1, pieces, endpoint=False)[:, None]
    a, b, c, d = (ends[i : len(ends) - 3 + i, None] for i in range(4))
    t = t[None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2)
    curve = curve + 0.5 * (3 * b - a - 3 * c + d) * t**3
    flat = [(float(x), float(y)) for x, y in curve.reshape(-1, 2)]
    return flat if closed else [*flat, (float(p[-1, 0]), float(p[-1, 1]))]


class Pen:
    """Draws with `draw` round the point (`x`, `y`), one unit being `scale` pixels."""

    def __init__(
        self, draw: ImageDraw.ImageDraw, x: float, y: float, scale: float, *, mirror: bool = False
    ) -> None:
        self.draw, self.x, self.y, self.scale = draw, x, y, scale
        self.sign = -1 if mirror else 1

    def moved(self, x: float, y: float, scale: float = 1.0) -> "Pen":
        """A pen for a part whose own centre lies at (x, y) of this one."""
        at = self.at((x, y))
        return Pen(self.draw, *at, self.scale * scale, mirror=self.sign < 0)

    def at(self, point: Point) -> Point:
        """The pixel of a point in the pen's coordinates."""
        return self.x + self.sign * point[0] * self.scale, self.y + point[1] * self.scale

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Color) -> None:
        """An ellipse round (x, y)."""
        cx, cy = self.at((x, y))
        rx, ry = rx * self.scale, ry * self.scale
        self.draw.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=fill)

    def box(  # noqa: PLR0913, PLR0917 - two corners, a fill and a radius are what a box is
        self, x0: float, y0: float, x1: float, y1: float, fill: Color, radius: float = 0.0
    ) -> None:
        """A rectangle, its corners rounded by `radius`."""
        (ax, ay), (bx, by) = self.at((x0, y0)), self.at((x1, y1))
        corners = (min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))
        if radius:
            self.draw.rounded_rectangle(corners, radius * self.scale, fill=fill)
        else:
            self.draw.rectangle(corners, fill=fill)

    def poly(self, *points: Point, fill: Color) -> None:
        """A polygon."""
        self.draw.polygon([self.at(p) for p in points], fill=fill)

    def blob(self, *points: Point, fill: Color) -> None:
        """A smooth closed shape through `points`."""
        self.draw.polygon([self.at(p) for p in smooth(points, closed=True)], fill=fill)

    def curve(self, *points: Point, fill: Color, width: float) -> None:
        """A smooth line with round ends."""
        path = [self.at(p) for p in smooth(points, closed=False)]
        pixels = max(1, round(width * self.scale))
        self.draw.line(path, fill=fill, width=pixels, joint="curve")
        for x, y in (path[0], path[-1]):
            r = pixels / 2
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    def eye(self, x: float, y: float, r: float, *, iris: Color = PAPER) -> None:
        """An eye with a glint."""
        self.oval(x, y, r, r * 1.15, iris)
        self.oval(x, y + r * 0.1, r * 0.58, r * 0.72, INK)
        self.oval(x - r * 0.2, y - r * 0.25, r * 0.22, r * 0.22, (255, 255, 255))
