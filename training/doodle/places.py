"""Paints the things that belong to each of the eight places."""

from collections.abc import Callable

from doodle.pen import PAPER, Color, mix
from doodle.view import View, jitter


def _hill(view: View, x: float, half: float, rise: float, color: Color) -> None:
    """A rounded hill standing on the horizon."""
    h = view.horizon
    box = (x - half, h - rise, x + half, h + rise)
    view.draw.pieslice(box, 180, 360, fill=color)


def _meadow(view: View, ground: Color) -> None:
    r, u = view.rng, view.unit
    for _ in range(2 + view.width // view.height):
        half = u * r.uniform(0.35, 0.6)
        tone = mix(ground, view.lit((70, 150, 70)), r.uniform(0.2, 0.5))
        _hill(view, r.uniform(0, view.width), half, u * r.uniform(0.05, 0.1), tone)
    for _ in range(12):
        p = view.pen(*view.somewhere(0.1, 1), u * 0.02)
        for s in (-0.5, 0, 0.5):
            p.poly((s - 0.2, 0), (s + 0.2, 0), (s * 1.8, -1), fill=mix(ground, (30, 90, 40), 0.4))
    for _ in range(9):
        p = view.pen(*view.somewhere(0.15, 1), u * 0.011)
        petal = view.lit(r.choice(((255, 255, 255), (255, 226, 90), (250, 150, 190))))
        for dx, dy in ((-0.7, 0), (0.7, 0), (0, -0.7), (0, 0.7)):
            p.oval(dx, dy, 0.7, 0.7, petal)


def _sea(view: View, ground: Color) -> None:
    r, u = view.rng, view.unit
    foam = mix(ground, PAPER, 0.45 if view.time != "night" else 0.25)
    for _ in range(16):
        x, y = view.somewhere(0.06, 1)
        wide = u * r.uniform(0.03, 0.06)
        path = (
            (x - wide, y),
            (x - wide / 2, y - u * 0.008),
            (x, y),
            (x + wide / 2, y - u * 0.008),
            (x + wide, y),
        )
        view.draw.line(path, fill=foam, width=max(2, int(u * 0.006)), joint="curve")


def _desert(view: View, ground: Color) -> None:
    r, u = view.rng, view.unit
    for share in (0.16, 0.08):
        half = u * r.uniform(0.4, 0.7)
        _hill(
            view,
            r.uniform(0, view.width),
            half,
            u * r.uniform(0.05, 0.11),
            mix(ground, view.lit((190, 130, 70)), share * 2),
        )
    for _ in range(r.randint(1, 3)):
        p = view.pen(r.uniform(0, view.width), view.horizon + u * 0.01, u * 0.05)
        green = view.lit((104, 150, 84))
        p.box(-0.2, -1.4, 0.2, 0.5, green, 0.2)
        p.curve((0, -0.3), (0.55, -0.35), (0.55, -0.9), fill=green, width=0.28)
    for _ in range(5):
        x, y = view.somewhere(0.2, 1)
        p = view.pen(x, y, u * r.uniform(0.05, 0.1))
        p.curve(
            (-1, 0),
            (-0.3, -0.12),
            (0.4, 0),
            (1, -0.1),
            fill=mix(ground, (160, 110, 60), 0.25),
            width=0.07,
        )


def _mars(view: View, ground: Color) -> None:
    r, u = view.rng, view.unit
    for _ in range(2):
        _hill(
            view,
            r.uniform(0, view.width),
            u * r.uniform(0.2, 0.5),
            u * r.uniform(0.05, 0.12),
            mix(ground, (90, 30, 30), 0.3),
        )
    for _ in range(6):
        x, y = view.somewhere(0.12, 1)
        p = view.pen(x, y, u * r.uniform(0.03, 0.065))
        p.oval(0, 0, 1, 0.4, mix(ground, (255, 190, 140), 0.2))
        p.oval(0, 0.05, 0.8, 0.3, mix(ground, (80, 20, 20), 0.4))
    for _ in range(5):
        p = view.pen(*view.somewhere(0.05, 1), u * r.uniform(0.012, 0.022))
        p.blob((-1, 0.4), (-0.5, -0.6), (0.4, -0.7), (1, 0.4), fill=mix(ground, (70, 25, 25), 0.45))


def _pine(  # noqa: PLR0913, PLR0917 - where, how large, which colours
    view: View, x: float, y: float, scale: float, color: Color, cap: Color | None
) -> None:
    p = view.pen(x, y, scale)
    p.box(-0.1, -0.3, 0.1, 0, view.lit((96, 66, 44)))
    for low, high, wide in ((-0.2, -1.0, 0.6), (-0.7, -1.5, 0.48), (-1.15, -1.95, 0.34)):
        p.poly((-wide, low), (wide, low), (0, high), fill=color)
        if cap:
            p.poly(
                (-wide * 0.4, (low + 2 * high) / 3 + 0.05),
                (wide * 0.4, (low + 2 * high) / 3 + 0.05),
                (0, high),
                fill=cap,
            )


def _snow(view: View, ground: Color) -> None:
    r, u = view.rng, view.unit
    for _ in range(2 + view.width // view.height):
        _hill(
            view,
            r.uniform(0, view.width),
            u * r.uniform(0.3, 0.6),
            u * r.uniform(0.04, 0.1),
            mix(ground, view.lit((190, 210, 235)), r.uniform(0.2, 0.6)),
        )
    for _ in range(r.randint(2, 5)):
        x, y = view.somewhere(0.0, 0.12)
        _pine(view, x, y, u * r.uniform(0.05, 0.075), view.lit((70, 120, 100)), ground)
    for _ in range(int(26 * view.width * view.height / u**2)):
        x, y = r.uniform(0, view.width), r.uniform(0, view.height)
        view.pen(x, y, u * r.choice((0.005, 0.007, 0.009))).oval(0, 0, 1, 1, (255, 255, 255))


def _city(view: View, ground: Color) -> None:
    r, u = view.rng, view.unit
    x = -u * 0.03
    while x < view.width:
        wide, tall = u * r.uniform(0.09, 0.15), u * r.uniform(0.14, 0.36)
        _block(view, x, wide, tall)
        x += wide + u * r.uniform(0, 0.015)
    y = view.horizon + (view.height - view.horizon) * 0.5
    dash = u * 0.1
    for k in range(-1, int(view.width / dash) + 2, 2):
        view.draw.rectangle(
            (k * dash, y - u * 0.006, (k + 1) * dash, y + u * 0.006), fill=view.lit((236, 222, 150))
        )
    view.draw.rectangle(
        (0, view.horizon, view.width, view.horizon + u * 0.02), fill=mix(ground, PAPER, 0.3)
    )


def _block(view: View, x: float, wide: float, tall: float) -> None:
    """One block of flats with lit windows."""
    r, h, u = view.rng, view.horizon, view.unit
    wall = view.lit(jitter(r.choice(((112, 118, 146), (140, 122, 138), (96, 112, 134))), r, 12))
    view.draw.rectangle((x, h - tall, x + wide, h), fill=wall)
    lamp = (255, 224, 120) if view.time != "day" else (206, 228, 240)
    step = u * 0.05
    columns = max(1, int(wide / step))
    for i in range(1, int(tall / step)):
        for k in range(columns):
            wx, wy = x + wide * (k + 0.5) / columns, h - tall + step * (i - 0.2)
            view.draw.rectangle(
                (wx - step * 0.22, wy - step * 0.28, wx + step * 0.22, wy + step * 0.28), fill=lamp
            )


def _mountains(view: View, ground: Color) -> None:
    r, u = view.rng, view.unit
    count = 3 + 2 * view.width // view.height
    order = list(range(count))
    r.shuffle(order)
    for k in order:
        x = view.width * (k + 0.5 + r.uniform(-0.25, 0.25)) / count
        _peak(view, x, u * r.uniform(0.22, 0.38), u * r.uniform(0.2, 0.3))
    for _ in range(7):
        p = view.pen(*view.somewhere(0.1, 1), u * r.uniform(0.012, 0.028))
        p.blob((-1, 0.4), (-0.5, -0.6), (0.4, -0.7), (1, 0.4), fill=mix(ground, (90, 92, 96), 0.6))


def _peak(view: View, x: float, rise: float, half: float) -> None:
    h, r = view.horizon, view.rng
    rock = view.lit(jitter((122, 126, 152), r, 10))
    snow = view.lit((244, 247, 252))
    view.draw.polygon([(x - half, h), (x + half, h), (x, h - rise)], fill=rock)
    view.draw.polygon(
        [(x + half * 0.1, h), (x + half, h), (x, h - rise)], fill=mix(rock, (40, 40, 70), 0.25)
    )
    s = 0.34
    zigzag = [
        (x - half * s, h - rise * (1 - s)),
        (x - half * s * 0.4, h - rise * (1 - s * 0.8)),
        (x, h - rise * (1 - s * 1.15)),
        (x + half * s * 0.4, h - rise * (1 - s * 0.8)),
        (x + half * s, h - rise * (1 - s)),
        (x, h - rise),
    ]
    view.draw.polygon(zigzag, fill=snow)


def _forest(view: View, ground: Color) -> None:
    r, u = view.rng, view.unit
    for near, color in ((0.0, (64, 116, 92)), (1.0, (38, 88, 58))):
        x = -u * 0.02
        while x < view.width + u * 0.02:
            tone = view.lit(jitter(color, r, 8))
            _pine(
                view,
                x,
                view.horizon + u * (0.005 + 0.02 * near),
                u * r.uniform(0.11, 0.17),
                tone,
                None,
            )
            x += u * r.uniform(0.08, 0.13)
    for _ in range(10):
        p = view.pen(*view.somewhere(0.15, 1), u * 0.024)
        for s in (-0.7, -0.3, 0.3, 0.7):
            p.poly(
                (s * 0.3 - 0.14, 0),
                (s * 0.3 + 0.14, 0),
                (s * 1.6, -0.8 + abs(s) * 0.4),
                fill=mix(ground, (150, 210, 100), 0.3),
            )


DRESSING: dict[str, Callable[[View, Color], None]] = {
    "meadow": _meadow, "sea": _sea, "desert": _desert, "mars": _mars,
    "snow": _snow, "city": _city, "mountains": _mountains, "forest": _forest,
}  # fmt: skip
