"""What goes into a generation and what comes out of it: requests, events and results."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "HIRES_STRENGTH",
    "OWN",
    "USUAL",
    "ControlMode",
    "ControlUse",
    "Decoder",
    "GeneratedImage",
    "Generation",
    "GenerationEvent",
    "GenerationRequest",
    "GenerationResult",
    "LoraUse",
    "MaskFill",
    "Outcome",
    "Phase",
    "PhaseEvent",
    "Preview",
    "ResolvedRequest",
    "StepEvent",
    "UpscaleEvent",
    "UpscaleRequest",
    "UpscaleResult",
    "new_id",
]

Preview = Literal["fast", "vae"]
Decoder = Literal["full", "fast"]
MaskFill = Literal["original", "noise", "blank", "average"]
ControlMode = Literal["balanced", "prompt", "control"]
Phase = Literal["enhancing", "queued", "loading", "encoding", "denoising", "decoding", "enlarging"]
Outcome = Literal["done", "failed", "cancelled", "refused"]

HIRES_STRENGTH = 0.35
"""How much of the scaled-up picture the second pass of the hires fix replaces."""


def new_id() -> str:
    """An unguessable id: a client that knows it may see and cancel the job."""
    return secrets.token_hex(12)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraUse:
    """A LoRA in a request.

    Attributes:
        name: A name from the catalogue's LoRAs.
        weight: How much of it acts; 0 leaves the model as it is, and it may be negative.
        text_weight: How much of it acts on the text encoders; None for as much as `weight`.
        start, end: The part of the steps in which it acts, 0 .. 1; the text encoders know no steps.
        blocks: Weights by block, a list of numbers or a list's name; see docs/loras.md.
    """

    name: str
    weight: float = 1.0
    text_weight: float | None = None
    start: float = 0.0
    end: float = 1.0
    blocks: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlUse:
    """A ControlNet in a request.

    Attributes:
        name: A name from the catalogue's ControlNets.
        image: An encoded picture: the hint, or what the preprocessor makes it of.
        weight: How much of it acts.
        start, end: The part of the steps in which it acts, 0 .. 1.
        mode: "balanced"; "prompt" weakens it where it contradicts the prompt; "control" lets it
            act on the row of the prompt alone, so that guidance makes it stronger.
        preprocessor: Name or alias of a registered preprocessor; None for a finished hint.
    """

    name: str
    image: bytes
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: ControlMode = "balanced"
    preprocessor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One request for pictures, in the field's words; primitives only, so that it pickles.

    Attributes:
        prompt: What to draw. `(word:1.3)` weighs a word; `BREAK` starts a new chunk.
        negative_prompt: What to keep away from.
        model: A name from the catalogue; None asks for the default model.
        width, height: Size of the picture in pixels, multiples of 8; None for the model's own.
        steps: Sampling steps of the whole schedule; img2img runs about `steps * strength` of them.
            None for as many as the model is used with.
        guidance_scale: Classifier-free guidance (Ho & Salimans 2022); 1 or less switches it off.
            None for what the model is used with.
        distilled_guidance: The guidance that a distilled model was trained to obey in one forward
            (Meng et al. 2022, arXiv:2210.03142), as FLUX.1 [dev]; None for what it is used with.
        sampler: Name or alias of a registered sampler; None for what the model is used with.
        noise_schedule: Spacing of the noise levels: "default", "karras", ...
        seed: 0 .. 2**64-1; None draws one. Picture i of a request uses seed + i (mod 2**64).
        init_image: An encoded picture (PNG, JPEG, ...) to start from: img2img.
        strength: How much of `init_image` is replaced, 0 (nothing) .. 1 (all). img2img only.
        clip_skip: 1 takes the last layer of the text encoder, N skips the last N-1.
        preview_every: Preview every N steps; 0 for none.
        preview: "fast" is a linear fit of the latent, "vae" decodes it in full.
        hires_scale: Draw, scale up by this factor, refine, scale back; None for a single pass.
        hires_keeps: Whether the larger picture of the hires fix is kept, not scaled back.
        hires_upscaler: What scales up for it: a registered upscaler or one of the catalogue's.
        hires_steps: Steps of its second pass's whole schedule; None for as many as `steps`.
        hires_strength: How much of the scaled-up picture its second pass replaces.
        hires_sampler: The sampler of its second pass; None for the same.
        subseed: The seed of the variation, 0 .. 2**64-1; None draws one where there is a strength.
        subseed_strength: How far the noise of `seed` goes towards that of `subseed`, 0 .. 1. Above
            0, picture i of a request uses `seed` and subseed + i, as in A1111.
        mask: An encoded picture of what to repaint of `init_image`: white repaints, black keeps.
            If it has transparency, its transparent parts repaint.
        mask_blur: Standard deviation of the Gaussian that feathers the mask, in pixels.
        mask_fill: What the repainted part starts from: the picture ("original"), noise, nothing
            ("blank"), or the colours around it ("average").
        mask_invert: Whether black repaints.
        mask_padding: Repaint only the mask's surroundings, at the size of the request, and paste
            them into the picture, which keeps its own size: "only masked". So many pixels around
            the mask are shown to the model; None repaints the picture as a whole.
        extend: Pixels to add to `init_image`: left, top, right, bottom. They are painted as well.
        controls: The ControlNets that steer the model, each with its hint.
        tiling: The axes along which the picture is seamless: "x", "y", "xy", or none.
        vae_tiling: Encode and decode in tiles, which bounds the memory.
        images: Number of pictures.
        deterministic: The same bytes whatever else the device does; never shares a batch.
        loras: The LoRAs that change the model for this request; the engine adds those that the
            prompt names: `<lora:name:0.8>`.
        vae: A name from the catalogue's VAEs; None for the model's own.
        decoder: "full" is the VAE, "fast" a small one (TAESD) that is nearly as good.
        original_prompt: What the user wrote, where an enhancer made `prompt` of it. Only noted.
    """

    prompt: str
    negative_prompt: str = ""
    model: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    distilled_guidance: float | None = None
    sampler: str | None = None
    noise_schedule: str = "default"
    seed: int | None = None
    init_image: bytes | None = None
    strength: float = 0.8
    clip_skip: int = 1
    preview_every: int = 0
    preview: Preview = "fast"
    hires_scale: float | None = None
    hires_keeps: bool = False
    hires_upscaler: str = "lanczos"
    hires_steps: int | None = None
    hires_strength: float = HIRES_STRENGTH
    hires_sampler: str | None = None
    subseed: int | None = None
    subseed_strength: float = 0.0
    mask: bytes | None = None
    mask_blur: float = 4.0
    mask_fill: MaskFill = "original"
    mask_invert: bool = False
    mask_padding: int | None = None
    extend: tuple[int, int, int, int] = (0, 0, 0, 0)
    controls: tuple[ControlUse, ...] = ()
    tiling: str = ""
    vae_tiling: bool = False
    images: int = 1
    deterministic: bool = False
    loras: tuple[LoraUse, ...] = ()
    vae: str | None = None
    decoder: Decoder = "full"
    original_prompt: str | None = None


OWN = frozenset(("width", "height", "steps", "guidance_scale", "distilled_guidance", "sampler"))
"""The fields that a model has values of its own for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedRequest(GenerationRequest):
    """A request in which a model's own size, steps, guidance and sampler stand for unsaid ones.

    The defaults are those of models that say nothing else (`ModelInfo.defaults`).
    """

    width: int = 512
    height: int = 512
    steps: int = 25
    guidance_scale: float = 7.0
    sampler: str = "dpm++ 2m"

    @classmethod
    def of(cls, request: GenerationRequest, own: Mapping[str, Any]) -> ResolvedRequest:
        """`request` with the values of `own` for what it leaves open, the usual ones beyond."""
        said = {each.name: getattr(request, each.name) for each in fields(request)}
        return cls(**{**own, **{k: v for k, v in said.items() if v is not None or k not in OWN}})

    @property
    def drawn_size(self) -> tuple[int, int]:
        """Width and height of the first pass: extended unless only the mask is drawn."""
        if self.mask_padding is not None:
            return self.width, self.height
        left, top, right, bottom = self.extend
        return self.width + left + right, self.height + top + bottom


USUAL: Mapping[str, Any] = MappingProxyType(
    {
        each.name: each.default
        for each in fields(ResolvedRequest)
        if each.name in OWN and each.default is not None
    }
)
"""What a request gets in the fields of `OWN` where neither it nor its model says anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleRequest:
    """A request to enlarge a picture, without a model that draws.

    Attributes:
        image: The encoded picture (PNG, JPEG, ...).
        upscaler: A registered upscaler or one of the catalogue's, by name.
        scale: The factor of each side, above 0; None with a `size`.
        size: Width and height of the result in pixels; None with a `scale`.
    """

    image: bytes
    upscaler: str = "lanczos"
    scale: float | None = 2.0
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEvent:
    """The request has entered a phase, or is further in it.

    `position` counts the requests ahead of it in the queue, and `wait` is the estimate of the
    seconds until its turn comes; `fraction` is how much of its model is loaded. Both are None if
    unknown.
    """

    phase: Phase
    position: int = 0
    wait: float | None = None
    fraction: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvent:
    """`step` of `steps` is done for picture `image`; `seed` is that picture's own.

    `preview` is a small picture of the predicted result where one was asked for and is due.
    Its size is that of the latent; `resize` it to the size of the request to show it. `model` is
    what draws it.
    """

    step: int
    steps: int
    seed: int
    image: int = 0
    preview: Image.Image | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedImage:
    """A finished picture and the seeds that make it again.

    `subseed` is that of a variation; `png` is the picture as a PNG, where it came as one.
    """

    image: Image.Image
    seed: int
    subseed: int | None = None
    png: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResult:
    """The last event of a generation: all pictures, in the order of their seeds.

    Attributes:
        images: The pictures, `images[0].seed` being the request's seed.
        request: The request as it ran: model, sampler and seed resolved.
        model_hash: First 10 hex digits of the checkpoint's sha256, where it is one file.
        hashes: Of what changed the model, as A1111 has them: "lora:NAME", "embed:NAME", "vae".
        steps_run: Steps that ran for each picture: img2img leaves the noisiest of them out.
        warnings: What the user should know: prompts split into chunks, keys ignored, ...
        timings: Seconds per phase: queued, loading, encoding, denoising, decoding, enlarging.
    """

    images: tuple[GeneratedImage, ...]
    request: ResolvedRequest
    model_hash: str | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    steps_run: int | None = None
    warnings: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)


GenerationEvent = PhaseEvent | StepEvent | GenerationResult


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleResult:
    """The last event of an upscaling.

    Attributes:
        image: The enlarged picture, RGB, or RGBA if the one before has transparency.
        request: The request as it ran: the upscaler's name and the size resolved.
        warnings: What the user should know.
        timings: Seconds per phase: queued, loading, enlarging.
    """

    image: Image.Image
    request: UpscaleRequest
    warnings: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)


UpscaleEvent = PhaseEvent | StepEvent | UpscaleResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The report on a generation for observers; never holds the prompt.

    Of an enlarging, the model is the upscaler, sampler and schedule are empty, and the steps are
    hundredths of the work.

    Attributes:
        id: Its id, as in the reply and in the log.
        model, sampler, schedule: Their names, resolved.
        steps, width, height, images: As in the request.
        outcome: How it ended; None while it is in progress. "refused" if the queue was full.
        error: The `type` of the error that it failed with.
        timings: Seconds in each phase that it went through.
    """

    id: str
    model: str
    sampler: str
    schedule: str
    steps: int
    width: int
    height: int
    images: int
    outcome: Outcome | None = None
    error: str | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
