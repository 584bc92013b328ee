"""What the decoder of pictures to start from says of some bytes."""

from __future__ import annotations

from imagine_core.errors import RequestError
from imagine_core.pictures.images import load_init_image


def init_image_problem(data: bytes) -> str | None:
    """Why `data` cannot be a picture to start from, or None if it can."""
    try:
        load_init_image(data, 64, 64)
    except RequestError as error:
        return error.fields[0].message
    return None
