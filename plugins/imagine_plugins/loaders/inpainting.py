"""The inputs of inpainting models: a mask, and the latent of the picture without what it covers."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from imagine_plugins.loaders.autoencoder import to_tensor

if TYPE_CHECKING:
    from PIL import Image

    from imagine_plugins.loaders.autoencoder import Autoencoder

KEPT = 4  # picture sizes whose inputs are kept


class Inpainting:
    """Makes the inputs of a UNet that reads a mask and a masked latent after its own latent.

    They are [1, 1 + latent channels, height, width], float32, in the order of runwayml's models:
    the mask, which is 1 where the model paints, and the latent of the picture, grey where it
    paints.

    Args:
        autoencoder: The model's own, on whose latents the UNet was trained; a request that decodes
            with another shares forwards with those that do not.
    """

    def __init__(self, autoencoder: Autoencoder) -> None:
        self._autoencoder = autoencoder
        self._whole: OrderedDict[tuple[int, int], torch.Tensor] = OrderedDict()

    def whole(self, width: int, height: int) -> torch.Tensor:
        """The inputs of a picture of so many pixels that is painted as a whole."""
        cell = self._autoencoder.downsampling
        size = (-(-height // cell), -(-width // cell))
        if size not in self._whole:
            latent = self._autoencoder.grey(*size)
            self._whole[size] = torch.cat([torch.ones_like(latent[:, :1]), latent], dim=1)
            if len(self._whole) > KEPT:
                self._whole.popitem(last=False)
        return self._whole[size]

    def part(
        self, image: Image.Image, mask: Image.Image, generator: torch.Generator
    ) -> torch.Tensor:
        """The inputs of a picture that is painted where `mask`, of its size, is 128 or more."""
        paints = (to_tensor(mask)[:, :1] > 0).float()
        pixels, paints = self._padded(to_tensor(image)), self._padded(paints)
        latent = self._autoencoder.encode_pixels(pixels * (1 - paints), generator)
        cells = functional.interpolate(paints, size=latent.shape[-2:])  # each its first pixel's
        return torch.cat([cells.to(latent.device), latent], dim=1)

    def _padded(self, pixels: torch.Tensor) -> torch.Tensor:
        """Whole cells: the last pixels go on to the right and below, as in `init_image`."""
        cell = self._autoencoder.downsampling
        height, width = pixels.shape[-2:]
        below, right = -height % cell, -width % cell
        return functional.pad(pixels, (0, right, 0, below), mode="replicate")
