"""What changes a model for one request, and upscalers, as their loaders give them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from imagine_core.types import ControlUse, LoraUse

__all__ = [
    "AppliedControl",
    "AppliedLora",
    "Change",
    "ControlNet",
    "Embedding",
    "FittedLora",
    "Layers",
    "Lora",
    "LowRank",
    "Magnitude",
    "Parts",
    "PictureCodec",
    "Update",
    "Upscaler",
    "Vae",
]

# -------------------------------------------------------------------- the changes of one layer


class LowRank(NamedTuple):
    """A change of a weight as the product of two: `up @ down`, the scale in `up`.

    Ranks of several can be concatenated: `[down1; down2]` and `[w1 * up1, w2 * up2]`.

    Attributes:
        down: (rank, in) or (rank, in, height, width); it has the stride and padding of the layer.
        up: (out, rank).
    """

    down: torch.Tensor
    up: torch.Tensor


class Update(Protocol):
    """What is added to a weight."""

    def low_rank(self, dtype: torch.dtype) -> LowRank | None:
        """The same as a product of two, or None where that is no cheaper than `dense`."""

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """The sum that is added to the weight, in the shape of the weight."""

    def to(self, device: torch.device) -> Update:
        """The same with its tensors on a device."""


@dataclass(frozen=True, slots=True, eq=False)
class Magnitude:
    """DoRA's magnitudes (Liu et al. 2024, eq. 5): lengths that rows or columns are scaled to.

    Attributes:
        values: One for each output or input.
        axis: Whether rows ("out") or columns ("in") have them.
    """

    values: torch.Tensor
    axis: Literal["out", "in"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Change:
    """All that a LoRA changes in one layer.

    Attributes:
        updates: What is added to its weight.
        bias: What is added to its output, one value for each; it may have no bias of its own.
        magnitude: What its weight is scaled to after that, or None.
    """

    updates: tuple[Update, ...] = ()
    bias: torch.Tensor | None = None
    magnitude: Magnitude | None = None

    def dense(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """The sum of all updates."""
        import torch

        parts = [update.dense(dtype).view(shape) for update in self.updates]
        return sum(parts[1:], parts[0]) if parts else torch.zeros(shape, dtype=dtype)


# ------------------------------------------------------------------------------------- LoRAs


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, weakref_slot=True)
class Layers:
    """The layers of a model that a LoRA may change.

    Attributes:
        family: The model's: "sd1", "sd2", "sdxl", ...
        shapes: Of their weights, by component and module as diffusers and transformers name them:
            "unet.mid_block.attentions.0.proj_in", "text_encoder.encoder.layers.0.mlp.fc1". Norms
            have one dimension.
        original_names: What the original layout calls the module, by the same names.
    """

    family: str
    shapes: Mapping[str, tuple[int, ...]]
    original_names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FittedLora:
    """A LoRA as one model takes it.

    Attributes:
        changes: By layer, as `Layers.shapes` names them.
        words: Embeddings that come with it: by word and text encoder, [vectors, width].
        warnings: What of it is left out, and why, in sentences.
    """

    changes: Mapping[str, Change]
    words: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Lora(Protocol):
    """A loaded LoRA: what loaders of the kind "lora" give. Several models may share it.

    Compared by identity, and weakly referenced.
    """

    @property
    def hash(self) -> str | None:
        """First 12 hex digits of the sha256 of its tensors, as A1111 has it; None if unknown.

        It stays what it is from the load on, so that equal requests give equal files.
        """

    def fit(self, layers: Layers) -> FittedLora:
        """What it changes in a model; raises `UnusableModel` where that is nothing.

        Called for each forward with the same `layers`: the result is worth keeping.
        """

    def close(self) -> None:
        """Release the tensors; it is not used afterwards."""


# -------------------------------------------------------------------------- embeddings and VAEs


class Embedding(Protocol):
    """A loaded textual inversion (Gal et al. 2022): what loaders of the kind "embedding" give."""

    @property
    def vectors(self) -> Mapping[str, torch.Tensor]:
        """[vectors, width] for each text encoder: "text_encoder", "text_encoder_2"."""

    @property
    def hash(self) -> str | None:
        """First 10 hex digits of the file's sha256; None if unknown."""

    def close(self) -> None:
        """Release the vectors; it is not used afterwards."""


class PictureCodec(Protocol):
    """Turns pictures into latents of unit scale and back: a model, or its VAE's replacement."""

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""

    @property
    def downsampling(self) -> int:
        """Pixels per latent cell along each side."""

    def encode_image(self, image: Image.Image, generator: torch.Generator) -> torch.Tensor:
        """The latent of an RGB picture, [1, channels, height, width], float32, unit scale."""

    def decode(self, latent: torch.Tensor) -> Image.Image:
        """The RGB picture of a latent [1, channels, height, width]."""

    def preview(self, latent: torch.Tensor) -> Image.Image:
        """A quick RGB look at a latent, one pixel per latent cell."""


class Vae(Protocol):
    """A loaded VAE: what loaders of the kind "vae" give. Its models say what scale it has."""

    @property
    def hash(self) -> str | None:
        """First 10 hex digits of the file's sha256; None if unknown."""

    def close(self) -> None:
        """Release the weights; it is not used afterwards."""


# ------------------------------------------------------------------ ControlNets and upscalers


class ControlNet(Protocol):
    """A loaded ControlNet (Zhang et al. 2023) or T2I-Adapter: what loaders of "controlnet" give.

    Several models may share it. Compared by identity, and weakly referenced.
    """

    @property
    def hash(self) -> str | None:
        """8 hex digits, of 64 KiB of the file, as A1111 writes them; None if unknown."""

    @property
    def is_conditional(self) -> bool:
        """Whether it acts in the row of the prompt alone, whatever its mode."""

    def close(self) -> None:
        """Release the weights; it is not used afterwards."""


class Upscaler(Protocol):
    """A loaded network that enlarges pictures: what loaders of the kind "upscaler" give."""

    @property
    def factor(self) -> int:
        """How many times larger each side becomes."""

    @property
    def hash(self) -> str | None:
        """First 10 hex digits of the file's sha256; None if unknown."""

    def enlarge(self, image: Image.Image) -> Generator[float, None, Image.Image]:
        """Enlarge an RGB picture by `factor`, in bounded memory, a tile at a time.

        A generator that yields after each tile how much is done, 0 .. 1, and returns the RGB
        picture: the engine does other requests' work between two tiles. Closing it cancels.
        """

    def close(self) -> None:
        """Release the weights; it is not used afterwards."""


# ------------------------------------------------------------------------------- of one request


@dataclass(frozen=True, slots=True, eq=False)
class AppliedLora:
    """A LoRA and how a request uses it."""

    lora: Lora
    use: LoraUse

    @property
    def text_weight(self) -> float:
        """How much of it the text encoders take."""
        return self.use.weight if self.use.text_weight is None else self.use.text_weight


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class AppliedControl:
    """A ControlNet, how a request uses it, and what it shows.

    Attributes:
        net: The ControlNet.
        use: Its weight, steps and mode.
        hint: The finished hint, RGB, at the size of the request's largest pass; the model scales
            it to that of a smaller one.
    """

    net: ControlNet
    use: ControlUse
    hint: Image.Image


MOST_SPANS = 4
"""Sets of parts of a request that are kept for the next steps; each takes memory of its own."""


class Parts:
    """What changes a model for one request. Compared by identity: one object a request.

    Args:
        loras: The LoRAs, in the request's order.
        embeddings: By the name that prompts call them.
        controls: The ControlNets, in the request's order.
        seamless: The axes along which the picture wraps around: "x", "y", "xy", or none.
    """

    def __init__(
        self,
        loras: tuple[AppliedLora, ...] = (),
        embeddings: Mapping[str, Embedding] | None = None,
        controls: tuple[AppliedControl, ...] = (),
        seamless: str = "",
    ) -> None:
        self.loras = loras
        self.embeddings = embeddings or {}
        self.controls = controls
        self.seamless = seamless
        self._acting: dict[object, Parts] = {}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.loras or self.embeddings or self.controls or self.seamless)

    def at(self, done: float) -> Parts | None:
        """Those that act in the network once `done` of the steps (0 .. 1) are done; None for none.

        The same object for the same LoRAs and ControlNets.
        """
        return self._only(
            tuple(each for each in self.loras if each.use.start <= done < each.use.end),
            tuple(each for each in self.controls if each.use.start <= done < each.use.end),
        )

    @property
    def unconditional(self) -> Parts | None:
        """Those that act in the row of the negative prompt: no ControlNet of mode "control"."""
        controls = tuple(
            each
            for each in self.controls
            if each.use.mode != "control" and not each.net.is_conditional
        )
        return self._only(self.loras, controls)

    def _only(
        self, loras: tuple[AppliedLora, ...], controls: tuple[AppliedControl, ...]
    ) -> Parts | None:
        if not (loras or controls or self.seamless):
            return None
        if (loras, controls) == (self.loras, self.controls):
            return self
        key = (loras, controls)
        if key not in self._acting:
            if len(self._acting) >= MOST_SPANS:  # steps go on: the first is the one that is over
                del self._acting[next(iter(self._acting))]
            self._acting[key] = Parts(loras, self.embeddings, controls, self.seamless)
        return self._acting[key]
