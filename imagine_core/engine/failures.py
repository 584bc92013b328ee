"""Turns a failure during generation into the error its caller sees."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from imagine_core.errors import GenerationFailed, ImagineError, OutOfMemory
from imagine_core.models.memory import out_of_memory

if TYPE_CHECKING:
    from imagine_core.engine.jobs import Job

    Fits = Callable[[Job], tuple[int, int] | None]

log = logging.getLogger("imagine")


def explain(job: Job, error: BaseException, *, fits: Fits) -> ImagineError:
    """The error that the caller of `job` sees; an unexpected one is logged as well.

    Args:
        job: The job.
        error: The exception that ended it.
        fits: Returns a size that memory should suffice for, or None.
    """
    if isinstance(error, ImagineError):
        return error
    facts = job.facts
    if out_of_memory(error):
        size = fits(job)
        try_this = "a smaller model" if size is None else f"{size[0]}x{size[1]}, which should fit,"
        return OutOfMemory(
            f"the device ran out of memory for {facts.width}x{facts.height}; "
            f"try {try_this} or fewer pictures at once"
        )
    log.error("request %s failed", job.id, exc_info=error)
    return GenerationFailed(
        f"model {facts.model!r} failed with {type(error).__name__}; "
        f"the log says more under request {job.id}"
    )
