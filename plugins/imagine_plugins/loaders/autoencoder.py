"""Pictures to latents and back, and a quick linear look at a latent."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import torch

from imagine_core.errors import FieldError, RequestError
from imagine_plugins.loaders.network import Network

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.models.hashing import FileHash

FIT_CELLS = 16  # latent cells along each side of the picture that the preview is fitted on
SIZES = (
    "is for latents of {} channels, {} pixels a cell; those of this model have {} channels, "
    "{} pixels a cell"
)


class Autoencoder:
    """An AutoencoderKL or AutoencoderTiny, and the scale of its latents.

    Latents outside are float32 and of unit scale, whatever the autoencoder's own.

    Args:
        network: The network and how it computes.
        scaling: What has the scale and the statistics of its latents, `scaling_factor`, and
            `shift_factor` or `latents_mean` and `latents_std`; None for its own configuration.
    """

    plain: Autoencoder | None = None
    """The one that it computes in another way than, and whose previews it gives."""

    def __init__(self, network: Network, scaling: Any = None) -> None:
        self.network = network
        self._scaling = self.model.config if scaling is None else scaling
        self._projection: torch.Tensor | None = None

    @property
    def model(self) -> Any:
        """The network itself."""
        return self.network.model

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        channels: int = self.model.config.latent_channels
        return channels

    @property
    def downsampling(self) -> int:
        """Pixels per latent cell along each side."""
        return self.network.downsampling

    def working(self, *, tiled: bool, seamless: str) -> Self:
        """The same autoencoder, in strips that bound its memory, or wrapping around.

        Args:
            tiled: Whether it computes in strips even where a picture fits.
            seamless: The axes along which pictures wrap around: "x", "y", "xy", or none.
        """
        if not (tiled or seamless):
            return self
        other = copy(self)
        other.network = replace(self.network, tiled=tiled, seamless=seamless)
        other.plain = self.plain or self
        return other

    def replaced(self, vae: LoadedVae) -> Autoencoder:
        """Another VAE for the same latents, which the model was trained on: so in their scale.

        Raises:
            RequestError: Its latents are of another size.
        """
        network = replace(self.network, model=vae.network)
        if _is_small(vae.network):
            other: Autoencoder = Small(network, self)
        else:  # a small one has no scale to share
            shared = None if _is_small(self.model) else self._scaling
            other = Autoencoder(network, shared)
        ours, theirs = ((each.latent_channels, each.downsampling) for each in (self, other))
        if ours != theirs:
            raise RequestError([FieldError("vae", SIZES.format(*theirs, *ours))])
        return other

    def encode_image(self, image: Image.Image, generator: torch.Generator) -> torch.Tensor:
        """A latent of an RGB picture, drawn from the posterior where there is one."""
        return self.encode_pixels(to_tensor(image), generator)

    @torch.no_grad()
    def encode_pixels(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A latent of [1, 3, height, width], -1..1, drawn as that of a picture."""
        mean, deviation = self._posterior(pixels)
        if deviation is not None:
            draw = torch.randn(mean.shape, generator=generator, dtype=torch.float32)
            mean = mean + deviation * draw.to(mean.device)
        return self._to_unit(mean)

    @torch.no_grad()
    def grey(self, height: int, width: int) -> torch.Tensor:
        """The latent, of that many cells, of a picture that is grey all over."""
        size = (height * self.downsampling, width * self.downsampling)
        return self._to_unit(self._posterior(torch.zeros(1, 3, *size))[0])

    @torch.no_grad()
    def decode(self, latent: torch.Tensor) -> Image.Image:
        """The RGB picture of a latent."""
        pixels = self.network.pixels(self._from_unit(latent.float()))
        return _to_image((pixels / 2 + 0.5)[0])

    @torch.no_grad()
    def preview(self, latent: torch.Tensor) -> Image.Image:
        """The latent's colours by a linear fit, one pixel per cell."""
        if self.plain is not None:
            return self.plain.preview(latent)
        if self._projection is None:
            self._projection = self._fit()
        *factors, offset = self._projection.to(latent.device)
        pixels = torch.einsum("chw,cr->rhw", latent[0].float(), torch.stack(factors))
        return _to_image(pixels + offset[:, None, None])

    def _posterior(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mean and deviation of the latent, in the autoencoder's own scale, float32."""
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        moments = self.network.moments(pixels)
        if moments.shape[1] == self.latent_channels:
            return moments, None
        # Its `std` is bounded: an infinite log variance shows in the moments alone.
        posterior = DiagonalGaussianDistribution(moments)
        return posterior.mean, posterior.std

    def _to_unit(self, latent: torch.Tensor) -> torch.Tensor:
        mean, deviation = self._statistics(latent.device)
        scale: float = self._scaling["scaling_factor"]
        return (latent - mean) * (scale / deviation)

    def _from_unit(self, latent: torch.Tensor) -> torch.Tensor:
        mean, deviation = self._statistics(latent.device)
        scale: float = self._scaling["scaling_factor"]
        return latent * (deviation / scale) + mean

    def _statistics(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation per channel, or one of all: else the shift, which may be 0, and 1."""
        scaling = self._scaling
        mean, deviation = scaling.get("latents_mean"), scaling.get("latents_std")
        if mean is None or deviation is None:
            mean, deviation = [scaling.get("shift_factor") or 0.0], [1.0]
        columns = torch.tensor([mean, deviation], dtype=torch.float32, device=device)
        return columns[0].view(1, -1, 1, 1), columns[1].view(1, -1, 1, 1)

    def _fit(self) -> torch.Tensor:
        """Least squares from latent cells to the colours that they stand for, [channels + 1, 3]."""
        pixels = _colour_chart(FIT_CELLS * self.downsampling)
        mean, _ = self._posterior(pixels * 2 - 1)
        latent = self._to_unit(mean)[0].cpu()
        cells = torch.nn.functional.adaptive_avg_pool2d(pixels, FIT_CELLS)[0]
        rows = torch.cat([latent, torch.ones(1, *latent.shape[1:])]).flatten(1).double()
        ridge = 1e-3 * torch.eye(len(rows), dtype=torch.float64) * rows.shape[1]
        fit = torch.linalg.solve(rows @ rows.T + ridge, rows @ cells.flatten(1).double().T)
        result: torch.Tensor = fit.float()
        return result


class Small(Autoencoder):
    """A TAESD in place of a VAE, which does what it cannot.

    Args:
        network: That of an AutoencoderTiny.
        full: The VAE whose latents it was trained on.
    """

    def __init__(self, network: Network, full: Autoencoder) -> None:
        super().__init__(network)
        self.full = full

    def working(self, *, tiled: bool, seamless: str) -> Self:
        """The same, and the VAE in the same way."""
        other = super().working(tiled=tiled, seamless=seamless)
        if other is not self:
            other.full = self.full.working(tiled=tiled, seamless=seamless)
        return other

    def encode_image(self, image: Image.Image, generator: torch.Generator) -> torch.Tensor:
        """The latent of an RGB picture."""
        encoder = self.full.encode_image if self.model.encoder is None else super().encode_image
        return encoder(image, generator)

    def preview(self, latent: torch.Tensor) -> Image.Image:
        """The latent's colours as those of the VAE."""
        return self.full.preview(latent)


class LoadedVae:
    """A VAE from a file of its own, which models of its families share.

    Args:
        network: An AutoencoderKL or AutoencoderTiny on the device; one that cannot encode has
            None for its `encoder`.
        file_hash: Its file's hash, once it is known; None for several files.
    """

    def __init__(self, network: Any, file_hash: FileHash | None = None) -> None:
        self.network = network
        self._hash = file_hash

    @property
    def hash(self) -> str | None:
        """First 10 hex digits of the file's sha256, once they are known."""
        return None if self._hash is None else self._hash.value

    def close(self) -> None:
        """Release the weights and stop computing the hash."""
        if self._hash is not None:
            self._hash.stop()
        self.network = None


def _is_small(network: Any) -> bool:
    return network.config.get("encoder_block_out_channels") is not None


def _colour_chart(size: int) -> torch.Tensor:
    """A picture whose patches cover the colours, [1, 3, size, size], 0..1, the same every time."""
    generator = torch.Generator().manual_seed(0)
    chart = torch.rand(1, 3, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(chart, size=(size, size), mode="bilinear")


def to_tensor(image: Image.Image) -> torch.Tensor:
    """[1, 3, height, width], -1..1, float32."""
    data = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    pixels = data.reshape(1, image.height, image.width, 3).permute(0, 3, 1, 2)
    return pixels.float() / 255 * 2 - 1


def _to_image(pixels: torch.Tensor) -> Image.Image:
    """The picture of [3, height, width], 0..1; values beyond are cut off."""
    from PIL import Image

    scaled = (pixels.clamp(0, 1) * 255).round().nan_to_num(0).to(torch.uint8)
    data = scaled.permute(1, 2, 0).contiguous().cpu()
    return Image.fromarray(data.numpy())
