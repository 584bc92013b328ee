"""Turns a finished drawing into one of four styles: plain, watercolour, pixel art, sketch."""

import random

import numpy as np
from PIL import Image, ImageChops, ImageFilter

STYLES = ("plain", "watercolor", "pixel art", "sketch")
CELL = 8  # pixels of one square of pixel art


def apply_style(image: Image.Image, style: str, rng: random.Random) -> Image.Image:
    """`image` in `style`, of the same size."""
    if style == "watercolor":
        return _watercolor(image, rng)
    if style == "pixel art":
        return _pixels(image)
    if style == "sketch":
        return _sketch(image, rng)
    return image


def _noise(size: tuple[int, int], cell: float, rng: random.Random) -> Image.Image:
    """Smooth noise from 0 to 255 with blots of `cell` pixels."""
    small = (max(2, round(size[0] / cell)), max(2, round(size[1] / cell)))
    grain = np.frombuffer(rng.randbytes(small[0] * small[1]), dtype="uint8")
    return Image.fromarray(grain.reshape(small[::-1])).resize(size, Image.Resampling.BICUBIC)


def _watercolor(image: Image.Image, rng: random.Random) -> Image.Image:
    """Soft wet edges, pigment that pools, white paper round the border."""
    unit = min(image.size)
    blots = _noise(image.size, unit / 10, rng)
    soft = image.filter(ImageFilter.GaussianBlur(unit * 0.006))
    edges = (
        soft.convert("L")
        .filter(ImageFilter.FIND_EDGES)
        .point(lambda v: min(70, max(0, v - 10) * 2))
    )
    pooled = ImageChops.subtract(soft, edges.convert("RGB"))
    paper = Image.new("RGB", image.size, (250, 247, 238))
    washed = Image.composite(paper, pooled, blots.point(lambda v: 20 + v // 5))
    return Image.composite(washed, paper, _torn_border(image.size, rng))


def _torn_border(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """A mask that is white inside and fades towards a ragged border."""
    unit = min(size)
    margin = int(unit * 0.035)
    mask = Image.new("L", size, 0)
    mask.paste(255, (margin, margin, size[0] - margin, size[1] - margin))
    mask = mask.filter(ImageFilter.BoxBlur(margin * 0.9))
    ragged = ImageChops.add(mask, _noise(size, unit / 24, rng).point(lambda v: v // 2), 1, -64)
    return ragged.point(lambda v: max(0, min(255, (v - 96) * 4)))


def _pixels(image: Image.Image) -> Image.Image:
    small = image.resize(
        (max(1, image.width // CELL), max(1, image.height // CELL)), Image.Resampling.BOX
    )
    few = small.quantize(28, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).convert(
        "RGB"
    )
    return few.resize(image.size, Image.Resampling.NEAREST)


def _sketch(image: Image.Image, rng: random.Random) -> Image.Image:
    """Dark pencil lines with a light wash of coloured pencil, hatched."""
    unit = min(image.size)
    gray = image.convert("L").filter(ImageFilter.GaussianBlur(unit * 0.003))
    wide = gray.filter(ImageFilter.GaussianBlur(unit * 0.007))
    lines = ImageChops.difference(gray, wide).point(lambda v: max(60, 255 - max(0, v - 9) * 8))
    hatch = _hatch(image.size, unit / 34, rng)
    paper = Image.new("RGB", image.size, (252, 250, 245))
    wash = Image.composite(paper, image, hatch)
    return ImageChops.multiply(wash, lines.convert("RGB"))


def _hatch(size: tuple[int, int], pitch: float, rng: random.Random) -> Image.Image:
    """Slanting stripes of more and less paper showing."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]].astype("float32")
    waves = np.sin((x + y * 0.8) * (2 * np.pi / pitch) + rng.uniform(0, 6.28))
    return Image.fromarray((112 + 20 * waves).astype("uint8"))
