"""Writes the body of `POST /upscale` and reads the lines of its reply, for clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from imagine_core.pictures.formats import base64_of
from imagine_core.types import StepEvent, UpscaleEvent, UpscaleRequest, UpscaleResult
from imagine_plugins.dialects.native.lines import read_phase

if TYPE_CHECKING:
    from imagine_plugins.dialects.native.lines import Decode


def upscale_body(request: UpscaleRequest) -> dict[str, Any]:
    """The body of a request."""
    body = {"img": base64_of(request.image), "upscaler": request.upscaler}
    if request.size is not None:
        width, height = request.size
        return body | {"width": width, "height": height}
    return body | {"scale": request.scale}


def read_upscale_line(
    line: Mapping[str, Any], request: UpscaleRequest, picture: Decode
) -> UpscaleEvent | None:
    """The event of a line of the reply; None for an unknown one.

    Args:
        line: The line, not an error.
        request: The request.
        picture: Decodes base64 into a picture and its bytes.

    Raises:
        ValueError, KeyError, TypeError: The line is malformed.
    """
    match line.get("status"):
        case "progress":
            return StepEvent(step=int(line["step"]), steps=int(line["steps"]), seed=0)
        case "final":
            image, _ = picture(line["img"])
            return UpscaleResult(
                image=image,
                request=replace(request, upscaler=str(line.get("upscaler", request.upscaler))),
                warnings=tuple(str(warning) for warning in line.get("warnings", ())),
                timings={str(k): float(v) for k, v in dict(line.get("timings", {})).items()},
            )
    return read_phase(line)
