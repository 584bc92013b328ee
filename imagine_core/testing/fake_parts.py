"""What changes a `FakeModel`, and upscalers: parts whose effect is plain to see."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from imagine_core.parts import FittedLora, Layers, PictureCodec

KINDS = {"loras": "lora", "embeddings": "embedding", "vae": "vae", "controlnet": "controlnet"} | {
    "upscale_models": "upscaler"
}
"""The kinds of fake files by the folder that they lie in."""


@dataclass(eq=False)
class FakePart:
    """A fake LoRA, embedding, VAE, ControlNet or upscaler, told apart by how it is used.

    Attributes:
        name: As in the catalogue.
        colour: What a LoRA of weight 1 adds to the mean of the latent.
        hash: A fixed one.
        factor: That of an upscaler.
        is_conditional: Whether a ControlNet acts in the row of the prompt alone.
        closed: Whether it was closed.
    """

    name: str
    colour: tuple[float, ...]
    hash: str | None = "abcdef012345"
    closed: bool = False
    factor: int = 2
    is_conditional: bool = False

    def enlarge(self, image: Image.Image) -> Generator[float, None, Image.Image]:
        """Each pixel twice as wide and high, in two tiles, one above the other."""
        from PIL import Image

        large = Image.new("RGB", (image.width * 2, image.height * 2))
        half = image.height // 2
        for top, bottom in ((0, half), (half, image.height)):
            tile = image.crop((0, top, image.width, bottom))
            large.paste(tile.resize((large.width, tile.height * 2), 0), (0, top * 2))
            yield bottom / image.height
        return large

    @property
    def vectors(self) -> Mapping[str, torch.Tensor]:
        """One vector of the colour."""
        import torch

        return {"text_encoder": torch.tensor([self.colour])}

    def fit(self, layers: Layers) -> FittedLora:
        """Nothing: fake models have no layers."""
        raise NotImplementedError

    def close(self) -> None:
        """Note it."""
        self.closed = True


@dataclass(frozen=True, eq=False)
class Inverted:
    """A codec whose pictures are the negatives of another's."""

    codec: PictureCodec

    @property
    def latent_channels(self) -> int:
        """As the other's."""
        return self.codec.latent_channels

    @property
    def downsampling(self) -> int:
        """As the other's."""
        return self.codec.downsampling

    def encode_image(self, image: Image.Image, generator: torch.Generator) -> torch.Tensor:
        """Of the negative."""
        return self.codec.encode_image(_negative(image), generator)

    def decode(self, latent: torch.Tensor) -> Image.Image:
        """The negative."""
        return _negative(self.codec.decode(latent))

    def preview(self, latent: torch.Tensor) -> Image.Image:
        """The negative."""
        return _negative(self.codec.preview(latent))


def _negative(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.invert(image)
