"""Paints what is in the sky at each time of day.

Sun and moon have one place each: of places to choose from, the model takes more than one.
"""

from doodle.pen import PAPER, Color, Pen
from doodle.view import View


def paint_sky(view: View) -> None:
    """Sun and clouds, the setting sun, or moon and stars."""
    {"day": _day, "night": _night, "sunset": _sunset}[view.time](view)


def _day(view: View) -> None:
    r = view.rng
    p = _light(view, 0.2, 0.15, 0.07)
    p.oval(0, 0, 1.35, 1.35, (255, 240, 170))
    p.oval(0, 0, 1, 1, (255, 216, 64))
    for _ in range(r.randint(1, 3) + view.width // view.height):
        _cloud(view, PAPER)


def _light(view: View, x: float, y: float, radius: float) -> Pen:
    """A pen for the sun or the moon, in widths, heights and shorter sides of the canvas."""
    return Pen(view.draw, *view.on_grid(x * view.width, y * view.height), radius * view.unit)


def _cloud(view: View, color: Color) -> None:
    r = view.rng
    p = view.pen(
        r.uniform(0, view.width),
        r.uniform(0.07, 0.34) * view.height,
        view.unit * r.uniform(0.05, 0.075),
    )
    for dx, dy, size in (
        (-1.1, 0.1, 0.62),
        (-0.3, -0.25, 0.85),
        (0.55, -0.05, 0.75),
        (1.2, 0.2, 0.5),
    ):
        p.oval(dx, dy, size, size, color)
    p.box(-1.3, 0.2, 1.35, 0.72, color, 0.25)


def _night(view: View) -> None:
    r, u = view.rng, view.unit
    for _ in range(int(34 * view.width * view.height / u**2)):
        size = r.choice((0.003, 0.004, 0.006))
        x, y = r.uniform(0, view.width), r.uniform(0, view.horizon * 0.92)
        view.pen(x, y, u * size).oval(0, 0, 1, 1, (255, 250, 214))
    p = _light(view, 0.8, 0.15, 0.07)
    p.oval(0, 0, 1, 1, (250, 246, 214))
    for dx, dy, size in ((-0.3, -0.25, 0.2), (0.35, 0.1, 0.25), (-0.1, 0.5, 0.14)):
        p.oval(dx, dy, size, size, (228, 222, 188))


def _sunset(view: View) -> None:
    r, u = view.rng, view.unit
    for _ in range(r.randint(2, 4)):
        x, y = r.uniform(0, view.width), view.horizon * r.uniform(0.15, 0.62)
        p = view.pen(x, y, u * r.uniform(0.1, 0.2))
        p.box(-1, -0.06, 1, 0.06, (236, 132, 122), 0.06)
        p.box(-0.4, -0.15, 1.3, -0.05, (236, 132, 122), 0.05)
    p = _light(view, 0.8, 0.64, 0.13)
    p.oval(0, -0.35, 1.25, 1.25, (255, 190, 104))
    p.oval(0, -0.35, 1, 1, (255, 226, 120))
