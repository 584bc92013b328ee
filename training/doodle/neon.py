"""The futuristic city with its neon lights."""

from doodle.pen import Color, mix
from doodle.view import View, jitter

NEON: tuple[Color, ...] = ((255, 60, 190), (60, 230, 255), (255, 210, 70))
FAR, NEAR = (86, 74, 132), (34, 32, 64)
TALL = (0.22, 0.31, 0.4)  # heights of towers; the tallest end in a spire


def paint_neon(view: View) -> None:
    """A futuristic skyline whose towers carry neon lights, over a wet street."""
    r, u, h = view.rng, view.unit, view.horizon
    x = -u * 0.04
    while x < view.width:
        wide = u * r.uniform(0.1, 0.16)
        view.draw.rectangle((x, h - u * r.uniform(0.3, 0.56), x + wide, h), fill=jitter(FAR, r, 6))
        x += wide * 1.3
    wide = view.cell * max(2, round(u * 0.16 / view.cell))
    for k in range(-(-view.width // (wide + view.cell))):
        _tower(view, k * (wide + view.cell), wide, u * r.choice(TALL), NEON[k % len(NEON)])
    _street(view)


def _street(view: View) -> None:
    """The lights once more, as the wet street shows them."""
    r, u, h = view.rng, view.unit, view.horizon
    for _ in range(12):
        x, y = view.somewhere(0.12, 1)
        wide = u * r.uniform(0.05, 0.11)
        view.draw.rectangle(
            (x - wide, y, x + wide, y + u * 0.012), fill=mix(r.choice(NEON), (40, 36, 60), 0.45)
        )
    view.draw.rectangle((0, h, view.width, h + u * 0.016), fill=NEON[1])


def _tower(view: View, x: float, wide: float, tall: float, neon: Color) -> None:
    """A dark tower outlined in `neon`, with rows of windows."""
    h, u, draw = view.horizon, view.unit, view.draw
    top, thick = h - tall, max(2, round(u * 0.012))
    if tall >= u * TALL[-1]:
        middle = x + wide / 2
        draw.polygon([(x, top), (x + wide, top), (middle, top - wide * 0.7)], fill=NEAR)
        draw.line((middle, top - wide * 1.2, middle, top - wide * 0.5), fill=neon, width=thick)
    draw.rectangle((x, top, x + wide, h), fill=NEAR)
    draw.rectangle((x, top, x + wide, top + thick), fill=neon)
    draw.rectangle((x, top, x + thick, h), fill=neon)
    step = u / 20
    for i in range(1, int(tall / step)):
        y = top + step * i
        window = x + wide * 0.34, y, x + wide * 0.78, y + u * 0.016
        draw.rectangle(window, fill=mix(neon, (255, 240, 200), 0.5))
