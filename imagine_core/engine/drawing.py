"""A picture as a generator: it yields requests for device work and returns the picture.

The engine drives many drawings at once. A drawing knows nothing of the others: it yields a
`Denoise` and receives the guided prediction, whatever batch computed it. Closing it cancels it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from imagine_core.engine.guarded import Finished, GuardedSampler
from imagine_core.errors import FieldError, GenerationFailed, RequestError
from imagine_core.interfaces import Conditioning, Evaluation, SamplingTask, steps_to_run
from imagine_core.types import HIRES_STRENGTH

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from imagine_core.engine.changed import ChangedModel
    from imagine_core.interfaces import DiffusionModel
    from imagine_core.parts import Parts, PictureCodec
    from imagine_core.types import GenerationRequest, Phase

UNREAD_SHOWN = 16
"""The most unknown words that a warning lists."""


@dataclass(frozen=True, slots=True)
class Guidance:
    """The conditioning of a prediction; without `negative` it costs one row, not two."""

    positive: Conditioning
    negative: Conditioning | None
    scale: float

    @property
    def warnings(self) -> list[str]:
        """Notes on where the encoding of the prompts differs from their text."""
        notes = [f"prompt: {note}" for note in self.positive.warnings]
        unread = {word.casefold(): word for word in self.positive.unread}  # a negative one's: meant
        if words := list(unread.values()):
            named = ", ".join(words[:UNREAD_SHOWN]) + (", ..." if words[UNREAD_SHOWN:] else "")
            notes.append(f"prompt: the model does not know, and leaves out: {named}")
        if self.negative is not None:
            notes += [f"negative prompt: {note}" for note in self.negative.warnings]
        return notes

    @property
    def rows(self) -> list[Conditioning]:
        """The conditioning of each row that an evaluation takes, unconditional first."""
        return [self.positive] if self.negative is None else [self.negative, self.positive]

    def combine(self, predictions: torch.Tensor) -> torch.Tensor:
        """The guided prediction from those of `rows`: Ho & Salimans 2022, equation 6."""
        if self.negative is None:
            return predictions
        unconditional, conditional = predictions.chunk(2)
        return unconditional + self.scale * (conditional - unconditional)


class Denoise(NamedTuple):
    """Asks for the guided prediction for `latent` at `timestep`; may share a forward.

    `size` is the width and height of the picture in this pass; `parts` change the model for it.
    """

    latent: torch.Tensor
    timestep: torch.Tensor | float
    guidance: Guidance
    size: tuple[int, int]
    parts: Parts | None = None


class Alone(NamedTuple):
    """Asks for the result of `work`, run alone on the device."""

    phase: Phase
    work: Callable[[], Any]


class StepDone(NamedTuple):
    """`step` of `steps` is finished; `original` computes the predicted result on demand."""

    step: int
    steps: int
    original: Callable[[], torch.Tensor]


class Progress(NamedTuple):
    """Steps done, and steps in total."""

    done: int
    steps: int


class Note(NamedTuple):
    """A warning for the user."""

    message: str


Want = Denoise | Alone | StepDone | Note
Drawing = Generator[Want, Any, "Image.Image"]


@dataclass(frozen=True, slots=True)
class Pass:
    """One sampling: txt2img without an input picture, else img2img with `strength`."""

    width: int
    height: int
    strength: float


def passes(request: GenerationRequest) -> list[Pass]:
    """The samplings that make the picture of `request`: one, or two with the hires fix."""
    first = Pass(request.width, request.height, request.strength)
    if request.hires_scale is None:
        return [first]
    width, height = hires_size(request)
    return [first, Pass(width, height, HIRES_STRENGTH)]


def hires_size(request: GenerationRequest) -> tuple[int, int]:
    """The size of the hires fix's second pass: scaled, to the nearest multiples of 8."""
    scale = request.hires_scale or 1.0
    return tuple(max(8, round(side * scale / 8) * 8) for side in (request.width, request.height))  # type: ignore[return-value]


def latent_size(downsampling: int, width: int, height: int) -> tuple[int, int]:
    """Latent (height, width) that covers a picture; the excess is cropped after decoding."""
    return -(-height // downsampling), -(-width // downsampling)


def total_steps(request: GenerationRequest) -> int:
    """The steps that run in total: img2img skips the noisiest part of the schedule."""
    strengths = [p.strength for p in passes(request)]
    if request.init_image is None:
        strengths[0] = 1.0
    return sum(steps_to_run(request.steps, strength) for strength in strengths)


def draw(  # noqa: PLR0913 - what a picture is made of
    model: ChangedModel,
    request: GenerationRequest,
    sampler: GuardedSampler,
    *,
    seed: int,
    halved: bool,
    init_image: Image.Image | None = None,
) -> Drawing:
    """Draw the picture of `request` that belongs to `seed`.

    `init_image` is the request's, decoded and at the request's size. `halved` says whether the
    model computes in less than float32.
    """
    import torch
    from PIL import Image

    image = init_image
    progress = Progress(0, total_steps(request))
    for each in passes(request):
        guidance = yield Alone("encoding", partial(_guidance, model, request, each))
        for message in guidance.warnings:
            yield Note(message)
        # Reseeded for each pass: the hires fix equals txt2img followed by img2img by hand.
        generator = torch.Generator("cpu").manual_seed(seed)
        init = None
        if image is not None:
            image = image.resize((each.width, each.height), Image.Resampling.LANCZOS)
            init = yield Alone("encoding", partial(_encode, model.encoder, image, generator))
        task = SamplingTask(
            noise=_noise(model.model, each, generator, like=guidance.positive.context),
            steps=request.steps,
            schedule=request.noise_schedule,
            noise_model=model.model.noise,
            generator=generator,
            init=init,
            strength=each.strength,
        )
        size = (each.width, each.height)
        latent = yield from _denoise(
            sampler, task, guidance, size=size, parts=model.parts, progress=progress
        )
        picture = yield Alone("decoding", partial(_decode, model.decoder, latent, halved=halved))
        image = picture.crop((0, 0, each.width, each.height))
        progress = Progress(progress.done + task.steps - task.first_step, progress.steps)
    assert image is not None
    return image.resize((request.width, request.height), Image.Resampling.LANCZOS)


def _guidance(model: ChangedModel, request: GenerationRequest, size: Pass) -> Guidance:
    encode = partial(
        model.model.encode_prompt, clip_skip=request.clip_skip, width=size.width, height=size.height
    )
    if model.parts:  # models that nothing changes need not know of it
        encode = partial(encode, parts=model.parts)
    positive, negative = encode(request.prompt), None
    if request.guidance_scale > 1:
        try:
            negative = encode(request.negative_prompt)
        except RequestError as error:  # the model does not know which prompt it is
            fields = [FieldError("negative_prompt", each.message) for each in error.fields]
            raise RequestError(fields) from error
    return Guidance(positive, negative, request.guidance_scale)


def _noise(
    model: DiffusionModel, size: Pass, generator: torch.Generator, *, like: torch.Tensor
) -> torch.Tensor:
    """Unit noise, drawn on the CPU so that a seed starts alike on every device."""
    import torch

    height, width = latent_size(model.downsampling, size.width, size.height)
    shape = (1, model.latent_channels, height, width)
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(like.device)


def _denoise(  # noqa: PLR0913 - what a sampling needs
    sampler: GuardedSampler,
    task: SamplingTask,
    guidance: Guidance,
    *,
    size: tuple[int, int],
    parts: Parts,
    progress: Progress,
) -> Generator[Want, Any, torch.Tensor]:
    """Run one sampling; `progress` holds the steps done before it."""
    done, steps = progress
    runs = max(task.steps - task.first_step, 1)
    sampling = sampler.begin(task)
    prediction = None
    last: Evaluation | None = None
    try:
        while not isinstance(evaluation := sampling.send(prediction), Finished):
            if last is not None and evaluation.step > last.step:
                yield StepDone(
                    min(done + evaluation.step, steps - 1),
                    steps,
                    partial(_original, task, last, prediction),
                )
            last = evaluation
            active = parts.at(evaluation.step / runs)
            prediction = yield Denoise(
                evaluation.latent, evaluation.timestep, guidance, size, active
            )
    finally:
        sampling.close()
    latent = evaluation.latent
    if last is not None:
        finished = done + task.steps - task.first_step
        yield StepDone(finished, steps, lambda: latent)
    return latent


def _original(task: SamplingTask, evaluation: Evaluation, prediction: Any) -> torch.Tensor:
    timestep = float(evaluation.timestep)
    return task.noise_model.original(evaluation.latent, timestep, prediction)


def _encode(codec: PictureCodec, image: Image.Image, generator: torch.Generator) -> torch.Tensor:
    import numpy as np
    from PIL import Image

    height, width = latent_size(codec.downsampling, image.width, image.height)
    right = width * codec.downsampling - image.width
    below = height * codec.downsampling - image.height
    if right or below:
        padded = np.pad(np.asarray(image), ((0, below), (0, right), (0, 0)), mode="edge")
        image = Image.fromarray(padded)
    return codec.encode_image(image, generator)


def _decode(codec: PictureCodec, latent: torch.Tensor, *, halved: bool) -> Image.Image:
    if not bool(latent.isfinite().all()):
        raise GenerationFailed(
            "the latent is not finite: the model overflows in this precision; "
            "start the server with --full_prec"
            if halved
            else "the latent is not finite, in float32: try another sampler, a lower guidance "
            "scale, or another model, since the weights of this one may be damaged"
        )
    return codec.decode(latent)
