"""Checks a request against the server's limits, before any work is done for it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from imagine_core.engine.passes import hires_size
from imagine_core.errors import FieldError
from imagine_core.fields import field_errors
from imagine_core.settings import Limits
from imagine_core.types import ResolvedRequest


def check_request(request: ResolvedRequest, limits: Limits) -> list[FieldError]:
    """Everything about `request` that cannot be served, all at once, in the core's field names."""
    errors = list(field_errors(request, limits))
    wrong = {error.field for error in errors}
    if not wrong & {"width", "height"}:
        errors += _sizes(request, limits, wrong)
    if request.init_image is None:
        errors += (error for error in _lacks_picture(request) if error.field not in wrong)
    return errors


def _lacks_picture(request: ResolvedRequest) -> Iterator[FieldError]:
    """Fields that ask for a part of a picture, where there is none."""
    for field, asked in (("mask", request.mask is not None), ("extend", any(request.extend))):
        if asked:
            yield FieldError(field, "needs a picture to start from")


def _sizes(request: ResolvedRequest, limits: Limits, wrong: set[str]) -> Iterator[FieldError]:
    """What is wrong with sizes whose sides are valid, unless another field is `wrong` already."""
    if request.width * request.height > limits.pixels:
        message = f"width x height must be at most {limits.pixels:,} pixels"
        yield FieldError("width", message)
        yield FieldError("height", message)
    elif "extend" not in wrong and math.prod(request.drawn_size) > limits.pixels:
        yield FieldError("extend", f"the extended size must be at most {limits.pixels:,} pixels")
    scaled = not wrong & {"hires_scale", "extend"} and request.hires_scale is not None
    if scaled and math.prod(hires_size(request)) > limits.pixels:
        message = f"the scaled size must be at most {limits.pixels:,} pixels"
        yield FieldError("hires_scale", message)
