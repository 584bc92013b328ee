"""`imagine serve`: make pictures for clients over HTTP."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagine_core import hookimpl
from imagine_core.cli import FAILED, plugins_of
from imagine_core.errors import ImagineError
from imagine_core.network import is_loopback
from imagine_core.settings import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    Limits,
    ServerSettings,
    Settings,
    default_models_folder,
)
from imagine_core.settings.options import shared
from imagine_plugins.commands.shared.options import OFFLINE_OPTION
from imagine_plugins.commands.shared.values import Duration, Key, Names

if TYPE_CHECKING:
    import asyncio
    import socket

    from imagine_core.engine import Engine
    from imagine_core.plugins import Plugins
    from imagine_core.service import Service
    from imagine_plugins.server.readiness import Readiness
    from imagine_plugins.server.serving import GracefulServer

POLL_SECONDS = 0.05
LAST_WORDS_SECONDS = 2.0
"""Seconds for the step in progress to end after the grace time."""


OPTIONS = [
    click.Option(["--host"], default=DEFAULT_HOST, help="Address to listen at."),
    click.Option(
        ["-m", "--models"],
        type=click.Path(path_type=Path),
        default=None,
        help="Folder of the models.",
        show_default="~/.imagine/models",
    ),
    click.Option(
        ["-p", "--port"],
        type=click.IntRange(0, 65535),
        default=DEFAULT_PORT,
        help="Port to listen at; 0 takes any free one.",
    ),
    click.Option(
        ["-d", "--device"],
        metavar="NAME",
        default="auto",
        help="Device to compute on: cpu, cuda, rocm, mps, or auto for the best of them.",
    ),
    click.Option(
        ["-f", "--full_prec", "--full-prec", "full_precision"],
        is_flag=True,
        help="Compute in float32 throughout.",
    ),
    click.Option(
        ["--default-model"],
        metavar="NAME",
        help="Model of requests that name none; loaded at the start.",
    ),
    click.Option(
        ["--preload"],
        type=Names(),
        default="",
        help="Models to load at the start: NAME,NAME,...",
    ),
    click.Option(
        ["--max-queue"],
        type=click.IntRange(1),
        default=Limits().queue,
        help="Requests that may wait; further ones are told to come back.",
    ),
    click.Option(
        ["--max-rows"],
        type=click.IntRange(1),
        help="Most rows of one forward; a guided picture takes two.",
        show_default="measured",
    ),
    click.Option(
        ["--keep-alive"],
        type=Duration(),
        default="5m",
        help="How long an idle model stays loaded: 30s, 5m, 1h; 0 unloads at once, -1 never.",
    ),
    click.Option(
        ["--grace"],
        type=Duration(forever=False),
        default="5s",
        help="How long pictures in progress may take after Ctrl-C or SIGTERM.",
    ),
    click.Option(
        ["--origins"],
        type=Names(),
        default="",
        help="Web pages that may call, beside those of this machine: https://example.com,...",
    ),
    click.Option(
        ["--hosts"],
        type=Names(),
        default="",
        help="Names that the server has, beside this machine's: example.com,*.example.com,...",
    ),
    click.Option(
        ["--api-key"],
        type=Key(),
        metavar="KEY",
        help="Key that clients must send.",
    ),
    click.Option(
        ["--keep-results"],
        type=Duration(forever=False),
        default="10m",
        help="How long results are kept for clients that left and may come back; 0 keeps none.",
    ),
    click.Option(
        ["--heartbeat"],
        type=Duration(forever=False),
        default="10s",
        help="How long a stream may be silent before it sends a blank line; 0 sends none.",
    ),
    click.Option(
        ["--strict-models"],
        is_flag=True,
        help="Refuse model names of cloud services, such as dall-e-3, instead of drawing with the "
        "default model.",
    ),
    click.Option(
        ["--log-format"],
        type=click.Choice(["text", "json"]),
        default="text",
        help="How the log is written: for people, or one JSON object a line.",
    ),
    OFFLINE_OPTION,
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The flags of `imagine serve`."""

    host: str
    models: Path | None
    port: int
    device: str
    full_precision: bool
    default_model: str | None
    preload: tuple[str, ...]
    max_queue: int
    max_rows: int | None
    keep_alive: float
    grace: float
    origins: tuple[str, ...]
    hosts: tuple[str, ...]
    api_key: str | None
    keep_results: float
    heartbeat: float
    strict_models: bool
    log_format: str

    @property
    def engine(self) -> Settings:
        """The settings of the engine."""
        return Settings(
            models=(self.models or default_models_folder()).expanduser(),
            device=self.device,
            full_precision=self.full_precision,
            default_model=self.default_model,
            preload=self.preload,
            keep_alive=self.keep_alive,
            max_rows=self.max_rows,
            limits=replace(Limits(), queue=self.max_queue),
        )

    @property
    def server(self) -> ServerSettings:
        """The settings of the HTTP server."""
        return ServerSettings(
            host=self.host,
            port=self.port,
            api_key=self.api_key or None,
            origins=self.origins,
            hosts=self.hosts,
            keep_results=self.keep_results,
            heartbeat=self.heartbeat,
            strict_models=self.strict_models,
        )


def _serve(**options: object) -> int:
    """Serve pictures over HTTP until Ctrl-C."""
    return serve(Options(**options), plugins_of(click.get_current_context()))  # type: ignore[arg-type]


def serve(options: Options, plugins: Plugins) -> int:
    """Serve until a signal arrives; returns the exit code.

    Raises:
        ImagineError: The server cannot start.
    """
    from imagine_core.engine import build_engine
    from imagine_core.service import Service
    from imagine_core.web.app import build_app
    from imagine_plugins.server.logs import start_logging
    from imagine_plugins.server.readiness import readiness_from_environment
    from imagine_plugins.server.serving import build_server, listen

    readiness = readiness_from_environment()
    if options.device.casefold() != "auto":
        plugins.devices.get(options.device)  # refuse an unknown name before the start
    engine = build_engine(options.engine, plugins)
    _check_models(engine)
    service = Service(engine=engine, plugins=plugins, settings=options.server)
    app = build_app(service)
    sock = listen(options.host, options.port)
    say = start_logging(options.log_format)
    _warn(options, engine, sock, say)
    announcer = Announcer(service, sock, readiness, say)

    def stop() -> None:
        readiness.stopping(within=options.grace)
        engine.close(grace=options.grace)

    server = build_server(
        app,
        grace=options.grace,
        on_started=lambda: announcer.start(server),
        on_stop=stop,
        abandon=partial(_is_preparing, engine),
    )
    server.run(sockets=[sock])
    server.stopping.join(0 if _is_preparing(engine) else LAST_WORDS_SECONDS)
    if server.stopping.is_alive():
        # The device is in the middle of a step, or a model or torch of being loaded: nothing can
        # cut that short, and Python would wait for it before it exits.
        sys.stderr.flush()
        os._exit(announcer.exit_code)
    return announcer.exit_code


class Announcer:
    """Reports the addresses and the device of the server once the device is chosen.

    The socket answers earlier: choosing a device takes as long as importing torch.
    """

    def __init__(
        self,
        service: Service,
        sock: socket.socket,
        readiness: Readiness,
        say: Callable[[str], None],
    ) -> None:
        from imagine_plugins.server.serving import shown_address

        self._readiness, self._say = readiness, say
        self._service, self.engine = service, service.engine
        self.address = shown_address(sock)
        self.exit_code = 0
        self._task: asyncio.Task[None] | None = None

    def start(self, server: GracefulServer) -> None:
        """Begin to poll the engine; stops `server` if it finds no device."""
        import asyncio

        self._task = asyncio.create_task(self._announce(server))

    async def _announce(self, server: GracefulServer) -> None:
        import asyncio

        while (status := self.engine.status()).device is None and status.failure is None:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)  # the engine has no event for this
        if status.failure is not None:
            self._say(f"Error: {status.failure}")
            self.exit_code = FAILED
            server.should_exit = True
            return
        count = len(await asyncio.to_thread(self.engine.catalogue.usable))
        if server.should_exit:
            return  # do not announce a server that is stopping
        models = "1 model" if count == 1 else f"{count} models"
        said = f"listening on {self.address}, device {status.device} ({status.dtype}), {models}"
        self._readiness.ready(said)
        self._say(said)
        for line in api_lines(self._service, self.address):
            self._say(line)


def api_lines(service: Service, address: str) -> Iterator[str]:
    """What to enter into programs that know an API of the server: address, key and model."""
    any_address = address.replace("//0.0.0.0:", "//localhost:").replace("//[::]:", "//localhost:")
    with suppress(ImagineError):
        model = service.engine.catalogue.default().name
        for api in service.plugins.apis:
            key = api.no_key if service.settings.api_key is None else api.key
            programs = ", ".join(api.programs)
            yield f"{api.name}: {any_address}{api.path}, {key}, model {model} ({programs})"


def _is_preparing(engine: Engine) -> bool:
    """Whether the engine still imports torch or chooses its device, and no request waits."""
    status = engine.status()
    return status.device is None and status.failure is None and not status.jobs


def _check_models(engine: Engine) -> None:
    """Raise if a configured model is missing: every request for it would fail."""
    if engine.settings.default_model is not None:
        engine.catalogue.default()
    for name in engine.settings.preload:
        engine.catalogue.get(name)


def _warn(
    options: Options, engine: Engine, sock: socket.socket, say: Callable[[str], None]
) -> None:
    """Warn of settings that may not be intended."""
    if (problem := engine.catalogue.problem()) is not None:
        say(f"warning: {problem}")
    if not options.api_key and not is_loopback(sock.getsockname()[0]):
        say(
            "warning: everybody on this network may use this server; "
            "--api-key KEY asks for a key, --host 127.0.0.1 keeps it to this machine"
        )


command = click.Command(
    "serve",
    callback=_serve,
    help=_serve.__doc__,
    params=[shared(option) for option in OPTIONS],
    context_settings={"show_default": True},
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine serve`."""
    register(command)
