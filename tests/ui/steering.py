"""The line between the page and its server, which tests hold up and cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from gates import PATIENCE


class Line:
    """A line to a server, with an address of its own, that can be cut and mended."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: set[socket.socket] = set()
        self._up = True
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.answers = threading.Event()
        """While it is not set, nothing that the server says arrives."""
        self.answers.set()

    @contextlib.contextmanager
    def running(self) -> Iterator[Line]:
        """The line, for as long as the block runs."""
        thread = threading.Thread(target=self._accept)
        thread.start()
        try:
            yield self
        finally:
            self.answers.set()
            self._listener.shutdown(socket.SHUT_RDWR)
            self.cut()
            thread.join(PATIENCE)
            self._listener.close()

    def cut(self) -> None:
        """End all connections, and take no more."""
        self._up = False
        self.hang_up()

    def mend(self) -> None:
        """Take connections again."""
        self._up = True

    def hang_up(self) -> None:
        """End all connections that there are."""
        for end in list(self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                page, _ = self._listener.accept()
                if self._up:
                    self._connect(page)
                else:
                    page.close()

    def _connect(self, page: socket.socket) -> None:
        server = socket.create_connection(self._server)
        self._ends |= {page, server}
        for source, sink in ((page, server), (server, page)):
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source.getpeername() == self._server:
                    self.answers.wait(PATIENCE)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        self._ends.discard(source)
        source.close()
