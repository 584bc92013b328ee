"""The values of flags that hold more than one thing: LoRAs, ControlNets, borders."""

from __future__ import annotations

from pathlib import Path

import click

from imagine_core import strict_json
from imagine_core.control_field import MEMBERS
from imagine_core.errors import RequestError
from imagine_core.kinds import Borders, loosely
from imagine_core.lora_tags import LoraTag, read_tags
from imagine_core.pictures.files import read_all, reading
from imagine_core.types import ControlUse

MAX_INPUT = 40 * 2**20
"""Bytes of an input picture, which must fit a server's body limit as base64."""


class InputFile(bytes):
    """The content of a file that goes into a request, which errors name by its path."""

    path: str


def read_input(file: str) -> InputFile:
    """The file at the path `file`; raises `InvalidFile`."""
    with reading(Path(file)) as opened:
        data = InputFile(read_all(opened, limit=MAX_INPUT))
    data.path = file
    return data


class LoraParameter(click.ParamType[LoraTag]):
    """A LoRA as a tag in a prompt has it: `ink`, `ink:0.8`, `ink:te=0:unet=0.8`."""

    name = "lora"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> LoraTag:
        """Read it; one that is read already stays."""
        if isinstance(value, LoraTag):
            return value
        try:
            text = str(value)
            found = read_tags(text if text.startswith("<") else f"<lora:{text}>")
        except RequestError as error:
            self.fail(error.fields[0].message.partition(", but ")[2], param, ctx)
        if len(found.loras) != 1 or found.prompt or found.warnings:
            self.fail(f"{value!r} is no NAME or NAME:WEIGHT", param, ctx)
        return found.loras[0]


class ControlParameter(click.ParamType[ControlUse]):
    """A ControlNet and its hint: `canny=edges.png`, `canny=photo.png,preprocessor=canny`."""

    name = "control"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> ControlUse:
        """Read it and its hint; one that is read already stays."""
        if isinstance(value, ControlUse):
            return value
        first, *others = str(value).split(",")
        name, equals, file = first.partition("=")
        if not (name and equals and file):
            self.fail(f"{value!r} is no NAME=FILE, with weight=0.8 and the like behind", param, ctx)
        settings = {}
        for other in others:
            key, _, text = other.partition("=")
            member = MEMBERS.get(key.strip())
            if member is None or key.strip() in ("name", "img"):
                known = ", ".join(key for key in MEMBERS if key not in ("name", "img"))
                self.fail(f"{other!r} in {value!r} is none of {known}", param, ctx)
            try:
                settings[member.attribute] = loosely(member.kind, text.strip())
            except strict_json.Refused as error:
                self.fail(f"{key} {error}", param, ctx)
        return ControlUse(name=name, image=read_input(file), **settings)


class BordersParameter(click.ParamType[tuple[int, int, int, int]]):
    """Pixels along each side: `0,0,128,0`."""

    name = "borders"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int, int, int]:
        """Read them; those that are read already stay."""
        if isinstance(value, tuple):
            return value
        try:
            return Borders().read([int(side) for side in str(value).split(",")])
        except (ValueError, strict_json.Refused):
            self.fail(f"{value!r} is no LEFT,TOP,RIGHT,BOTTOM in pixels", param, ctx)
