"""`imagine info`: print what a picture was made from."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import click

from imagine_core import hookimpl
from imagine_core.pictures.enlarged import read_facts
from imagine_plugins.commands.shared.output import file_size, print_json

LONGEST = 100
"""Characters of base64 that are shown as they are."""

BASE64 = re.compile(r"(data:[^,]*,)?(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


@click.command(short_help="Print what a picture was made from.")
@click.argument("file")
def info(file: str) -> None:
    """Print the metadata of a picture as JSON.

    FILE is a PNG, a JPEG or WebP of another tool, or a JSON file that 'imagine run --meta' wrote.
    How it was enlarged stands under "postprocessing". On a terminal, the kind and the size of an
    input picture stand for its base64.
    """
    meta = read_facts(Path(file))
    print_json(_shortened(meta) if sys.stdout.isatty() else meta)


def _shortened(value: Any) -> Any:
    """`value` with the kind and the size of each picture in it, instead of its base64."""
    match value:
        case dict():
            return {key: _shortened(each) for key, each in value.items()}
        case list():
            return [_shortened(each) for each in value]
        case str() if len(value) > LONGEST and BASE64.fullmatch(value):
            data = base64.b64decode(value.partition(",")[2] or value)
            return f"({_kind(data)}, {file_size(len(data))})"
    return value


def _kind(data: bytes) -> str:
    """The format and the size of a picture, as its header tells them."""
    import warnings

    from PIL import Image

    from imagine_core.pictures.images import safe_formats

    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(BytesIO(data), formats=safe_formats()) as image,
        ):
            return f"{image.format}, {image.width} x {image.height}"
    except Exception:  # decoders raise whatever broken bytes lead them to
        return "no picture"


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine info`."""
    register(info)
