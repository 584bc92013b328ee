"""`imagine pull`: fetch a model or what changes one from a hub or a URL into the models folder."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from imagine_core import hookimpl
from imagine_core.cli import plugins_of
from imagine_core.settings import Settings, default_models_folder
from imagine_plugins.commands.shared.options import OFFLINE_OPTION, models_option
from imagine_plugins.commands.shared.output import file_size, note
from imagine_plugins.commands.shared.progress import Progress, bar, duration

REDRAW_SECONDS = 0.1
WARM_UP_SECONDS = 1.0
"""Until then the measured speed means little."""


class Transfer:
    """Shows how much of a download is there, how fast it comes, and how long it will take.

    Args:
        progress: The line to show it on.
        clock: Seconds, from any start.
    """

    def __init__(self, progress: Progress, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress = progress
        self._clock = clock
        self._total: int | None = None
        self._done = 0
        self._first: tuple[float, int] | None = None
        self._drawn = float("-inf")

    def expect(self, total: int | None) -> None:
        """Expect `total` bytes in all; None if unknown."""
        self._total = total

    def advance(self, size: int) -> None:
        """Count `size` more bytes; negative if a download starts again."""
        now = self._clock()
        self._done += size
        if self._first is None or size < 0:
            self._first = (
                now,
                self._done,
            )  # bytes of an earlier attempt do not count for the speed
        if now - self._drawn >= REDRAW_SECONDS or self._done == self._total:
            self._drawn = now
            self._progress.say(self._line(now))

    def say(self, text: str) -> None:
        """Show `text` until more comes."""
        self._progress.say(text)

    def _line(self, now: float) -> str:
        done = file_size(self._done)
        since, before = self._first or (now, self._done)
        seconds = now - since
        speed = (self._done - before) / seconds if seconds >= WARM_UP_SECONDS else 0
        pace = f"  {file_size(int(speed))}/s" if speed > 0 else ""
        if not self._total:
            return f"{done}{pace}"
        left = f"  {duration((self._total - self._done) / speed)} left" if speed > 0 else ""
        return f"{bar(self._done / self._total)} {done} of {file_size(self._total)}{pace}{left}"


def pull(
    source: str, *, name: str | None, models: str | None, revision: str | None, quiet: bool
) -> None:
    """Fetch a model, or what changes one (a LoRA, an embedding, a VAE), from SOURCE.

    That is OWNER/NAME of a Hugging Face repository, OWNER/NAME/FILE, or a URL.

    A download that was interrupted goes on where it stopped. Only safetensors are taken, and only
    what Imagine can use; HF_TOKEN is sent to the hub, HF_ENDPOINT names another one.
    """
    from imagine_plugins.pulling.download import Downloader
    from imagine_plugins.pulling.hub import ENDPOINT, plan
    from imagine_plugins.pulling.pull import Puller
    from imagine_plugins.pulling.retries import Retries
    from imagine_plugins.pulling.web import Web

    folder = default_models_folder() if models is None else Path(models).expanduser()
    plugins = plugins_of(click.get_current_context())
    catalogue = plugins.catalogue(Settings(models=folder))
    endpoint = (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
    progress = Progress(sys.stderr, quiet=quiet)
    token = os.environ.get("HF_TOKEN", "").strip() or None
    web = Web(endpoint=endpoint, token=token, retries=Retries(progress.say))
    transfer = Transfer(progress)
    puller = Puller(
        folder,
        downloader=Downloader(web, transfer),
        judge=catalogue.recognise,
        watcher=transfer,
    )
    try:
        progress.say("looking for it")
        info = puller.pull(plan(source, web, endpoint=endpoint, revision=revision), name=name)
    finally:
        progress.clear()
    if not quiet:
        note(f"{info.family}, {file_size(info.size)}, in {info.path.parent}")
    click.echo(info.name)


command = click.Command(
    "pull",
    callback=pull,
    help=pull.__doc__,
    short_help="Fetch a model or what changes one.",
    params=[
        click.Argument(["source"]),
        click.Option(["--name"], metavar="NAME", help="What to call it. [default: as its source]"),
        models_option(),
        click.Option(
            ["--revision"],
            metavar="NAME",
            help="Branch, tag or commit of the repository. [default: main]",
        ),
        click.Option(["--quiet"], is_flag=True, help="Show no progress."),
        OFFLINE_OPTION,
    ],
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine pull`."""
    register(command)
