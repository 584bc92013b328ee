"""A picture as a generator: it yields requests for device work and returns the picture.

The engine drives many drawings at once. A drawing knows nothing of the others: it yields a
`Denoise` and receives the guided prediction, whatever batch computed it. Closing it cancels it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from imagine_core.engine.enlarging import enlarge
from imagine_core.engine.guarded import Finished, GuardedSampler
from imagine_core.engine.guiding import Guidance, Kept
from imagine_core.engine.passes import passes, total_steps
from imagine_core.engine.variation import varied
from imagine_core.errors import FieldError, GenerationFailed, RequestError
from imagine_core.interfaces import Evaluation, SamplingTask, Sized
from imagine_core.pictures.images import resized

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from imagine_core.engine.admission import Admitted
    from imagine_core.engine.changed import ChangedModel
    from imagine_core.engine.guarded import Guard
    from imagine_core.engine.masking import Repaint
    from imagine_core.engine.passes import Pass
    from imagine_core.interfaces import DiffusionModel
    from imagine_core.noise import NoiseModel
    from imagine_core.parts import Parts, PictureCodec
    from imagine_core.types import MaskFill, Phase, ResolvedRequest


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
    """`step` of `steps` is finished; `original` computes the predicted result, if there is one."""

    step: int
    steps: int
    original: Callable[[], torch.Tensor] | None = None


class Progress(NamedTuple):
    """Steps done, and steps in total."""

    done: int
    steps: int


class Note(NamedTuple):
    """A warning for the user."""

    message: str


Want = Denoise | Alone | StepDone | Note
Drawing = Generator[Want, Any, "Image.Image"]


def latent_size(downsampling: int, width: int, height: int, *, step: int = 1) -> tuple[int, int]:
    """Latent (height, width) that covers a picture; the excess is cropped after decoding.

    Both are multiples of `step`.
    """
    cell = downsampling * step
    return -(-height // cell) * step, -(-width // cell) * step


def noise_of(model: DiffusionModel, size: tuple[int, int]) -> NoiseModel:
    """The noise levels of a model for pictures of a size."""
    return model.noise_at(*size) if isinstance(model, Sized) else model.noise


def _latent_step(model: object) -> int:
    return model.latent_step if isinstance(model, Sized) else 1


class Seeds(NamedTuple):
    """The seed of one picture, and the one that its noise is varied by."""

    seed: int
    subseed: int | None = None


def draw(
    model: ChangedModel,
    admitted: Admitted,
    samplers: Sequence[GuardedSampler],
    seeds: Seeds,
    *,
    halved: bool,
) -> Drawing:
    """Draw one picture of a request; of one that repaints a part, that as it was drawn.

    Args:
        model: The model, as the request changes it.
        admitted: The request.
        samplers: The sampler of each pass.
        seeds: The picture's own.
        halved: Whether the model computes in less than float32.
    """
    from PIL import Image

    request, repaints, image = admitted.request, admitted.repaints, admitted.init_image
    if repaints and repaints[0].is_idle:
        kept: Image.Image = yield Alone("decoding", lambda: image)
        return kept
    progress = Progress(0, total_steps(request))
    schedules = (schedule for _, schedule in admitted.schedules)
    parts = repaints or (None,) * len(samplers)
    for each, sampler, schedule, repaint in zip(
        passes(request), samplers, schedules, parts, strict=True
    ):
        if image is not None and image.size != each.size:
            image = yield from _enlarged(model, image, each.size, sampler.guard)
            image = image if repaint is None else repaint.over(image)
        start = yield from _started(model, request, each, image=image, repaint=repaint, seeds=seeds)
        task = SamplingTask(
            noise=start.noise,
            steps=each.steps,
            schedule=schedule,
            noise_model=noise_of(model.model, each.size),
            generator=start.generator,
            init=start.init,
            strength=each.strength,
        )
        latent = yield from _denoise(
            sampler, task, start, size=each.size, parts=model.parts, progress=progress
        )
        picture = yield Alone("decoding", partial(_decode, model.decoder, latent, halved=halved))
        image = picture.crop((0, 0, each.width, each.height))
        progress = Progress(progress.done + task.steps - task.first_step, progress.steps)
    assert image is not None
    if repaints or request.hires_keeps or image.size == request.drawn_size:
        return image
    return image.resize(request.drawn_size, Image.Resampling.LANCZOS)


class Start(NamedTuple):
    """What a pass starts from."""

    generator: torch.Generator
    guidance: Guidance
    noise: torch.Tensor
    init: torch.Tensor | None = None
    kept: Kept | None = None


def _started(  # noqa: PLR0913 - what a pass depends on
    model: ChangedModel,
    request: ResolvedRequest,
    size: Pass,
    *,
    image: Image.Image | None,
    repaint: Repaint | None,
    seeds: Seeds,
) -> Generator[Want, Any, Start]:
    """Encode the prompts and the picture of a pass, and draw its noise."""
    import torch

    guidance = yield Alone("encoding", partial(_guidance, model, request, size))
    for message in guidance.warnings:
        yield Note(message)
    # Reseeded for each pass: the hires fix equals txt2img followed by img2img by hand.
    generator = torch.Generator("cpu").manual_seed(seeds.seed)
    init = None
    if image is not None:
        step = _latent_step(model.model)
        encode = partial(_encode, model.encoder, image, generator, step=step)
        init = yield Alone("encoding", encode)
    noise = _noise(model.model, size, generator, seeds, request.subseed_strength)
    noise = noise.to(guidance.positive.context.device)
    if repaint is None or init is None:
        return Start(generator, guidance, noise, init)
    cells = repaint.kept_cells(tuple(init.shape[-2:]), model.model.downsampling).to(init.device)
    filled = _filled(request.mask_fill, init, noise, cells)
    if not model.is_maskable:
        levels = noise_of(model.model, size.size)
        return Start(generator, guidance, noise, filled, Kept(cells, init, levels))
    own = partial(_mask_extras, model.model, repaint, generator)
    guidance = guidance.with_extras((yield Alone("encoding", own)))
    return Start(generator, guidance, noise, filled)


def _filled(
    fill: MaskFill, latent: torch.Tensor, noise: torch.Tensor, kept: torch.Tensor
) -> torch.Tensor:
    """The latent to start from: A1111 fills the masked part with the noise of the start."""
    import torch

    if fill not in ("noise", "blank"):
        return latent
    return torch.where(kept, latent, noise if fill == "noise" else torch.zeros_like(latent))


def _mask_extras(model: Any, repaint: Repaint, generator: torch.Generator) -> Any:
    return model.encode_mask(repaint.picture, repaint.mask, generator)


def _enlarged(
    model: ChangedModel, image: Image.Image, size: tuple[int, int], guard: Guard
) -> Generator[Want, Any, Image.Image]:
    """The picture at the size of the next pass, a tile at a time."""
    if size[0] < image.width and size[1] < image.height:
        return resized(image, size)
    return (yield from enlarging(enlarge(model.upscaler, image, size, guard=guard)))


def enlarging(
    tiles: Generator[float, None, Image.Image], *, percent: int = 0
) -> Generator[Want, Any, Image.Image]:
    """Run an enlarging on the device, tile by tile, so that other requests go on.

    With a `percent`, each tile is told as a step of so many.
    """
    try:
        while not isinstance(done := (yield Alone("enlarging", partial(_tile, tiles))), Enlarged):
            if percent:
                yield StepDone(int(done * percent), percent)
    finally:
        tiles.close()
    return done.image


class Enlarged(NamedTuple):
    """An enlarged picture."""

    image: Image.Image


def _tile(tiles: Generator[float, None, Image.Image]) -> float | Enlarged:
    try:
        return next(tiles)
    except StopIteration as stop:
        return Enlarged(stop.value)


def _guidance(model: ChangedModel, request: ResolvedRequest, size: Pass) -> Guidance:
    import torch

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
    guidance = Guidance(positive, negative, request.guidance_scale)
    if request.distilled_guidance is None:
        return guidance
    obeyed = torch.tensor([request.distilled_guidance], device=positive.context.device)
    return guidance.with_extras({"guidance": obeyed})


def _noise(
    model: DiffusionModel, size: Pass, generator: torch.Generator, seeds: Seeds, strength: float
) -> torch.Tensor:
    """Unit noise, drawn on the CPU so that a seed starts alike on every device."""
    import torch

    step = _latent_step(model)
    height, width = latent_size(model.downsampling, size.width, size.height, step=step)
    shape = (1, model.latent_channels, height, width)
    noise = torch.randn(shape, generator=generator, dtype=torch.float32)
    if seeds.subseed is None or not strength:
        return noise
    other = torch.Generator("cpu").manual_seed(seeds.subseed)
    return varied(noise, torch.randn(shape, generator=other, dtype=torch.float32), strength)


def _denoise(  # noqa: PLR0913 - what a sampling needs
    sampler: GuardedSampler,
    task: SamplingTask,
    start: Start,
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
                evaluation.latent, evaluation.timestep, start.guidance, size, active
            )
            if start.kept is not None:
                prediction = start.kept.steer(evaluation, prediction)
    finally:
        sampling.close()
    latent = evaluation.latent if start.kept is None else start.kept.finish(evaluation.latent)
    if last is not None:
        finished = done + task.steps - task.first_step
        yield StepDone(finished, steps, lambda: latent)
    return latent


def _original(task: SamplingTask, evaluation: Evaluation, prediction: Any) -> torch.Tensor:
    timestep = float(evaluation.timestep)
    return task.noise_model.original(evaluation.latent, timestep, prediction)


def _encode(
    codec: PictureCodec, image: Image.Image, generator: torch.Generator, *, step: int
) -> torch.Tensor:
    import numpy as np
    from PIL import Image

    height, width = latent_size(codec.downsampling, image.width, image.height, step=step)
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
