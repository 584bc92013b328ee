"""`imagine run`: make pictures on an Imagine server, or in this process where none runs."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from imagine_core import GenerationRequest, GenerationResult, StepEvent, hookimpl
from imagine_core.cli import plugins_of
from imagine_core.errors import ServerFailed, UnknownName
from imagine_core.fields import FIELDS, idle, lacks, with_pictures
from imagine_core.lora_tags import untagged
from imagine_core.settings import Settings, default_models_folder
from imagine_plugins.commands.shared.enhancing import with_better_prompt
from imagine_plugins.commands.shared.options import (
    LOCAL_OPTIONS,
    SERVER_OPTIONS,
    on_command_line,
)
from imagine_plugins.commands.shared.output import note
from imagine_plugins.commands.shared.progress import Progress
from imagine_plugins.commands.shared.request import (
    changed_files,
    field_options,
    request_again,
    request_of,
)
from imagine_plugins.commands.shared.saving import Gallery, open_gallery
from imagine_plugins.commands.shared.source import Source, choose_by_flags, in_flags, open_source

if TYPE_CHECKING:
    from imagine_core import GenerationEvent
    from imagine_core.plugins import Plugins

OPTIONS = [
    *SERVER_OPTIONS,
    click.Option(
        ["-o", "--output"],
        metavar="FILE",
        help="PNG file to save the picture as, a folder, or - for standard output. "
        "[default: the time, like 20231027_153045.png, never replacing a file]",
    ),
    click.Option(["--meta"], is_flag=True, help="Save a JSON file with all of it beside the PNG."),
    *field_options(),
    click.Option(
        ["--again"],
        metavar="FILE",
        help="Draw with the settings of this picture, LoRAs included. Flags and a PROMPT win; "
        "--lora none leaves its LoRAs out.",
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
    fields: Mapping[str, Any]
    address: str | None
    api_key: str | None
    output: str | None
    meta: bool
    again: str | None
    enhance: bool
    enhancer: str | None
    quiet: bool
    models: str | None
    device: str | None
    full_prec: bool

    def request(self) -> GenerationRequest:
        """What is asked for."""
        prompt = " ".join(self.prompt)
        if self.again is None:
            if not self.prompt:
                raise click.UsageError("Missing argument 'PROMPT...'.")
            return request_of(prompt, self.fields)
        request, remarks = request_again(
            Path(self.again), prompt, self.fields, is_given=on_command_line
        )
        for remark in remarks:
            note(f"Warning: {remark}")
        return request

    def settings(self) -> Settings:
        """The settings of an engine in this process."""
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
        request, _ = untagged(request)  # where no enhancer rewrites them
        request = with_better_prompt(request, plugins, options.enhancer, quiet=options.quiet)
    request = _without_idle(request)
    progress = Progress(sys.stderr, images=request.images, quiet=options.quiet)
    if not where.remote and not options.quiet:
        note(where.reason)
    if options.models is not None:
        _warn_of_folder(options.settings().models)
    started = time.monotonic()
    with (
        open_source(where, options.settings(), plugins) as source,
        _leaving(gallery, progress, request),
    ):
        progress.say(f"asking {where.address}" if where.remote else "starting")
        show = partial(_show, request=request, gallery=gallery, progress=progress)
        result = asyncio.run(_follow(source, request, show))
        # The answer need not repeat what it was asked, above all not a picture of some MB.
        ran = with_pictures(result.request, request)
        files = gallery.finish(replace(result, request=ran))
    changes = () if options.again is None else changed_files(Path(options.again), result)
    for warning in (*result.warnings, *changes):
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
def _leaving(gallery: Gallery, progress: Progress, request: GenerationRequest) -> Iterator[None]:
    """Tidy the terminal at the end, and say what a run that ends early leaves behind."""
    try:
        with in_flags(request):
            yield
    except BaseException:
        progress.clear()
        for line in gallery.left_behind():
            note(line)
        raise
    progress.clear()


def _without_idle(request: GenerationRequest) -> GenerationRequest:
    """`request` without what changes nothing, which is told under the names of flags."""
    flags = {field.name: field.flag for field in FIELDS}
    unused = list(idle(request))
    for field in FIELDS:
        if field in unused or (on_command_line(field.parameter) and lacks(request, field)):
            needed = " or ".join(flags[name] for name in field.needs)
            note(f"Warning: {field.flag} changes nothing without {needed}")
    return replace(request, **{field.name: field.default for field in unused})


def _warn_of_folder(models: Path) -> None:
    """Say so if the folder that was asked for cannot be looked into; bundled models serve still."""
    from imagine_core.models.catalogue import Catalogue

    problem = Catalogue(models).problem()
    if problem is not None:
        note(f"Warning: {problem}")


def _sampler_label(plugins: Plugins, name: str) -> str:
    """The label of a sampler; its name where only the server knows it."""
    try:
        return plugins.samplers.get(name).label
    except UnknownName:
        return name


def _run(**given: Any) -> None:
    """Make pictures from a PROMPT, on an Imagine server or, where none runs, in this process."""
    plugins = plugins_of(click.get_current_context())
    own = {each.name: given.pop(each.name) for each in fields(Options) if each.name in given}
    for file in make_pictures(Options(**own, fields=given), plugins):
        click.echo(file)


run = click.Command(
    "run",
    callback=_run,
    help=_run.__doc__,
    short_help="Make pictures from a prompt.",
    params=[click.Argument(["prompt"], nargs=-1), *OPTIONS],
    context_settings={"show_default": True},
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine run`."""
    register(run)
