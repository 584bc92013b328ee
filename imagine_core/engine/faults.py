"""What a failure in somebody's picture is called when its caller is told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from imagine_core.errors import GenerationFailed, ImagineError, OutOfMemory
from imagine_core.models.memory import out_of_memory

if TYPE_CHECKING:
    from imagine_core.engine.jobs import Job

log = logging.getLogger("imagine")


def explain(job: Job, error: BaseException) -> ImagineError:
    """`error` in words for the caller of `job`; what they cannot mend is in the log as well."""
    if isinstance(error, ImagineError):
        return error
    request = job.request
    if out_of_memory(error):
        return OutOfMemory(
            f"the device ran out of memory for {request.width}x{request.height}; "
            f"try a smaller size or fewer pictures at once"
        )
    log.error("request %s failed", job.id, exc_info=error)
    return GenerationFailed(
        f"model {job.info.name!r} failed with {type(error).__name__}; "
        f"the log says more under request {job.id}"
    )
