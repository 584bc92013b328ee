"""Puts the subject of a scene where it belongs: outlined, on the ground, in water or in the air."""

import random

from PIL import Image, ImageDraw, ImageFilter

from doodle.facts import RIDER, SIDES, SIZES, Scene
from doodle.pen import Color, Pen, mix, shade
from doodle.subjects import (
    COLORS,
    HAT_PLACES,
    HATS,
    SUBJECTS,
    Home,
    paint_hat,
    paint_rider,
)
from doodle.view import GROUNDS, SAND, View, jitter


def put_subject(image: Image.Image, mask: Image.Image, view: View, scene: Scene) -> None:
    """Draws the subject of `scene` into `image`, and where it is into `mask`."""
    rng = view.rng
    rider = scene.subject == RIDER
    home: Home = "ground" if rider else SUBJECTS[scene.subject].home
    half_width = 1.0 if rider else SUBJECTS[scene.subject].half_width
    scale = _scale(view, scene, half_width, rider=rider)
    x, y = view.on_grid(_across(view, scene, half_width * scale), _down(view, home, scale))
    _stand(view, scene.place, home, (x, y), (half_width * scale, scale))
    layer, body = _cut_out(scene, scale, rng)
    corner = round(x - body.width / 2), round(y - body.height / 2)
    image.paste(layer, corner, body)
    mask.paste(body, corner, body)


def _scale(view: View, scene: Scene, half_width: float, *, rider: bool) -> float:
    """Half the height in pixels; wide subjects are drawn a little lower, so all weigh alike."""
    share = SIZES[scene.size] * (1.25 if rider else 1.0)
    return view.unit * share / 2 * (1.12 if half_width < 0.75 else 1.0)


def _across(view: View, scene: Scene, reach: float) -> float:
    edge = min(reach * 1.04, view.width / 2)
    return min(max(SIDES[scene.side] * view.width, edge), view.width - edge)


def _down(view: View, home: Home, scale: float) -> float:
    """The height of the subject's centre; a larger subject stands nearer."""
    if home == "air":
        return max(view.height * 0.41, scale * 1.15)
    foot = view.height * (0.84 if home == "ground" else 0.8)
    foot += max(0.0, scale - 0.26 * view.unit) * 0.5
    return max(foot - scale, scale * 1.1) if home == "ground" else foot - scale * 0.8


def _stand(
    view: View, place: str, home: Home, at: tuple[float, float], reach: tuple[float, float]
) -> None:
    """Paint the ground below the subject: its shadow, a beach, or a pond."""
    (x, y), (wide, scale) = at, reach
    if home == "air":
        return
    if home == "ground":
        if place == "sea":
            _beach(view, y + scale * 0.9)
            ground = view.lit(SAND)
        else:
            ground = view.lit(GROUNDS[place])
        Pen(view.draw, x, y + scale * 0.97, scale).oval(
            0, 0, wide / scale * 1.05, 0.12, mix(ground, (20, 20, 40), 0.35)
        )
    elif place != "sea":
        pond = Pen(view.draw, x, y + scale * 0.86, scale)
        pond.oval(0, 0, wide / scale * 1.4, 0.36, mix(view.lit(GROUNDS[place]), (30, 40, 60), 0.3))
        pond.oval(0, 0, wide / scale * 1.32, 0.3, view.lit((70, 150, 215)))
    else:
        Pen(view.draw, x, y + scale * 0.85, scale).oval(
            0, 0, wide / scale * 1.15, 0.12, mix(view.lit(GROUNDS["sea"]), (255, 255, 255), 0.4)
        )


def _beach(view: View, y: float) -> None:
    """A strip of sand along the lower edge, with a line of foam."""
    sand = jitter(view.lit(SAND), view.rng, 5)
    p = Pen(view.draw, 0, min(y, view.height * 0.94), view.unit)
    wide, tilt = view.width / view.unit, view.rng.uniform(-0.03, 0.03)
    for lift, color in ((0.02, mix(sand, (255, 255, 255), 0.55)), (0.0, sand)):
        p.poly(
            (0, -lift),
            (wide / 2, -lift - 0.02 + tilt),
            (wide, -lift + tilt),
            (wide, 2),
            (0, 2),
            fill=color,
        )


def _cut_out(scene: Scene, scale: float, rng: random.Random) -> tuple[Image.Image, Image.Image]:
    """The subject with its outline on a layer of its own, and the layer's mask."""
    half = round(scale * 1.6)
    layer = Image.new("RGBA", (2 * half, 2 * half))
    pen = Pen(ImageDraw.Draw(layer), half, half, scale)
    color = jitter(COLORS[scene.color], rng, 7)
    if scene.subject == RIDER:
        paint_rider(pen, color, COLORS["white"])
    else:
        SUBJECTS[scene.subject].paint(pen, color)
    if scene.hat:
        hat = next(value for name, value in HATS.items() if name != scene.color)
        paint_hat(pen.moved(*HAT_PLACES[scene.subject], 0.75), jitter(hat, rng, 6))
    inside = layer.getchannel("A")
    reach = max(1, round(scale * 0.03))
    around = inside.filter(ImageFilter.BoxBlur(reach)).point(lambda v: 255 if v > 30 else 0)
    outlined = Image.new("RGB", layer.size, _outline(color))
    outlined.paste(layer, (0, 0), inside)
    return outlined, around


def _outline(color: Color) -> Color:
    """A darker shade of the subject's colour; black ones get a light rim, to be seen at night."""
    return shade(color, 0.45) if sum(color) > 150 else (118, 122, 138)
