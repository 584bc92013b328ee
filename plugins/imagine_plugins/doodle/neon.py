"""The futuristic city with its neon lights."""

from imagine_plugins.doodle.pen import Color, mix
from imagine_plugins.doodle.view import View, jitter


def paint_neon(view: View) -> None:
    """A futuristic skyline whose towers carry neon lights, over a wet street."""
    r, u, h = view.rng, view.unit, view.horizon
    neon = ((255, 60, 190), (60, 230, 255), (180, 90, 255), (255, 210, 70))
    for layer, base in ((0.0, (70, 62, 112)), (1.0, (36, 34, 66))):
        x = -u * 0.04
        while x < view.width:
            wide = u * r.uniform(0.08, 0.14)
            tall = u * r.uniform(0.2, 0.55) * (1 - 0.35 * layer)
            _tower(view, x, wide, tall, jitter(base, r, 8), r.choice(neon))
            x += wide + u * r.uniform(0.005, 0.04)
    for _ in range(16):
        x, y = view.somewhere(0.05, 1)
        wide = u * r.uniform(0.03, 0.08)
        view.draw.rectangle(
            (x - wide, y, x + wide, y + u * 0.008), fill=mix(r.choice(neon), (40, 36, 60), 0.3)
        )
    view.draw.rectangle((0, h, view.width, h + u * 0.012), fill=(60, 230, 255))


def _tower(  # noqa: PLR0913, PLR0917 - where, how large, which colours
    view: View, x: float, wide: float, tall: float, wall: Color, neon: Color
) -> None:
    r, h, u, draw = view.rng, view.horizon, view.unit, view.draw
    top = h - tall
    if r.random() < 0.5:
        draw.polygon([(x, top), (x + wide, top), (x + wide / 2, top - wide * 0.9)], fill=wall)
        draw.line(
            (x + wide / 2, top - wide * 1.3, x + wide / 2, top),
            fill=neon,
            width=max(2, int(u * 0.006)),
        )
    draw.rectangle((x, top, x + wide, h), fill=wall)
    thick = max(2, int(u * 0.009))
    side = x + (wide * 0.12 if r.random() < 0.5 else wide * 0.8)
    draw.rectangle((side, top + u * 0.02, side + thick, h), fill=neon)
    step = u * 0.042
    for i in range(int(tall / step) - 1):
        if r.random() < 0.6:
            y = top + step * (i + 0.8)
            draw.rectangle(
                (x + wide * 0.32, y, x + wide * r.uniform(0.5, 0.7), y + u * 0.011),
                fill=mix(neon, (255, 240, 200), 0.4),
            )
