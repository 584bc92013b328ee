"""Loaded ControlNets and T2I-Adapters, which models of their family share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from imagine_core.pictures.images import resized
from imagine_plugins.loaders.autoencoder import to_tensor
from imagine_plugins.loaders.seamless import acting

if TYPE_CHECKING:
    from PIL import Image

GREY = 1  # channel of the hints of some adapters


class LoadedControl:
    """A ControlNet or a T2I-Adapter.

    What reads the hint is taken out of a ControlNet: it depends on nothing else, so models keep
    what it makes from step to step.

    Args:
        network: A diffusers ControlNetModel or T2IAdapter on the device.
        short_hash: What A1111 writes behind its name.
    """

    def __init__(self, network: Any, short_hash: str | None = None) -> None:
        self.network = network
        self.hash = short_hash
        self._reader: Any = network
        self._is_bgr = False
        if not self.is_adapter:
            self._reader = network.controlnet_cond_embedding
            network.controlnet_cond_embedding = nn.Identity()
            self._is_bgr = network.config.controlnet_conditioning_channel_order == "bgr"
            network.register_to_config(controlnet_conditioning_channel_order="rgb")

    @property
    def is_adapter(self) -> bool:
        """Whether it is a T2I-Adapter, which reads nothing but the hint."""
        return type(self.network).__name__ == "T2IAdapter"

    @property
    def is_conditional(self) -> bool:
        """Whether it acts in the row of the prompt alone, as those that pool their output do."""
        return bool(self.network.config.get("global_pool_conditions"))

    @property
    def _cell(self) -> int:
        """Pixels of the hint for each value of what it makes of it, along each side."""
        if self.is_adapter:
            return int(self.network.config.downscale_factor)
        return 1 << (len(self.network.config.conditioning_embedding_out_channels) - 1)

    def read(
        self, hint: Image.Image, cells: tuple[int, int], *, downsampling: int, seamless: str
    ) -> tuple[torch.Tensor, ...]:
        """What it makes of a hint for latents of (width, height) cells, in its dtype.

        One tensor of a ControlNet, [1, channels, height, width], and one for each level of the
        model for an adapter.

        Args:
            hint: RGB.
            cells: The latent's size.
            downsampling: Pixels per cell.
            seamless: The axes along which the picture wraps around.
        """
        fitted = fitted_hint(hint, cells, downsampling)
        if not self.is_adapter and self._cell != downsampling:
            fitted = resized(fitted, (cells[0] * self._cell, cells[1] * self._cell))
        pixels = (to_tensor(fitted) + 1) / 2
        pixels = pixels.flip(1) if self._is_bgr else pixels
        if self.is_adapter:
            if self.network.config.in_channels == GREY:
                pixels = pixels.mean(1, keepdim=True)
            height, width = pixels.shape[-2:]
            below, right = -height % self._cell, -width % self._cell
            pixels = functional.pad(pixels, (0, right, 0, below), mode="replicate")
        with acting(self._reader, [seamless]):
            made = self._reader(pixels.to(self.network.device, self.network.dtype))
        return tuple(made) if self.is_adapter else (made,)

    def close(self) -> None:
        """Release the weights."""
        self.network = self._reader = None


def fitted_hint(hint: Image.Image, cells: tuple[int, int], downsampling: int) -> Image.Image:
    """The hint at a size of whole cells; its edge fills a part of one that is missing."""
    import numpy as np
    from PIL import Image

    width, height = (count * downsampling for count in cells)
    right, below = width - hint.width, height - hint.height
    if not (0 <= right < downsampling and 0 <= below < downsampling):
        return resized(hint, (width, height))
    if right or below:
        padded = np.pad(np.asarray(hint), ((0, below), (0, right), (0, 0)), mode="edge")
        return Image.fromarray(padded)
    return hint
