"""Models and their loaders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from imagine_core.types import USUAL

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from imagine_core.interfaces.devices import Device
    from imagine_core.noise import NoiseModel
    from imagine_core.parts import Parts, PictureCodec, Vae

__all__ = [
    "Changeable",
    "Conditioning",
    "DiffusionModel",
    "Maskable",
    "ModelInfo",
    "ModelLoader",
    "Sized",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is known of a model, or of what changes one, from its header or its configuration.

    Attributes:
        name: What requests ask for: the file's stem or the folder's name.
        path: Where it lies. Never shown to clients.
        loader: Name of the loader that recognised it.
        family: "sd1", "sd2", "sdxl", ...; or what an unusable file is: "lora", "vae", ...
        size: Bytes on disk.
        parameters: Numbers that its weights are, once loaded. None where unknown.
        dtype: What they are stored as ("float16"); the kind that most of them have.
        problem: Why it cannot serve and what to do, or None if it can.
        clip_layers: Layers of the text encoder: the largest clip skip. None where unknown.
        recommended_size: Width and height that the model was trained for; what a request gets that
            names no size.
        defaults: What else a request gets that does not say it, by names of `GenerationRequest`:
            "steps", "guidance_scale", "distilled_guidance", "sampler"; the usual ones where it
            lacks them (`ResolvedRequest`).
        noise: The kind of its noise, "vp" or "flow": samplers say which they know.
        guidance: "free" for classifier-free guidance alone. "distilled" models read a guidance in
            their one forward, from the extra "guidance" of a conditioning, [rows]; "none" were
            trained to be used without any.
        metadata: What the file says of itself (title, licence, ...).
        kind: "model"; or what changes one: a key of `imagine_core.models.folders.KINDS`.
        fits: The families of the models that it can change; none for a model.
        takes: The kinds of what a request may change it by; of those, the model is `Changeable`.
            "mask" says that it paints into masks by inputs of its own, and is `Maskable`.
        vae: The VAE that it draws with unless a request names another; None for its own.
        details: What else `imagine show` says, as JSON has it. Of a LoRA: "triggers", the words
            that call what was trained; "modules", how many it changes; "ranks"; ...
    """

    name: str
    path: Path
    loader: str
    family: str
    size: int
    problem: str | None = None
    parameters: int | None = None
    dtype: str | None = None
    clip_layers: int | None = None
    recommended_size: tuple[int, int] = (512, 512)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    noise: str = "vp"
    guidance: Literal["free", "distilled", "none"] = "free"
    metadata: Mapping[str, str] = field(default_factory=dict)
    kind: str = "model"
    fits: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    vae: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def own(self) -> dict[str, Any]:
        """What a request gets that leaves it to the model, by names of `GenerationRequest`."""
        width, height = self.recommended_size
        return {**USUAL, "width": width, "height": height, **self.defaults}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """An encoded prompt.

    Attributes:
        context: [1, tokens, width], what the UNet's cross-attention reads.
        extras: Further per-row inputs of the model by name, each with a leading dimension of 1
            (SDXL: text_embeds, time_ids).
        parts: For each row, what changes the model in it; empty where nothing does in any.
        repeats: Whether its tokens may be repeated to the length of a longer prompt's, as
            cross-attention permits. Where they may not, as in joint attention, zeros follow them.
        lengths: Of several rows that may not be repeated, the tokens of each before its zeros.
        warnings: What the user should know of how the prompt was encoded.
        unread: The words of the prompt that the model leaves out, for want of a meaning.
    """

    context: torch.Tensor
    extras: Mapping[str, torch.Tensor] = field(default_factory=dict)
    parts: tuple[Parts | None, ...] = ()
    repeats: bool = True
    lengths: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


class DiffusionModel(Protocol):
    """A loaded latent diffusion model. Only the engine's thread calls it."""

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""

    @property
    def downsampling(self) -> int:
        """Pixels per latent cell along each side."""

    @property
    def noise(self) -> NoiseModel:
        """The noise levels of its training, and what it predicts."""

    @property
    def model_hash(self) -> str | None:
        """First 10 hex digits of the checkpoint's sha256, where it is one file and known yet."""

    def encode_prompt(
        self, prompt: str, *, clip_skip: int, width: int, height: int
    ) -> Conditioning:
        """Encode a prompt of any length, weights included.

        Raises:
            RequestError: It is longer than others can wait for.
        """

    def predict(
        self, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """One forward over [rows, channels, height, width]; float32 in, float32 out.

        `timesteps` is [rows]; the tensors of `conditioning` have `rows` rows.
        """

    def encode_image(self, image: Image.Image, generator: torch.Generator) -> torch.Tensor:
        """The latent of an RGB picture, [1, channels, height, width], float32, unit scale."""

    def decode(self, latent: torch.Tensor) -> Image.Image:
        """The RGB picture of a latent [1, channels, height, width]."""

    def preview(self, latent: torch.Tensor) -> Image.Image:
        """A quick RGB look at a latent, one pixel per latent cell."""

    def close(self) -> None:
        """Let go of weights and files; the model is not used afterwards."""


@runtime_checkable
class Sized(Protocol):
    """What models have beside `DiffusionModel` whose noise depends on the size of the picture."""

    @property
    def latent_step(self) -> int:
        """The sides of its latents are multiples of so many cells."""

    def noise_at(self, width: int, height: int) -> NoiseModel:
        """The noise levels of pictures of that size, in pixels."""


class Changeable(DiffusionModel, Protocol):
    """A model that LoRAs, embeddings and VAEs change for a request: see `ModelInfo.takes`.

    Its own weights stay as they are, whatever fails. Rows of a forward with other parts, or
    without any, do not change one another.
    """

    def fit(self, parts: Parts) -> tuple[str, ...]:
        """Look at what a request brings, before it is used; what of it is left out, in sentences.

        Raises:
            RequestError: On `loras`: one fits nowhere, or its weights by block cannot be read. On
                `controls`: one was not made for this network.
        """

    def encode_prompt(
        self,
        prompt: str,
        *,
        clip_skip: int,
        width: int,
        height: int,
        parts: Parts | None = None,
    ) -> Conditioning:
        """As `DiffusionModel`, with LoRAs in the text encoders and embeddings in the prompt.

        The engine sets `parts` of the result.
        """

    def codec(
        self, vae: Vae | None = None, *, tiled: bool = False, seamless: str = ""
    ) -> PictureCodec:
        """Pictures to latents of this model's scale and back, in other ways than its own.

        Args:
            vae: Another VAE; None for the model's.
            tiled: In tiles that take bounded memory, whatever the picture's size.
            seamless: The axes along which pictures wrap around: "x", "y", "xy", or none.

        Raises:
            RequestError: On `vae`: its latents are not this model's.
        """


class Maskable(DiffusionModel, Protocol):
    """A model with inputs of its own for a mask, as inpainting models have them.

    `encode_prompt` gives the extras of a picture that is to be painted as a whole, under the same
    names and in the same shapes.
    """

    def encode_mask(
        self, image: Image.Image, mask: Image.Image, generator: torch.Generator
    ) -> Mapping[str, torch.Tensor]:
        """The extras of a request that repaints part of a picture.

        Args:
            image: The picture, RGB, at the size of the pass.
            mask: Of the same size, mode "L": 255 repaints, 0 keeps; nothing between.
            generator: The picture's own CPU generator.
        """


@runtime_checkable
class ModelLoader(Protocol):
    """A format of models, or of what changes them; each has its own loader."""

    @property
    def name(self) -> str:
        """What `imagine list` and `imagine plugins` show."""

    def recognise(self, path: Path) -> ModelInfo | None:
        """Say what `path` (a file or a folder) is, from its header alone, in milliseconds.

        None: not this loader's business. A `ModelInfo` with a `problem`: this loader knows what
        it is, and that it cannot serve. Its `kind` says in which folder it belongs; the catalogue
        tells the user of one that lies in another.
        """

    def load(
        self,
        info: ModelInfo,
        *,
        device: Device,
        full_precision: bool,
        progress: Callable[[float], None] = ...,
    ) -> Any:
        """Load the weights. Raises `UnusableModel` naming what is wrong.

        Of the kind "model" it gives a `DiffusionModel`; of the others a `Lora`, an `Embedding`, a
        `Vae`, a `ControlNet` or an `Upscaler`, see `imagine_core.parts`.

        `progress` may be called with how much of it is done, 0 .. 1, as often as one likes.
        """
