"""What plugins implement: devices, samplers, models and their loaders, prompt enhancers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from imagine_core.noise import NoiseModel
    from imagine_core.parts import Parts, PictureCodec, Vae

__all__ = [
    "Changeable",
    "Conditioning",
    "Device",
    "DiffusionModel",
    "EnhanceTask",
    "Enhancement",
    "Enhancer",
    "Evaluation",
    "HttpApi",
    "ModelInfo",
    "ModelLoader",
    "SamplerSpec",
    "Sampling",
    "SamplingTask",
    "steps_to_run",
]

# ------------------------------------------------------------------------------------- devices


class Device:
    """A kind of compute device. Subclass it, set the class attributes, and register an instance.

    Attributes:
        name: What `--device` takes.
        label: What people read.
        priority: `--device auto` takes the available device with the highest priority.
    """

    name: str
    label: str
    priority: int = 0

    def unavailable(self) -> str | None:
        """Why this device cannot be used on this machine, or None if it can. May import torch."""
        raise NotImplementedError

    def torch_device(self) -> str:
        """The device string that torch understands; ROCm builds of torch answer to "cuda"."""
        return self.name

    def dtype(self) -> torch.dtype:
        """The dtype that models compute in unless full precision is asked for."""
        import torch

        return torch.float16

    def vae_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype for an autoencoder beside a UNet in `dtype`."""
        return dtype

    def fence(self) -> Callable[[], None]:
        """Mark this point of the device's work; calling the result waits until it is reached."""
        return lambda: None

    def free_memory(self) -> int | None:
        """Bytes that a model could still take, or None where the device cannot tell."""
        return None

    def watch_memory(self) -> Callable[[], int | None]:
        """Begin to watch; calling the result gives the most bytes that were taken meanwhile.

        Beyond what was taken at the beginning; None where the device cannot tell.
        """
        return lambda: None

    def empty_cache(self) -> None:
        """Give cached memory back to the device, after a model left or memory ran out."""


# ------------------------------------------------------------------------------------ samplers


class Evaluation(NamedTuple):
    """One evaluation of the model that a sampler wants.

    Attributes:
        latent: The model's input, [1, channels, height, width], float32, scaled as the model was
            trained on it: `signal` times x of sigma space.
        timestep: What the model is told of the noise level, 0 .. 999 (flow: 0 .. 1000), a
            fraction where that lies between two trained ones.
        step: Zero-based number of the step that this evaluation belongs to.
    """

    latent: torch.Tensor
    timestep: torch.Tensor | float
    step: int


Sampling = Generator[Evaluation, "torch.Tensor", "torch.Tensor"]
"""A sampler at work: it yields evaluations, is sent each guided prediction (epsilon, v, ...
as the model predicts), and returns the finished latent. Closing it cancels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingTask:
    """What a sampler starts from.

    Attributes:
        noise: Unit normal noise, [1, channels, height, width], float32, on the device.
        steps: Steps of the whole schedule, as asked for.
        schedule: Name of the noise schedule: "default", "karras", ...
        noise_model: The noise levels that the model was trained on, and what it predicts.
        generator: The picture's own CPU generator, for samplers that add noise on the way.
        init: The latent to start from (img2img), same shape as `noise`; None for txt2img.
        strength: How much of the schedule runs on `init`, 0..1.
    """

    noise: torch.Tensor
    steps: int
    schedule: str
    noise_model: NoiseModel
    generator: torch.Generator
    init: torch.Tensor | None = None
    strength: float = 1.0

    @property
    def first_step(self) -> int:
        """The step of the schedule to start at: 0, or later for img2img."""
        if self.init is None:
            return 0
        return self.steps - steps_to_run(self.steps, self.strength)


def steps_to_run(steps: int, strength: float) -> int:
    """How many of `steps` run at a strength: at least one, unless nothing is to change at all."""
    return min(max(int(steps * strength), 1 if strength > 0 else 0), steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSpec:
    """A sampler under the name that the field uses.

    Attributes:
        name: What requests ask for, lower case: "dpm++ 2m".
        label: A1111's spelling, for people and for infotext: "DPM++ 2M".
        sample: Starts a sampling.
        aliases: Other names for it.
        schedules: The noise schedules that it takes, "default" among them.
        evaluations: Model evaluations per step: 1 for first-order and multistep methods.
        stochastic: Whether it adds noise on the way, so that it never converges in steps.
        noise: The kinds of noise that it knows: of "vp" and "flow", see `NoiseModel.kind`.
    """

    name: str
    label: str
    sample: Callable[[SamplingTask], Sampling]
    aliases: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ("default",)
    evaluations: int = 1
    stochastic: bool = False
    noise: frozenset[str] = frozenset(("vp",))


# -------------------------------------------------------------------------------------- models


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
        recommended_size: Width and height that the model was trained for.
        noise: The kind of its noise, "vp" or "flow": samplers say which they know.
        metadata: What the file says of itself (title, licence, ...).
        kind: "model"; or what changes one: a key of `imagine_core.models.folders.KINDS`.
        fits: The families of the models that it can change; none for a model.
        takes: The kinds of what a request may change it by; of those, the model is `Changeable`.
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
    noise: str = "vp"
    metadata: Mapping[str, str] = field(default_factory=dict)
    kind: str = "model"
    fits: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    vae: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """An encoded prompt.

    Attributes:
        context: [1, tokens, width], what the UNet's cross-attention reads.
        extras: Further per-row inputs of the model by name, each with a leading dimension of 1
            (SDXL: text_embeds, time_ids).
        parts: For each row, what changes the model in it; empty where nothing does in any.
        warnings: What the user should know of how the prompt was encoded.
        unread: The words of the prompt that the model leaves out, for want of a meaning.
    """

    context: torch.Tensor
    extras: Mapping[str, torch.Tensor] = field(default_factory=dict)
    parts: tuple[Parts | None, ...] = ()
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


class Changeable(DiffusionModel, Protocol):
    """A model that LoRAs, embeddings and VAEs change for a request: see `ModelInfo.takes`.

    Its own weights stay as they are, whatever fails. Rows of a forward with other parts, or
    without any, do not change one another.
    """

    def fit(self, parts: Parts) -> tuple[str, ...]:
        """Look at what a request brings, before it is used; what of it is left out, in sentences.

        Raises:
            RequestError: On `loras`: one fits nowhere, or its weights by block cannot be read.
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

    def with_vae(self, vae: Vae) -> PictureCodec:
        """Pictures to latents of this model's scale and back with another VAE.

        Raises:
            RequestError: On `vae`: its latents are not this model's.
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

        Of the kind "model" it gives a `DiffusionModel`; of the others a `Lora`, an `Embedding` or
        a `Vae`, see `imagine_core.parts`.

        `progress` may be called with how much of it is done, 0 .. 1, as often as one likes.
        """


# ------------------------------------------------------------------------------------ enhancers


@dataclass(frozen=True, slots=True, kw_only=True)
class EnhanceTask:
    """What an enhancer starts from.

    Attributes:
        prompt: What the user wrote.
        seed: Whatever is left to chance is drawn from this: the same seed, the same prompt.
        negative: Whether a negative prompt is wanted too.
        stream: Whether the caller wants the prompt piece by piece.
        model: Which language model to use; None for whichever the enhancer prefers.
        address: Where the server of that model is; None for where it usually is. It comes from
            the command line alone: a client must not decide where the server connects to.
    """

    prompt: str
    seed: int
    negative: bool = False
    stream: bool = False
    model: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Enhancement:
    """What an enhancer made of a prompt.

    Attributes:
        prompt: The better prompt.
        negative_prompt: What to keep away from; needed only where one was asked for.
        model: The language model that wrote it, if one did.
    """

    prompt: str
    negative_prompt: str = ""
    model: str | None = None


class Enhancer:
    """Makes a better prompt of a prompt. Subclass it, and register an instance.

    Attributes:
        name: What `-e` takes.
        label: What people read.
        priority: Requests that name none get the available enhancer with the highest priority.
        language_model: Whether a language model does the work, so that a task's `model` and
            `address` mean something.
    """

    name: str
    label: str
    priority: int = 0
    language_model: bool = False

    def unavailable(self, address: str | None = None) -> str | None:
        """Why it cannot be used now, or None if it can. Called on a thread; may ask a server."""
        del address
        return None

    def enhance(self, task: EnhanceTask) -> AsyncIterator[str | Enhancement]:
        """An asynchronous generator that yields an `Enhancement` at its end.

        Before it, where `task.stream` asks for it, it may yield the better prompt piece by piece,
        as strings. Closing it cancels the work. Raises `EnhancerFailed` saying what is wrong and
        what to do.
        """
        raise NotImplementedError


# ---------------------------------------------------------------------------------- HTTP APIs


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpApi:
    """An API of the server that other programs know; `imagine serve` prints what to enter there.

    Attributes:
        name: Its name: "OpenAI API".
        path: What follows the server's address: "/v1".
        programs: Programs that draw through it.
        key: What to enter for the key of a server that has one.
        no_key: What to enter where it has none.
    """

    name: str
    path: str
    programs: tuple[str, ...]
    key: str
    no_key: str
