"""The samplings that make a picture, and their sizes and steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagine_core.interfaces import steps_to_run

if TYPE_CHECKING:
    from imagine_core.types import ResolvedRequest

CELL = 8


@dataclass(frozen=True, slots=True)
class Pass:
    """One sampling: txt2img without an input picture, else img2img with `strength`."""

    width: int
    height: int
    steps: int
    strength: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height


def passes(request: ResolvedRequest) -> list[Pass]:
    """The samplings that make the picture of `request`: one, or two with the hires fix."""
    first = Pass(*request.drawn_size, request.steps, request.strength)
    if request.hires_scale is None:
        return [first]
    steps = request.steps if request.hires_steps is None else request.hires_steps
    return [first, Pass(*hires_size(request), steps, request.hires_strength)]


def hires_size(request: ResolvedRequest) -> tuple[int, int]:
    """The size of the hires fix's second pass: scaled, to the nearest multiples of 8."""
    scale = request.hires_scale or 1.0
    width, height = (max(CELL, round(side * scale / CELL) * CELL) for side in request.drawn_size)
    return width, height


def total_steps(request: ResolvedRequest) -> int:
    """The steps that run in total: img2img skips the noisiest part of the schedule."""
    first, *second = passes(request)
    strength = 1.0 if request.init_image is None else first.strength
    return steps_to_run(first.steps, strength) + sum(
        steps_to_run(each.steps, each.strength) for each in second
    )
