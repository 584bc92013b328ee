"""Converts events of the core from and to the native wire format's reply lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, cast, get_args

from imagine_core.errors import InvalidFile
from imagine_core.fields import FIELDS, PLACEHOLDER, from_json
from imagine_core.lora_tags import read_tags
from imagine_core.pictures.formats import base64_of
from imagine_core.pictures.metadata import png_meta
from imagine_core.types import (
    OWN,
    GeneratedImage,
    GenerationEvent,
    GenerationRequest,
    GenerationResult,
    Phase,
    PhaseEvent,
    ResolvedRequest,
    StepEvent,
)
from imagine_core.version import version

if TYPE_CHECKING:
    from PIL import Image

    Decode = Callable[[str], tuple[Image.Image, bytes]]

    from imagine_core.executor import JobStatus
    from imagine_core.web.dialect import Finished, Record


FIELD = {field.name: field for field in FIELDS}


def phase_line(event: PhaseEvent) -> dict[str, Any]:
    """A line on the phase, for clients that asked for progress."""
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
    line = {"img": base64_of(png), "status": "intermediate", **_step(event)}
    return line if event.model is None else {**line, "model": event.model}


def _step(event: StepEvent) -> dict[str, Any]:
    return {
        "seed": str(event.seed),
        "step": event.step,
        "steps": event.steps,
        "image": event.image,
    }


def final_line(finished: Finished, record: Record) -> dict[str, Any]:
    """The finished pictures: the whole reply, or the last line of a stream."""
    result, request = finished.result, finished.result.request
    width, height = finished.size
    pictures = [
        {"img": base64_of(png), "seed": str(seed)}
        | ({} if subseed is None else {"subseed": str(subseed)})
        for png, seed, subseed in zip_longest(finished.pngs, finished.seeds, finished.subseeds)
    ]
    line: dict[str, Any] = {
        **pictures[0],
        "status": "final",
        "model": request.model,
        "sampler": request.sampler,
        "schedule": request.noise_schedule,
        "width": width,
        "height": height,
        "steps": request.steps,
        "steps_run": result.steps_run,
        "warnings": [*record.order.warnings, *result.warnings],
        "timings": {phase: round(seconds, 4) for phase, seconds in result.timings.items()},
        "model_hash": result.model_hash,
        "version": version(),
    }
    if request.original_prompt is not None:
        line |= {"prompt": request.prompt, "original_prompt": request.original_prompt}
    elif request.prompt != record.order.request.prompt:
        line["prompt"] = request.prompt
    if request.loras:
        line["loras"] = FIELD["loras"].kind.write(request.loras)
    if request.vae is not None:
        line["vae"] = request.vae
    if result.hashes:
        line["hashes"] = dict(result.hashes)
    if record.enhancer is not None:
        line["enhancer"] = record.enhancer
    return line if len(pictures) == 1 else {**line, "images": pictures}


def standing_line(record: Record, status: JobStatus | None) -> dict[str, Any]:
    """The state of an order; `status` comes from the engine, if it has the order."""
    if record.outcome is not None:
        return {"status": record.outcome}
    if status is None:
        done = {"step": record.steps_run, "steps": record.steps_run}
        return {"status": record.phase, **(done if record.phase == "decoding" else {})}
    line = phase_line(PhaseEvent(**{name: getattr(status, name) for name in STANDING}))
    if status.phase in {"denoising", "decoding", "enlarging"}:
        line |= {"step": status.step, "steps": status.steps}
    return line


STANDING = ("phase", "position", "wait", "fraction")


def read_line(
    line: Mapping[str, Any],
    request: GenerationRequest,
    picture: Decode,
) -> GenerationEvent | None:
    """The event of a line of a reply; None for an unknown one.

    Args:
        line: The line, not an error.
        request: The request.
        picture: Decodes base64 into a picture and its bytes.

    Raises:
        ValueError, KeyError, TypeError: The line is malformed.
    """
    status = line.get("status")
    if status == "progress":
        return _step_event(line, None)
    if status == "intermediate":
        return _step_event(line, picture(line["img"])[0])
    if status == "final" or (status is None and "img" in line):
        return _result(line, request, picture)
    return read_phase(line)


def read_phase(line: Mapping[str, Any]) -> PhaseEvent | None:
    """The phase that a line tells; None for other lines."""
    status = line.get("status")
    if status not in get_args(Phase):
        return None
    return PhaseEvent(
        phase=cast("Phase", status),
        position=int(line.get("position", 0)),
        wait=_number(line.get("wait")),
        fraction=_number(line.get("fraction")),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _step_event(line: Mapping[str, Any], preview: Image.Image | None) -> StepEvent:
    return StepEvent(
        step=int(line.get("step", 0)),
        steps=int(line.get("steps", 0)),
        seed=int(line["seed"]),
        image=int(line.get("image", 0)),
        preview=preview,
        model=line.get("model"),
    )


def _result(
    line: Mapping[str, Any],
    request: GenerationRequest,
    picture: Decode,
) -> GenerationResult:
    made = tuple(_made(each, *picture(each["img"])) for each in line.get("images", [line]))
    ran = replace(
        ResolvedRequest.of(request, _own(made[0].png)),
        model=line.get("model", request.model),
        sampler=line.get("sampler", request.sampler),
        noise_schedule=line.get("schedule", request.noise_schedule),
        prompt=line.get("prompt", request.prompt),
        negative_prompt=read_tags(request.negative_prompt).prompt,
        loras=FIELD["loras"].kind.read(line.get("loras", [])),
        vae=line.get("vae"),
        seed=made[0].seed,
        subseed=request.subseed if made[0].subseed is None else made[0].subseed,
    )
    return GenerationResult(
        images=made,
        request=ran,
        model_hash=line.get("model_hash"),
        hashes={str(name): str(digits) for name, digits in dict(line.get("hashes", {})).items()},
        steps_run=None if line.get("steps_run") is None else int(line["steps_run"]),
        warnings=tuple(str(warning) for warning in line.get("warnings", ())),
        timings={str(k): float(v) for k, v in dict(line.get("timings", {})).items()},
    )


def _own(png: bytes | None) -> dict[str, Any]:
    """What the model of a picture decided of it, by its metadata."""
    meta: dict[str, Any] = {}
    with suppress(InvalidFile):  # it has none
        meta = png_meta(BytesIO(png or b""))
    known = {field.wire: meta[field.wire] for field in FIELDS if field.wire in meta}
    asked, _ = from_json({**known, "prompt": PLACEHOLDER})
    return {name: getattr(asked, name) for name in OWN if getattr(asked, name) is not None}


def _made(each: Mapping[str, Any], image: Image.Image, png: bytes) -> GeneratedImage:
    subseed = int(each["subseed"]) if "subseed" in each else None
    return GeneratedImage(image=image, seed=int(each["seed"]), subseed=subseed, png=png)
