"""Logs a line on each generation: what was drawn, how long it took, how it ended."""

from __future__ import annotations

import logging
from dataclasses import asdict

from imagine_core import Generation, hookimpl

DRAWING = ("sampler", "schedule", "steps")

log = logging.getLogger("imagine")


@hookimpl
def generation_finished(generation: Generation) -> None:
    """Log it, as text and fields."""
    fields = {name: value for name, value in asdict(generation).items() if value is not None}
    if not generation.sampler:  # an enlarging, whose steps are hundredths
        fields = {name: value for name, value in fields.items() if name not in DRAWING}
    fields["timings"] = {phase: round(seconds, 4) for phase, seconds in fields["timings"].items()}
    log.info("%s", line(generation), extra={"fields": fields})


def line(generation: Generation) -> str:
    """A generation in one line of text."""
    error = f" ({generation.error})" if generation.error else ""
    how = f"{generation.sampler}, {generation.steps} steps" if generation.sampler else "enlarged"
    timings = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in generation.timings.items())
    return (
        f"{generation.id} {generation.outcome}{error}: "
        f"{generation.model}, {generation.images} x {generation.width}x{generation.height}, "
        f"{how}; {timings}"
    )
