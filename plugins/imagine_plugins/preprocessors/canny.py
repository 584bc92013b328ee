"""Canny's edge detector, which gives the pixels that OpenCV's does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

LOW, HIGH = 100, 200
"""Gradients above HIGH are edges; those above LOW are where they touch one. As A1111 has them."""

FLAT, STEEP = 0.41421356237309503, 2.414213562373095
"""The tangents of 22.5 and 67.5 degrees, between which a gradient is diagonal."""


def canny(image: Image.Image, *, low: int = LOW, high: int = HIGH) -> Image.Image:
    """White edges on black (Canny 1986): Sobel gradients, thinned, and linked by two thresholds.

    Gradients are measured as |x| + |y|, in the channel where that is largest.

    Args:
        image: The RGB picture. It is not blurred first.
        low: The gradient above which an edge goes on.
        high: The gradient above which it begins.
    """
    import numpy as np
    from PIL import Image

    x, y = _gradients(np.asarray(image.convert("RGB")))
    strength = np.abs(x) + np.abs(y)
    thin = _thinned(x, y, strength) & (strength > low)
    edges = _linked(thin, strong=thin & (strength > high))
    return Image.fromarray(edges.astype(np.uint8) * 255).convert("RGB")


def _gradients(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Sobel's differences across and down, each [height, width]; borders are repeated."""
    import numpy as np

    best_x: Any = None
    best_y: Any = None
    for channel in range(3):
        padded = np.pad(pixels[:, :, channel].astype(np.int16), 1, mode="edge")
        rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
        columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
        x, y = rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]
        if best_x is None:
            best_x, best_y = x, y
            continue
        larger = np.abs(x) + np.abs(y) > np.abs(best_x) + np.abs(best_y)
        np.copyto(best_x, x, where=larger)
        np.copyto(best_y, y, where=larger)
    return best_x, best_y


def _thinned(
    x: NDArray[np.int16], y: NDArray[np.int16], strength: NDArray[np.int16]
) -> NDArray[np.bool_]:
    """Where the gradient is the strongest along its own direction; outside it is 0.

    Of two equal neighbours one is kept: it must be above the one before, and at least the one
    behind; on diagonals it must be above both.
    """
    import numpy as np

    around = np.pad(strength, 1)
    height, width = strength.shape

    def beside(down: int, right: int) -> NDArray[np.int16]:
        return around[1 + down : 1 + down + height, 1 + right : 1 + right + width]

    across, along = np.abs(x).astype(np.float32), np.abs(y).astype(np.float32)
    flat, steep = along < across * FLAT, along > across * STEEP
    falling = (x ^ y) >= 0  # to the lower right, where both have one sign
    level = (strength > beside(0, -1)) & (strength >= beside(0, 1))
    upright = (strength > beside(-1, 0)) & (strength >= beside(1, 0))
    down = (strength > beside(-1, -1)) & (strength > beside(1, 1))
    up = (strength > beside(-1, 1)) & (strength > beside(1, -1))
    return np.where(flat, level, np.where(steep, upright, np.where(falling, down, up)))


def _linked(thin: NDArray[np.bool_], *, strong: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The edges that touch a strong one, corners included."""
    import numpy as np
    from scipy import ndimage

    labels, count = ndimage.label(thin, structure=np.ones((3, 3)))
    kept = np.zeros(count + 1, bool)
    kept[labels[strong]] = True
    kept[0] = False
    return kept[labels]
