"""Runs an HTTP application until a signal stops it: its socket, its signals, its timeouts."""

from __future__ import annotations

import asyncio
import errno
import http
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from imagine_core.errors import Busy, ImagineError, MalformedRequest, SettingsError, ShuttingDown
from imagine_core.web.app import Sent, error_response
from imagine_plugins.server.connections import Connections, most_connections

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

log = logging.getLogger("imagine")

BACKLOG = 2048
IDLE_SECONDS = 75
"""Seconds that an idle connection is kept, longer than most clients wait to reuse it."""

HEADER_SECONDS = 20.0
"""Seconds for the head of a request to arrive."""

LAST_WORDS_SECONDS = 5
"""Seconds after the grace time for the last lines of streams to be sent."""

PROXIES = "127.0.0.1,::1,::ffff:127.0.0.1"
"""Addresses whose X-Forwarded-For and X-Forwarded-Proto are believed: those of this machine, as
sockets of either kind show them. FORWARDED_ALLOW_IPS, which uvicorn reads too, replaces them."""

POLL_SECONDS = 0.05
"""How often a stopping server checks whether its work is done."""


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection on which the head of a request never ends.

    uvicorn's own timer starts after the first answer, and any byte stops it. Malformed requests
    get the JSON error that all other errors have.

    Args:
        connections: All connections of the server.
        options: uvicorn's.
    """

    _head_due: asyncio.TimerHandle | None = None

    def __init__(self, *, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._connections = connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the head of the first request."""
        super().connection_made(transport)
        self._expect_head()
        if not self._connections.enter(self):
            self._refuse(Busy("this server has no connection left; try again later"))

    def data_received(self, data: bytes) -> None:
        """Receive a part of a request."""
        super().data_received(data)
        if self._at_work():
            self._forget_head()
            self._connections.use(self)
        elif self._head_due is None:
            self._expect_head()

    def on_response_complete(self) -> None:
        """Mark the connection as idle, unless the next request has arrived already."""
        super().on_response_complete()
        if not self._at_work():
            self._connections.rest(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer, and forget the connection."""
        self._forget_head()
        self._connections.leave(self)
        super().connection_lost(exc)

    def make_room(self) -> None:
        """Close this idle connection in favour of a new one."""
        self.timeout_keep_alive_handler()

    def _at_work(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        return cycle is not None and not cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request; uvicorn calls this while it handles h11's error."""
        # h11 quotes the line, which may hold a key, behind ": bytearray(".
        problem = str(sys.exception() or msg).partition(": bytearray(")[0]
        self._refuse(MalformedRequest(problem))

    def _refuse(self, error: ImagineError) -> None:
        """Answer with `error`, and close the connection."""
        response = error_response(error)
        response.headers["Connection"] = "close"
        status = http.HTTPStatus(response.status_code)
        head = h11.Response(
            status_code=status, headers=response.raw_headers, reason=status.phrase.encode()
        )
        try:
            for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            pass  # the answer has begun, and a second one cannot follow
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: a request to upgrade may be answered in HTTP/1.1 (RFC 9110, 7.8)."""

    def _expect_head(self) -> None:
        # uvicorn's own handler closes a connection in every state.
        self._head_due = self.loop.call_later(HEADER_SECONDS, self.timeout_keep_alive_handler)

    def _forget_head(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None


class Cancellation:
    """Ends requests that uvicorn cancels after the grace time, without a traceback in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sent."""
        answer = Sent(send)
        try:
            await self.app(scope, receive, answer)
        except asyncio.CancelledError:
            log.info("a client had not taken its answer when the server stopped")
            if scope["type"] == "http" and not answer.begun:
                await error_response(ShuttingDown())(scope, receive, send)


class GracefulServer(uvicorn.Server):
    """A server that one signal stops gracefully, and a second one at once.

    uvicorn would raise the signal again, which a service manager takes for a crash.

    Args:
        config: uvicorn's.
        grace: Seconds that requests in progress may take when the server stops.
        on_started: Called when the socket is open, on the event loop.
        on_stop: Called on a thread when the server stops, while streams can still send.
        abandon: Whether `on_stop` has nothing to finish, so that the server does not wait for it.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        grace: float,
        on_started: Callable[[], None],
        on_stop: Callable[[], None],
        abandon: Callable[[], bool],
    ) -> None:
        super().__init__(config)
        self._grace = grace
        self._abandon = abandon
        self._on_started = on_started
        self.stopping = threading.Thread(target=on_stop, name="imagine-stop", daemon=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; exit at once if the server is stopping already."""
        del frame
        if self.should_exit:
            os._exit(128 + sig)
        if sig == signal.SIGINT and sys.stderr.isatty():
            sys.stderr.write("\nfinishing what is in progress; Ctrl-C again stops at once\n")
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections."""
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close when all work is done, or the grace time is over.

        Until then the server still accepts connections, and the application answers them with 503
        and Retry-After, which a refused connection could not tell.
        """
        self.stopping.start()
        began = time.monotonic()
        while self._busy(time.monotonic() - began):  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)  # uvicorn has no event for this
        await super().shutdown(sockets)

    def _busy(self, seconds: float) -> bool:
        """Whether any request, attended or detached, is still running after `seconds`.

        Requests beyond the grace time end with their step, and the loop must run to tell them.
        """
        if self.stopping.is_alive() and not self._abandon():
            return seconds < self._grace + LAST_WORDS_SECONDS
        return bool(self.server_state.tasks) and seconds < self._grace


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; its errors say how to fix them.

    Raises:
        SettingsError: `host` or `port` cannot be listened at.
        ImagineError: The port is taken.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return _bind(family, kind, address)
    except OSError as error:
        raise _explain(error, host, port) from error


def _bind(family: int, kind: int, address: Any) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        if os.name == "posix":  # on Windows this would let two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _explain(error: OSError, host: str, port: int) -> ImagineError:
    if error.errno == errno.EADDRINUSE:
        hint = ""
        if sys.platform == "darwin" and port == 5000:
            hint = " (AirPlay Receiver takes it on a Mac)"
        return ImagineError(f"port {port} is taken{hint}; choose another one with --port")
    if error.errno in (errno.EACCES, errno.EPERM):
        return SettingsError(f"port {port} needs more rights; choose one above 1023 with --port")
    return SettingsError(f"--host {host!r} is no address of this machine: {error.strerror}")


def shown_address(sock: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def build_server(
    app: ASGIApp,
    *,
    grace: float,
    on_started: Callable[[], None],
    on_stop: Callable[[], None],
    abandon: Callable[[], bool] = lambda: False,
) -> GracefulServer:
    """A server for `app`; see `GracefulServer`."""
    protocol = partial(PatientProtocol, connections=Connections(most_connections()))
    config = uvicorn.Config(
        Cancellation(app),
        http=cast("type[PatientProtocol]", protocol),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,  # they tell callers apart
        forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", PROXIES),
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=LAST_WORDS_SECONDS,
    )
    return GracefulServer(
        config, grace=grace, on_started=on_started, on_stop=on_stop, abandon=abandon
    )
