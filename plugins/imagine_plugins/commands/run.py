"""`imagine run`: make pictures on an Imagine server, or in this process where none runs."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from imagine_core import GenerationRequest, GenerationResult, StepEvent, hookimpl
from imagine_core.cli import plugins_of
from imagine_core.errors import ServerFailed, UnknownName
from imagine_core.pictures.files import read_all, reading
from imagine_core.settings import Settings, default_models_folder
from imagine_plugins.commands.shared.enhancing import with_better_prompt
from imagine_plugins.commands.shared.options import LOCAL_OPTIONS, SERVER_OPTIONS
from imagine_plugins.commands.shared.output import note
from imagine_plugins.commands.shared.progress import Progress
from imagine_plugins.commands.shared.saving import Gallery, open_gallery
from imagine_plugins.commands.shared.source import Source, choose_by_flags, in_flags, open_source
from imagine_plugins.commands.shared.values import Finite

if TYPE_CHECKING:
    from imagine_core import GenerationEvent
    from imagine_core.plugins import Plugins

DEFAULT_NEGATIVE = "ugly, deformed, blurry, low quality"
MAX_INPUT = 40 * 2**20
"""Bytes of an input picture: as base64 it has to fit into what a server takes."""

OPTIONS = [
    click.Option(["-m", "--model"], metavar="NAME", help="Model to use. [default: the server's]"),
    *SERVER_OPTIONS,
    click.Option(
        ["-o", "--output"],
        metavar="FILE",
        help="PNG file to save the picture as, a folder, or - for standard output. "
        "[default: the time, like 20231027_153045.png, never replacing a file]",
    ),
    click.Option(["--meta"], is_flag=True, help="Save a JSON file with all of it beside the PNG."),
    click.Option(["-w", "--width"], type=int, default=512, help="Width in pixels."),
    click.Option(["-h", "--height"], type=int, default=512, help="Height in pixels."),
    click.Option(["-n", "--steps"], type=int, default=25, help="Sampling steps."),
    click.Option(
        ["-g", "--guidance"],
        type=Finite(),
        default=7.0,
        help="How closely to follow the prompt; up to 1 takes half the time and no --neg.",
    ),
    click.Option(
        ["-d", "--strength"],
        type=Finite(),
        default=0.8,
        help="How much of --img to replace, 0.0 to 1.0.",
    ),
    click.Option(["-c", "--clip"], type=int, default=1, help="Clip skip: 1 is the last layer."),
    click.Option(["--sampler"], metavar="NAME", default="dpm++ 2m", help="See 'imagine samplers'."),
    click.Option(
        ["--schedule"], metavar="NAME", default="default", help="Noise schedule of the sampler."
    ),
    click.Option(
        ["-i", "--img"],
        metavar="FILE",
        help="Picture to start from; it is scaled to --width x --height.",
    ),
    click.Option(
        ["-f", "--hires"],
        type=Finite(),
        metavar="SCALE",
        help="Hires fix: refine at this times the size, 1.5 for example, and scale back.",
    ),
    click.Option(["--seed"], type=int, help="Repeats a picture. [default: random]"),
    click.Option(["--neg"], metavar="TEXT", default=DEFAULT_NEGATIVE, help="What to avoid."),
    click.Option(
        ["-s", "--stream"],
        type=click.IntRange(min=0),
        metavar="N",
        default=0,
        show_default=False,
        help="Save how the picture looks every N steps, in the output file.",
    ),
    click.Option(["--count"], type=int, default=1, help="Pictures to make, each with a new seed."),
    click.Option(
        ["--deterministic"],
        is_flag=True,
        help="The same bytes again whatever else the server does, a little slower.",
    ),
    click.Option(["--enhance"], is_flag=True, help="Have the prompt made better first."),
    click.Option(
        ["-e", "--enhancer"],
        metavar="NAME",
        help="Enhancer to do so, see 'imagine enhance --list'; implies --enhance.",
    ),
    click.Option(["--quiet"], is_flag=True, help="Show no progress."),
    *LOCAL_OPTIONS,
]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line of `imagine run`."""

    prompt: tuple[str, ...]
    model: str | None
    address: str | None
    api_key: str | None
    output: str | None
    meta: bool
    width: int
    height: int
    steps: int
    guidance: float
    strength: float
    clip: int
    sampler: str
    schedule: str
    img: str | None
    hires: float | None
    seed: int | None
    neg: str
    stream: int
    count: int
    deterministic: bool
    enhance: bool
    enhancer: str | None
    quiet: bool
    models: str | None
    device: str | None
    full_prec: bool

    def request(self) -> GenerationRequest:
        """What is asked for."""
        prompt = _printable(" ".join(self.prompt)).strip()
        if not prompt:
            raise click.UsageError("the prompt is empty")
        return GenerationRequest(
            prompt=prompt,
            negative_prompt=_printable(self.neg),
            model=self.model,
            width=self.width,
            height=self.height,
            steps=self.steps,
            guidance_scale=self.guidance,
            sampler=self.sampler,
            noise_schedule=self.schedule,
            seed=None if self.seed == -1 else self.seed,
            init_image=None if self.img is None else _read_input(Path(self.img)),
            strength=self.strength,
            clip_skip=self.clip,
            preview_every=self.stream,
            hires_scale=self.hires,
            images=self.count,
            deterministic=self.deterministic,
        )

    def settings(self) -> Settings:
        """What an engine in this process is built with."""
        models = default_models_folder() if self.models is None else Path(self.models)
        return Settings(
            models=models.expanduser(),
            device=self.device or "auto",
            full_precision=self.full_prec,
        )


def make_pictures(options: Options, plugins: Plugins) -> list[Path]:
    """Do what `options` say, and return the files of the finished pictures."""
    import asyncio

    gallery = open_gallery(
        options.output, document=options.meta, label=partial(_sampler_label, plugins)
    )
    request = options.request()
    where = choose_by_flags(
        address=options.address,
        api_key=options.api_key,
        flags=["models", "device", "full_prec"],
    )
    if options.enhance or options.enhancer is not None:
        request = with_better_prompt(request, plugins, options.enhancer, quiet=options.quiet)
    progress = Progress(sys.stderr, images=request.images, quiet=options.quiet)
    if not where.remote and not options.quiet:
        note(where.reason)
    if options.models is not None:
        _warn_of_folder(options.settings().models)
    started = time.monotonic()
    with open_source(where, options.settings(), plugins) as source, _leaving(gallery, progress):
        progress.say(f"asking {where.address}" if where.remote else "starting")
        show = partial(_show, request=request, gallery=gallery, progress=progress)
        result = asyncio.run(_follow(source, request, show))
        # The answer need not repeat what it was asked, above all not a picture of some MB.
        ran = replace(result.request, init_image=request.init_image)
        files = gallery.finish(replace(result, request=ran))
    for warning in result.warnings:
        note(f"Warning: {warning}")
    if progress.shown:
        seeds = ", ".join(str(picture.seed) for picture in result.images)
        note(f"seed {seeds}, {time.monotonic() - started:.1f} s")
    return files


async def _follow(
    source: Source, request: GenerationRequest, show: Callable[[GenerationEvent], None]
) -> GenerationResult:
    """Show the events of `request` up to its result, and return that."""
    events = cast("AsyncGenerator[GenerationEvent]", source.generate(request))
    async with aclosing(events):
        async for event in events:
            if isinstance(event, GenerationResult):
                return event
            show(event)
    raise ServerFailed("the answer ended before the picture was finished", lost=True)


def _show(
    event: GenerationEvent, *, request: GenerationRequest, gallery: Gallery, progress: Progress
) -> None:
    progress.update(event)
    if isinstance(event, StepEvent) and event.preview is not None:
        gallery.preview(event, request)


@contextmanager
def _leaving(gallery: Gallery, progress: Progress) -> Iterator[None]:
    """Tidy the terminal at the end, and say what a run that ends early leaves behind."""
    try:
        with in_flags():
            yield
    except BaseException:
        progress.clear()
        for line in gallery.left_behind():
            note(line)
        raise
    progress.clear()


def _warn_of_folder(models: Path) -> None:
    """Say so if the folder that was asked for cannot be looked into; bundled models serve still."""
    from imagine_core.models.catalogue import Catalogue

    problem = Catalogue(models).problem
    if problem is not None:
        note(f"Warning: {problem}")


def _sampler_label(plugins: Plugins, name: str) -> str:
    """The label of a sampler; its name where only the server knows it."""
    try:
        return plugins.samplers.get(name).label
    except UnknownName:
        return name


def _printable(text: str) -> str:
    """Arguments are bytes; what is no text in them cannot be sent or saved as such."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _read_input(path: Path) -> bytes:
    with reading(path) as file:
        return read_all(file, limit=MAX_INPUT)


def _run(**given: Any) -> None:
    """Make pictures from a PROMPT, on an Imagine server or, where none runs, in this process."""
    plugins = plugins_of(click.get_current_context())
    for file in make_pictures(Options(**given), plugins):
        click.echo(file)


run = click.Command(
    "run",
    callback=_run,
    help=_run.__doc__,
    short_help="Make pictures from a prompt.",
    params=[click.Argument(["prompt"], nargs=-1, required=True), *OPTIONS],
    context_settings={"show_default": True},
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine run`."""
    register(run)
