"""Everything doodle can draw as a subject: its shapes, where it belongs and its usual colours."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from doodle import animals, creatures, things
from doodle.pen import Color, Pen, dark

COLORS: dict[str, Color] = {
    "red":    (220, 44, 44),
    "orange": (248, 132, 20),
    "yellow": (252, 214, 48),
    "green":  (62, 166, 68),
    "blue":   (48, 98, 214),
    "purple": (136, 66, 186),
    "pink":   (248, 142, 190),
    "white":  (246, 246, 246),
    "black":  (40, 40, 46),
    "brown":  (128, 80, 44),
    "gray":   (142, 144, 150),
}  # fmt: skip

Home = Literal["ground", "air", "water"]


class Subject(NamedTuple):
    """One thing to draw; `half_width` is in units of half its height."""

    paint: Callable[[Pen, Color], None]
    home: Home
    half_width: float
    usual: tuple[str, ...]
    words: tuple[str, ...]


def row(
    paint: Callable[[Pen, Color], None],
    home: Home,
    half_width: float,
    usual: str,
    words: str,
) -> Subject:
    """A row of the table: lists in it are written as text."""
    return Subject(paint, home, half_width, tuple(usual.split()), tuple(words.split(", ")))


a, b, t = animals, creatures, things
SUBJECTS: dict[str, Subject] = {
    "cat":        row(a.cat,       "ground", 0.9, "orange gray black white", "cat, kitten"),
    "dog":        row(a.dog,       "ground", 1.1, "brown white black", "dog, puppy, hound"),
    "rabbit":     row(a.rabbit,    "ground", 0.7, "white brown gray", "rabbit, bunny, hare"),
    "bear":       row(a.bear,      "ground", 0.8, "brown black white", "bear, bear cub"),
    "horse":      row(a.horse,     "ground", 1.0, "brown white black", "horse, pony, stallion"),
    "elephant":   row(a.elephant,  "ground", 1.1, "gray", "elephant"),
    "bird":       row(b.bird,      "ground", 1.1, "blue red yellow", "bird, songbird"),
    "owl":        row(b.owl,       "ground", 0.8, "brown gray white", "owl"),
    "duck":       row(b.duck,      "water",  1.1, "yellow white", "duck, duckling"),
    "fish":       row(b.fish,      "water",  1.1, "orange blue", "fish, goldfish"),
    "whale":      row(b.whale,     "water",  1.2, "blue gray", "whale"),
    "turtle":     row(b.turtle,    "ground", 1.1, "green", "turtle, tortoise"),
    "butterfly":  row(b.butterfly, "air",    1.0, "orange yellow blue", "butterfly"),
    "dragon":     row(b.dragon,    "ground", 1.1, "green red", "dragon"),
    "house":      row(t.house,     "ground", 0.9, "red white yellow", "house, cottage, cabin, hut"),
    "castle":     row(t.castle,    "ground", 1.0, "gray pink", "castle, fortress, palace"),
    "lighthouse": row(t.lighthouse, "ground", 0.4, "red white", "lighthouse"),
    "tree":       row(t.tree,      "ground", 0.8, "green", "tree, oak tree"),
    "flower":     row(t.flower,    "ground", 0.7, "red pink yellow", "flower, blossom, daisy"),
    "mushroom":   row(t.mushroom,  "ground", 1.0, "red", "mushroom, toadstool"),
    "cactus":     row(t.cactus,    "ground", 0.7, "green", "cactus"),
    "boat":       row(t.boat,      "water",  1.0, "red white blue", "boat, ship, sailboat"),
    "car":        row(t.car,       "ground", 1.1, "red blue yellow", "car, automobile"),
    "train":      row(t.train,     "ground", 1.2, "red black green", "train, locomotive"),
    "rocket":     row(t.rocket,    "air",    0.7, "red white", "rocket, spaceship"),
    "balloon":    row(t.balloon,   "air",    0.7, "red yellow blue", "hot air balloon, balloon"),
    "airplane":   row(t.airplane,  "air",    1.1, "white blue red", "airplane, plane, aeroplane"),
    "robot":      row(t.robot,     "ground", 0.9, "gray blue", "robot, android"),
    "astronaut":  row(t.astronaut, "ground", 0.8, "white", "astronaut, spaceman"),
    "umbrella":   row(t.umbrella,  "ground", 1.0, "red yellow", "umbrella, parasol"),
    "tent":       row(t.tent,      "ground", 1.1, "orange green", "tent, camping tent"),
}  # fmt: skip
# Where a hat sits on those that can wear one.
HAT_PLACES: dict[str, tuple[float, float]] = {
    "cat": (0, -0.82),
    "dog": (0.4, -0.8),
    "rabbit": (0, -0.44),
    "bear": (0, -0.84),
    "horse": (0.6, -0.88),
    "elephant": (0.5, -0.76),
    "bird": (0.4, -0.68),
    "owl": (0, -0.84),
    "duck": (0.48, -0.66),
    "turtle": (0.9, -0.18),
    "dragon": (0.42, -0.92),
    "astronaut": (0, -0.92),
}
HATS: dict[str, Color] = {"purple": (120, 54, 160), "red": (206, 48, 56)}  # the first that differs


def paint_hat(p: Pen, color: Color) -> None:
    """A top hat standing on the point (0, 0)."""
    p.box(-0.26, -0.56, 0.26, 0.02, color, 0.04)
    p.box(-0.26, -0.16, 0.26, -0.02, (250, 206, 70))
    p.box(-0.46, -0.04, 0.46, 0.08, dark(color), 0.05)


def paint_rider(p: Pen, horse: Color, suit: Color) -> None:
    """An astronaut in a `suit` on a horse."""
    animals.horse(p.moved(0, 0.3, 0.72), horse)
    seat = p.moved(-0.1, -0.38, 0.52)
    seat.curve((-0.08, 0.5), (0.32, 0.78), (0.3, 1.2), fill=suit, width=0.3)
    seat.box(0.14, 1.1, 0.54, 1.3, dark(suit), 0.08)
    seat.box(-0.62, -0.15, -0.24, 0.5, dark(suit), 0.1)
    seat.box(-0.4, -0.2, 0.32, 0.66, suit, 0.16)
    seat.curve((0.1, 0.1), (0.45, 0.28), (0.72, 0.16), fill=dark(suit), width=0.2)
    seat.oval(0, -0.55, 0.5, 0.48, suit)
    seat.oval(0.12, -0.54, 0.34, 0.32, (44, 58, 92))
    seat.oval(0.0, -0.64, 0.11, 0.09, (150, 200, 240))
