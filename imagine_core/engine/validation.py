"""Checks a request against the server's limits, before any work is done for it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from imagine_core.engine.drawing import hires_size
from imagine_core.errors import FieldError
from imagine_core.fields import field_errors
from imagine_core.settings import Limits
from imagine_core.types import GenerationRequest


def check_request(request: GenerationRequest, limits: Limits) -> list[FieldError]:
    """Everything about `request` that cannot be served, all at once, in the core's field names."""
    errors = list(field_errors(request, limits))
    wrong = {error.field for error in errors}
    if not wrong & {"width", "height"}:
        errors += _sizes(request, limits, hires="hires_scale" not in wrong)
    return errors


def _sizes(request: GenerationRequest, limits: Limits, *, hires: bool) -> Iterator[FieldError]:
    """What is wrong with sizes whose sides are valid; `hires` tells whether the factor is, too."""
    if request.width * request.height > limits.pixels:
        message = f"width x height must be at most {limits.pixels:,} pixels"
        yield FieldError("width", message)
        yield FieldError("height", message)
    scaled = hires and request.hires_scale is not None
    if scaled and math.prod(hires_size(request)) > limits.pixels:
        message = f"the scaled size must be at most {limits.pixels:,} pixels"
        yield FieldError("hires_scale", message)
