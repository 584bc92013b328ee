"""A live server over a slow fake model, and clients that disconnect."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from calls import SMALL, app_of, live
from imagine_core.engine import Engine
from imagine_core.settings import ServerSettings, Settings
from imagine_core.testing import FakePlugin, build_test_engine

STEP = 0.02
LONG = {**SMALL, "steps": 1000}


class Server:
    """A live server over a fake model that takes `STEP` seconds a step."""

    def __init__(
        self,
        folder: Path,
        *,
        server: ServerSettings | None = None,
        extra: Sequence[tuple[str, object]] = (),
        **settings: Any,
    ) -> None:
        self.settings = server
        self.fake = FakePlugin()
        self.fake.loader.before = lambda rows: time.sleep(STEP)
        self.engine: Engine = build_test_engine(
            folder, self.fake, settings=Settings(models=folder, **settings), extra=extra
        )
        self.url = ""

    @property
    def forwards(self) -> int:
        """Forwards that the model has computed."""
        return sum(len(model.forwards) for model in self.fake.loader.models)

    def phases(self) -> list[str]:
        """The phases of all jobs."""
        return [job.phase for job in self.engine.status().jobs]

    @contextmanager
    def running(self) -> Iterator[Server]:
        """The server, started and with its device ready."""
        stop = partial(self.engine.close, grace=0)
        with live(app_of(self.engine, self.settings), on_stop=stop) as self.url:
            wait_until(lambda: self.engine.status().ready)
            yield self

    def post(self, body: dict[str, Any], *, receive_buffer: int | None = None) -> socket.socket:
        """A connection with `body` sent, and nothing read."""
        data = json.dumps(body).encode()
        host, port = self.url.removeprefix("http://").split(":")
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect((host, int(port)))
        head = f"POST /generate HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data)
        return connection


def wait_until(true: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.005)
