"""Runs the network of an autoencoder: in which precision, how much at once, with which edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from imagine_core.models.memory import out_of_memory
from imagine_plugins.loaders import strips
from imagine_plugins.loaders.seamless import acting

LARGEST_MAPS = 4  # that a picture takes in memory at once where it is not computed in strips


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """An AutoencoderKL or AutoencoderTiny on a device, and how it is to compute.

    Attributes:
        model: The network, in the dtype that it computes in.
        free: The device's free memory in bytes; None where it cannot tell.
        tiled: Whether it computes in strips even where a picture fits as a whole.
        seamless: The axes along which pictures wrap around: "x", "y", "xy", or none.
    """

    model: Any
    free: Callable[[], int | None] = lambda: None
    tiled: bool = False
    seamless: str = ""

    @property
    def widths(self) -> list[int]:
        """Channels at each level, that of the largest maps first."""
        config = self.model.config
        widths: list[int] = config.get("encoder_block_out_channels") or config["block_out_channels"]
        return widths

    @property
    def downsampling(self) -> int:
        """Pixels per latent cell along each side: every level but the first halves them."""
        return int(2 ** (len(self.widths) - 1))

    def pixels(self, latent: torch.Tensor) -> torch.Tensor:
        """[1, 3, height, width], -1..1, of a latent in the network's own scale; both float32."""
        size = latent.shape[2] * latent.shape[3] * self.downsampling**2
        return self._finite(_pixels, strips.decode, latent, size)

    def moments(self, pixels: torch.Tensor) -> torch.Tensor:
        """Mean and log variance of the posterior, channels joined; AutoencoderTiny's mean alone."""
        return self._finite(_moments, strips.encode, pixels, pixels.shape[2] * pixels.shape[3])

    def _finite(self, *work: Any) -> torch.Tensor:
        """What `_computed` gives, in float32.

        Some autoencoders overflow in half precision; such a one computes in float32 from then on.
        """
        result = self._computed(*work)
        if self.model.dtype == torch.float16 and not result.isfinite().all():
            self.model.float()
            result = self._computed(*work)
        return result.float()

    def _computed(
        self,
        whole: Callable[[Any, torch.Tensor], torch.Tensor],
        in_strips: Callable[[Any, torch.Tensor, str], torch.Tensor],
        values: torch.Tensor,
        size: int,
    ) -> torch.Tensor:
        """A picture of `size` pixels as a whole where that fits, else in strips."""
        values = values.to(self.model.device, self.model.dtype)
        if (not self.tiled and self._fits(size)) or not strips.knows(self.model):
            try:
                with acting(self.model, [self.seamless]):
                    return whole(self.model, values)
            except (RuntimeError, MemoryError) as error:
                if not (out_of_memory(error) and strips.knows(self.model)):
                    raise
        return in_strips(self.model, values, self.seamless)

    def _fits(self, size: int) -> bool:
        free = self.free()
        values = size * max(self.widths[:2]) * LARGEST_MAPS
        return free is None or values * self.model.dtype.itemsize <= free


def _pixels(model: Any, latent: torch.Tensor) -> torch.Tensor:
    pixels: torch.Tensor = model.decode(latent, return_dict=False)[0]
    return pixels


def _moments(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    output = model.encode(pixels)
    moments: torch.Tensor = (
        output.latent_dist.parameters if hasattr(output, "latent_dist") else output.latents
    )
    return moments
