"""Enlarges pictures of any size by a network, a tile at a time."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from imagine_core.models.hashing import FileHash
from imagine_plugins.loaders.upscaler_layouts import UpscalerFile

SIDE = 224
"""Of a tile in the network's own pixels."""

ENLARGED = 1024
"""Of the tile that it makes, at most. With 64 features that takes some 800 MB in float32."""

USUAL_FEATURES = 64
CONTEXT, BLENDED = 16, 16
"""Pixels at a tile's edges that are thrown away, then those that fade into the tile before, where
the network sees further than that. Real-ESRGAN's x4plus, cut so, is 49 dB from itself uncut."""

ALIGNMENT = 4  # squares of pixels that become channels are 1, 2 or 4 wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How a picture is cut.

    Attributes:
        side: Pixels of a tile along each side.
        context: Those at an inner edge that are thrown away.
        blended: Those behind them that fade into the tile before.
    """

    side: int
    context: int
    blended: int

    @property
    def overlap(self) -> int:
        """Pixels that neighbours share."""
        return 2 * self.context + self.blended


class Span(NamedTuple):
    """A tile along one axis: what is read, what of it is kept, and whether another is before it."""

    start: int
    stop: int
    kept_from: int
    kept_to: int
    is_first: bool


def tiling(plan: UpscalerFile) -> Tiling:
    """The tiles of a network: larger where it takes less memory.

    Tiles that share all that the network sees join exactly; else they fade into one another.
    """
    scale = plan.unshuffle
    context = min(plan.reach, CONTEXT * scale)
    blended = 0 if context == plan.reach else BLENDED * scale
    narrowed = min(1.0, (USUAL_FEATURES / plan.features) ** 0.5)
    if plan.family == "compact":  # whose features stay as small as the picture
        context, blended, side = plan.reach, 0, 2 * SIDE
    else:
        side = min(SIDE * scale, ENLARGED // plan.factor)
    wanted = max(int(side * narrowed), 2 * (2 * context + blended))
    return Tiling(side=_aligned(wanted), context=context, blended=blended)


def spans(length: int, tiles: Tiling) -> list[Span]:
    """The tiles of `length` pixels, about as long as one another."""
    if length <= tiles.side:
        return [Span(0, length, 0, length, is_first=True)]
    shared = tiles.overlap
    count = -(-(length - shared) // (tiles.side - shared))
    step = _aligned(-(-(length - shared) // count))
    found = []
    for start in range(0, length - shared, step):
        stop = min(length, start + step + shared)
        kept_from = start + tiles.context if start else 0
        kept_to = stop - tiles.context if stop < length else length
        found.append(Span(start, stop, kept_from, kept_to, is_first=not start))
    return found


class LoadedUpscaler:
    """A network that enlarges pictures, on its device.

    Args:
        network: The network.
        plan: What its file says.
        file_hash: Its file's hash, once it is known.
        tiles: How pictures are cut; None for what suits the network.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        plan: UpscalerFile,
        file_hash: FileHash | None = None,
        *,
        tiles: Tiling | None = None,
    ) -> None:
        self.factor = plan.factor
        self._multiple = plan.unshuffle
        self._tiles = tiling(plan) if tiles is None else tiles
        self._network: Any = network
        self._hash = file_hash

    @property
    def hash(self) -> str | None:
        """First 10 hex digits of the file's sha256, once they are known."""
        return None if self._hash is None else self._hash.value

    def enlarge(self, image: Image.Image) -> Generator[float, None, Image.Image]:
        """The RGB picture, `factor` times as large; yields after each tile how much is done."""
        result = Image.new("RGB", (image.width * self.factor, image.height * self.factor))
        across, down = spans(image.width, self._tiles), spans(image.height, self._tiles)
        cells = list(itertools.product(down, across))
        for done, (row, column) in enumerate(cells, start=1):
            box = (column.start, row.start, column.stop, row.stop)
            pixels = self._enlarged(np.asarray(image.crop(box).convert("RGB")))
            self._paste(result, pixels, row, column)
            yield done / len(cells)
        return result

    def close(self) -> None:
        """Release the weights and stop computing the hash."""
        if self._hash is not None:
            self._hash.stop()
        self._network = None

    def _paste(
        self, result: Image.Image, pixels: np.ndarray[Any, Any], row: Span, column: Span
    ) -> None:
        top, bottom, left, right = (
            (edge - span.start) * self.factor
            for span in (row, column)
            for edge in (span.kept_from, span.kept_to)
        )
        kept = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
        at = (column.kept_from * self.factor, row.kept_from * self.factor)
        faded = self._tiles.blended and not (row.is_first and column.is_first)
        result.paste(kept, at, self._fading(kept.size, row, column) if faded else None)

    def _fading(self, size: tuple[int, int], row: Span, column: Span) -> Image.Image:
        """How much of a tile shows, 0..255: it fades in at its left and at its upper edge."""
        ramps = []
        for span, length in ((row, size[1]), (column, size[0])):
            count = 0 if span.is_first else min(length, self._tiles.blended * self.factor)
            ramp = np.ones(length, np.float32)
            ramp[:count] = (np.arange(count) + 0.5) / max(1, count)
            ramps.append(ramp)
        return Image.fromarray((np.outer(*ramps) * 255).round().astype(np.uint8))

    @torch.inference_mode()
    def _enlarged(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """[height, width, 3] as bytes, to the larger one."""
        height, width = pixels.shape[:2]
        values = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        missing = -width % self._multiple, -height % self._multiple
        values = torch.nn.functional.pad(values, (0, missing[0], 0, missing[1]), "replicate")
        result = self._finite(values)[0, :, : height * self.factor, : width * self.factor]
        scaled = result.clamp(0, 1).mul(255).round().nan_to_num(0).to(torch.uint8)
        return scaled.permute(1, 2, 0).contiguous().cpu().numpy()

    def _finite(self, values: torch.Tensor) -> torch.Tensor:
        """What the network makes of `values`, float32.

        One that overflows in half precision computes in float32 from then on.
        """
        weight = next(self._network.parameters())
        result = self._network(values.to(weight.device, weight.dtype))
        if weight.dtype == torch.float16 and not result.isfinite().all():
            self._network.float()
            result = self._network(values.to(weight.device))
        whole: torch.Tensor = result.float()
        return whole


def _aligned(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT
