"""`imagine upscale`: enlarge a picture on an Imagine server, or in this process."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from imagine_core import UpscaleRequest, UpscaleResult, hookimpl
from imagine_core.cli import plugins_of
from imagine_core.errors import FieldError, RequestError, ServerFailed
from imagine_core.pictures.enlarged import enlarged_png, picture_in
from imagine_core.settings import Settings, default_models_folder
from imagine_plugins.commands.shared.options import LOCAL_OPTIONS, SERVER_OPTIONS
from imagine_plugins.commands.shared.output import note
from imagine_plugins.commands.shared.progress import Progress
from imagine_plugins.commands.shared.saving import Gallery, open_gallery
from imagine_plugins.commands.shared.source import Source, choose_by_flags, in_flags, open_source
from imagine_plugins.commands.shared.values import Finite

if TYPE_CHECKING:
    from imagine_core.plugins import Plugins
    from imagine_core.types import UpscaleEvent


class Size(click.ParamType[tuple[int, int]]):
    """Width and height: 1024x768."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """The two numbers in `value`."""
        match = re.fullmatch(r"([0-9]{1,7})\s*[xX*\u00d7]\s*([0-9]{1,7})", str(value).strip())
        if match is None:
            self.fail(f"{str(value)!r} is no size; it must look like 1024x768", param, ctx)
        return int(match[1]), int(match[2])


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line of `imagine upscale`."""

    file: str
    output: str | None
    scale: float | None
    size: tuple[int, int] | None
    upscaler: str
    quiet: bool
    address: str | None
    api_key: str | None
    models: str | None
    device: str | None
    full_prec: bool

    def request(self) -> UpscaleRequest:
        """What is asked for."""
        request = UpscaleRequest(image=picture_in(Path(self.file)), upscaler=self.upscaler)
        if self.size is not None:
            if self.scale is not None:
                raise click.UsageError("--scale and --size both say how large; give one of them")
            return replace(request, scale=None, size=self.size)
        return request if self.scale is None else replace(request, scale=self.scale)

    def beside(self) -> Path:
        """The file to make where none is named, without its suffix: `cat_2x`, `cat_1024x768`."""
        if self.size is None:
            how = f"{2 if self.scale is None else self.scale:g}x"
        else:
            how = "{}x{}".format(*self.size)
        source = Path(self.file)
        return source.with_name(f"{source.stem}_{how}")

    def settings(self) -> Settings:
        """The settings of an engine in this process."""
        models = default_models_folder() if self.models is None else Path(self.models)
        return Settings(
            models=models.expanduser(),
            device=self.device or "auto",
            full_precision=self.full_prec,
        )


def enlarge(options: Options, plugins: Plugins) -> list[Path]:
    """Do what `options` say, and return the file of the larger picture."""
    import asyncio

    request = options.request()
    gallery = open_gallery(options.output, beside=options.beside())
    where = choose_by_flags(
        address=options.address,
        api_key=options.api_key,
        flags=["models", "device", "full_prec"],
        doing="enlarging",
    )
    progress = Progress(sys.stderr, doing="enlarging", quiet=options.quiet)
    if not where.remote and not options.quiet:
        note(where.reason)
    with (
        open_source(where, options.settings(), plugins) as source,
        _in_own_flags(options, progress),
    ):
        progress.say(f"asking {where.address}" if where.remote else "starting")
        result = asyncio.run(_follow(source, request, progress))
        files = _save(result, request, gallery, plugins)
    for warning in result.warnings:
        note(f"Warning: {warning}")
    return files


async def _follow(source: Source, request: UpscaleRequest, progress: Progress) -> UpscaleResult:
    """Show the events of `request` up to its result, and return that."""
    events = cast("AsyncGenerator[UpscaleEvent]", source.upscale(request))
    async with aclosing(events):
        async for event in events:
            if isinstance(event, UpscaleResult):
                return event
            progress.update(event)
    raise ServerFailed("the answer ended before the picture was finished", lost=True)


def _save(
    result: UpscaleResult, request: UpscaleRequest, gallery: Gallery, plugins: Plugins
) -> list[Path]:
    name, known = result.request.upscaler, plugins.upscalers
    label = known.get(name).label if name in known.names() else name
    ran = replace(request, upscaler=name)
    return gallery.save(enlarged_png(result.image, ran, label=label))


@contextmanager
def _in_own_flags(options: Options, progress: Progress) -> Iterator[None]:
    """Tidy the terminal at the end, and name what this command calls fields in errors."""
    flags = dict.fromkeys(("--img", "--init_image", "--image"), options.file)
    flags |= {"--width": "--size", "--height": "--size"}
    try:
        with in_flags():
            yield
    except RequestError as error:
        fields = [FieldError(flags.get(e.field, e.field), e.message) for e in error.fields]
        raise RequestError(fields) from error
    finally:
        progress.clear()


def _upscale(**given: Any) -> None:
    """Enlarge the picture FILE, on an Imagine server or, where none runs, in this process.

    What the picture was made from stays in it. FILE may be any picture, or a JSON file that
    'imagine run --meta' wrote.
    """
    plugins = plugins_of(click.get_current_context())
    for file in enlarge(Options(**given), plugins):
        click.echo(file)


upscale = click.Command(
    "upscale",
    callback=_upscale,
    help=_upscale.__doc__,
    short_help="Enlarge a picture.",
    params=[
        click.Argument(["file"]),
        *SERVER_OPTIONS,
        click.Option(
            ["-o", "--output"],
            metavar="FILE",
            help="PNG file to save the larger picture as, a folder, or - for standard output. "
            "[default: beside FILE, like cat_2x.png, never replacing a file]",
        ),
        click.Option(
            ["--scale"],
            type=Finite(),
            metavar="FACTOR",
            help="How many times as large each side becomes.",
            show_default="2",
        ),
        click.Option(
            ["--size"],
            type=Size(),
            metavar="WIDTHxHEIGHT",
            help="The size of the larger picture in pixels, in place of --scale.",
        ),
        click.Option(
            ["--upscaler"],
            metavar="NAME",
            default=UpscaleRequest(image=b"").upscaler,
            help="What enlarges it, see 'imagine upscalers'.",
        ),
        click.Option(["--quiet"], is_flag=True, help="Show no progress."),
        *LOCAL_OPTIONS,
    ],
    context_settings={"show_default": True},
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine upscale`."""
    register(upscale)
