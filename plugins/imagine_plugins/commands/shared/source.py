"""Chooses between an Imagine server and an engine in this process, and opens either."""

from __future__ import annotations

import logging
import os
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import click

from imagine_core.cli import INTERRUPTED
from imagine_core.errors import (
    FieldError,
    GenerationFailed,
    RequestError,
    ServerFailed,
    Unauthorized,
)
from imagine_core.fields import FIELDS
from imagine_core.settings import DEFAULT_PORT, Settings
from imagine_plugins.commands.shared.options import on_command_line
from imagine_plugins.commands.shared.output import note
from imagine_plugins.commands.shared.parameters import InputFile

if TYPE_CHECKING:
    from imagine_core.engine import Engine
    from imagine_core.plugins import Plugins
    from imagine_core.types import (
        GenerationEvent,
        GenerationRequest,
        UpscaleEvent,
        UpscaleRequest,
    )
    from imagine_plugins.dialects.native.client import NativeClient

DEFAULT_ADDRESS = ("127.0.0.1", DEFAULT_PORT)
CONNECT, ANSWER = 0.2, 2.0
"""Seconds to wait for a connection to this machine, and for a busy server's first words."""

PATIENCE = 2.0
"""Seconds that an interrupted engine has to finish its step."""

FLAGS = {field.name: field.flag if field.flags else f"the {field.wire}" for field in FIELDS}


class Source(Protocol):
    """Makes pictures, here or on a server; closing the iterator cancels."""

    def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """The events of one request; the last has the pictures."""

    def upscale(self, request: UpscaleRequest) -> AsyncIterator[UpscaleEvent]:
        """The events of enlarging a picture; the last has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where the work is done: at the server `address`; in this process, for `reason`, if None."""

    address: str | None
    api_key: str | None = field(default=None, repr=False)
    reason: str = ""

    @property
    def remote(self) -> bool:
        """True if a server does the work."""
        return self.address is not None

    def client(self) -> NativeClient:
        """The client of the server."""
        from imagine_plugins.dialects.native.client import NativeClient

        if self.address is None:
            raise RuntimeError("there is no server")
        return NativeClient(self.address, api_key=self.api_key)


def choose(
    *,
    address: str | None,
    api_key: str | None,
    here: bool,
    doing: str = "generating",
    probe: Callable[[], bool] | None = None,
) -> Where:
    """The named server; else the one on this machine, if running; else this process.

    Args:
        address: The value of `-a`.
        api_key: The key of the server.
        here: Whether an option applies only to this process.
        doing: What is done, for the reason.
        probe: Tells whether a server runs at the default address.
    """
    if address is not None and here:
        raise click.UsageError("-a asks a server, which has its own models, device and precision")
    default = "{}:{}".format(*DEFAULT_ADDRESS)
    if address is not None:
        return Where(address=address, api_key=api_key)
    if here:
        return Where(address=None, reason=f"{doing} in this process")
    if (probe or server_runs_here)():
        return Where(address=default, api_key=api_key)
    return Where(address=None, reason=f"no server at {default}: {doing} in this process")


def choose_by_flags(
    *,
    address: str | None,
    api_key: str | None,
    flags: Sequence[str],
    doing: str = "generating",
) -> Where:
    """`choose`, with options that may come from the settings.

    Settings describe this process and the server; only flags choose between them.

    Args:
        address: The server's, from any source.
        api_key: Its key, likewise.
        flags: The options that apply only to this process.
        doing: What is done, for the reason.
    """
    here = on_command_line(*flags)
    if here and not on_command_line("address"):
        address = None
    return choose(address=address, api_key=api_key, here=here, doing=doing)


def server_runs_here() -> bool:
    """True if an Imagine server listens at the default address of this machine.

    Other programs may listen there: on macOS, AirPlay takes port 5000. Every answer of Imagine is
    JSON. This uses a bare socket, because an HTTP client takes longer to import than to ask.
    """
    try:
        connection = socket.create_connection(DEFAULT_ADDRESS, timeout=CONNECT)
    except OSError:
        return False
    with connection:
        connection.settimeout(ANSWER)
        try:
            connection.sendall(b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
            return b"application/json" in connection.recv(4096).lower()
        except TimeoutError:
            return True  # perhaps busy; if not, the client reports it
        except OSError:
            return False


@contextmanager
def open_source(where: Where, settings: Settings, plugins: Plugins) -> Iterator[Source]:
    """The server's client, or an engine for the duration of the block."""
    if where.remote:
        yield where.client()
        return
    with local_engine(settings, plugins) as engine:
        yield engine


@contextmanager
def local_engine(settings: Settings, plugins: Plugins) -> Iterator[Engine]:
    """An engine in this process, closed at the end of the block."""
    from imagine_core.engine import build_engine

    _silence_libraries()
    engine = build_engine(settings, plugins)
    try:
        yield engine
    except GenerationFailed as error:  # its text names a log, which is silent here
        raise GenerationFailed(f"{error} (IMAGINE_DEBUG=1 shows the log)") from error
    except KeyboardInterrupt:
        if not _closes(engine, within=PATIENCE):
            # A step or a load cannot be interrupted, and Python would wait for its thread before
            # it exits.
            note("Interrupted")
            os._exit(INTERRUPTED)
        raise
    finally:
        engine.close(grace=0)


def _closes(engine: Engine, *, within: float) -> bool:
    """Close `engine`; False if that takes longer than `within` seconds."""
    closing = threading.Thread(target=engine.close, kwargs={"grace": 0.0}, daemon=True)
    closing.start()
    closing.join(within)
    return not closing.is_alive()


def _silence_libraries() -> None:
    """Hide what libraries log and warn of: errors are reported to users in our words."""
    if not os.environ.get("IMAGINE_DEBUG"):
        logging.getLogger().addHandler(logging.NullHandler())
        warnings.simplefilter("ignore")


def server_of(*, address: str | None, api_key: str | None) -> Where:
    """The named server, or the one on this machine; an error without one."""
    where = choose(address=address, api_key=api_key, here=False)
    if not where.remote:
        default = "{}:{}".format(*DEFAULT_ADDRESS)
        raise ServerFailed(
            f"no server runs at {default}; start one with 'imagine serve'", lost=True
        )
    return where


def ask(question: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """The answer of a server's client; errors name flags instead of fields of the API."""
    import asyncio

    with in_flags():
        return asyncio.run(question)


def ask_for_details(
    where: Where, what: Literal["models", "samplers", "upscalers"], **query: str
) -> list[dict[str, Any]]:
    """The details of a server's models, samplers or upscalers; only the names if it gives none."""
    client = where.client()
    reply = ask(getattr(client, what)(**query))
    found = reply.get("details") or [{"name": name} for name in reply.get(what, ())]
    if not all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in found):
        raise ServerFailed(f"the server at {where.address} has no list of {what} that makes sense")
    return found


@contextmanager
def in_flags(request: GenerationRequest | None = None) -> Iterator[None]:
    """Translate errors into the words of the command line, with the files that `request` sent."""
    try:
        yield
    except RequestError as error:
        raise RequestError(_in_flags(each, request) for each in error.fields) from error
    except Unauthorized as error:
        raise ServerFailed(
            "the server wants its API key, and got none or another one: "
            "give it with --api-key or in IMAGINE_API_KEY"
        ) from error


def _in_flags(error: FieldError, request: GenerationRequest | None) -> FieldError:
    flag = FLAGS.get(error.field, f"--{error.field}")
    sent: Any = getattr(request, error.field, None)
    if isinstance(sent, InputFile):
        return FieldError(f"{flag} {sent.path}", error.message)
    for use in (sent or ()) if error.field == "controls" else ():
        whose = f"the picture of {use.name[:80]!r} "
        if error.message.startswith(whose):
            same = [each.image for each in sent if each.name == use.name]
            files = dict.fromkeys(file.path for file in same if isinstance(file, InputFile))
            return FieldError(f"{flag} {' or '.join(files)}", error.message.removeprefix(whose))
    return FieldError(flag, error.message)
