"""The lines of the native wire format's replies, from and to the events of the core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, get_args

from imagine_core.types import (
    GeneratedImage,
    GenerationEvent,
    GenerationRequest,
    GenerationResult,
    Phase,
    PhaseEvent,
    StepEvent,
)
from imagine_plugins.dialects.wire import Order, base64_of

if TYPE_CHECKING:
    from PIL import Image


def enhancing_line() -> dict[str, Any]:
    """A line on a prompt that is being made better, for clients that asked for progress."""
    return {"status": "enhancing"}


def phase_line(event: PhaseEvent) -> dict[str, Any]:
    """A line on what happens, for clients that asked for progress."""
    line: dict[str, Any] = {"status": event.phase}
    if event.phase == "queued":
        line["position"] = event.position
    if event.wait is not None:
        line["wait"] = round(event.wait, 1)
    if event.fraction is not None:
        line["fraction"] = event.fraction
    return line


def progress_line(event: StepEvent) -> dict[str, Any]:
    """A line on a finished step, for clients that asked for progress."""
    return {"status": "progress", **_step(event)}


def intermediate_line(event: StepEvent, png: bytes) -> dict[str, Any]:
    """A line with a preview."""
    return {"img": base64_of(png), "status": "intermediate", **_step(event)}


def _step(event: StepEvent) -> dict[str, Any]:
    return {
        "seed": str(event.seed),
        "step": event.step,
        "steps": event.steps,
        "image": event.image,
    }


def final_line(
    result: GenerationResult, pngs: list[bytes], *, order: Order, version: str
) -> dict[str, Any]:
    """The finished pictures: the whole reply, or the last line of a stream."""
    request = result.request
    pictures = [
        {"img": base64_of(png), "seed": str(made.seed)}
        for png, made in zip(pngs, result.images, strict=True)
    ]
    line: dict[str, Any] = {
        **pictures[0],
        "status": "final",
        "model": request.model,
        "sampler": request.sampler,
        "schedule": request.noise_schedule,
        "width": request.width,
        "height": request.height,
        "steps": request.steps,
        "warnings": [*order.warnings, *result.warnings],
        "timings": {phase: round(seconds, 4) for phase, seconds in result.timings.items()},
        "model_hash": result.model_hash,
        "version": version,
    }
    if request.original_prompt is not None:
        line |= {"prompt": request.prompt, "original_prompt": request.original_prompt}
    if order.enhance is not None:
        line["enhancer"] = order.enhance
    return line if len(pictures) == 1 else {**line, "images": pictures}


def read_line(
    line: Mapping[str, Any], request: GenerationRequest, picture: Callable[[str], Image.Image]
) -> GenerationEvent | None:
    """The event that a line of a reply stands for; None if it is one that we do not know.

    Args:
        line: The line, which says no error.
        request: What was asked for.
        picture: Decodes a picture in base64.

    Raises:
        ValueError, KeyError, TypeError: The line is not what it should be.
    """
    status = line.get("status")
    if status == "progress":
        return _step_event(line, None)
    if status == "intermediate":
        return _step_event(line, picture(line["img"]))
    if status == "final" or (status is None and "img" in line):
        return _result(line, request, picture)
    if status in get_args(Phase):
        return PhaseEvent(
            phase=cast("Phase", status),
            position=int(line.get("position", 0)),
            wait=_number(line.get("wait")),
            fraction=_number(line.get("fraction")),
        )
    return None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _step_event(line: Mapping[str, Any], preview: Image.Image | None) -> StepEvent:
    return StepEvent(
        step=int(line.get("step", 0)),
        steps=int(line.get("steps", 0)),
        seed=int(line["seed"]),
        image=int(line.get("image", 0)),
        preview=preview,
    )


def _result(
    line: Mapping[str, Any], request: GenerationRequest, picture: Callable[[str], Image.Image]
) -> GenerationResult:
    made = tuple(
        GeneratedImage(image=picture(each["img"]), seed=int(each["seed"]))
        for each in line.get("images", [line])
    )
    ran = replace(
        request,
        model=line.get("model", request.model),
        sampler=line.get("sampler", request.sampler),
        noise_schedule=line.get("schedule", request.noise_schedule),
        seed=made[0].seed,
    )
    return GenerationResult(
        images=made,
        request=ran,
        model_hash=line.get("model_hash"),
        warnings=tuple(str(warning) for warning in line.get("warnings", ())),
        timings={str(k): float(v) for k, v in dict(line.get("timings", {})).items()},
    )
