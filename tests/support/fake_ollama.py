"""A server of Ollama's documented protocol, with faults."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GEMMA = {"name": "gemma3:4b", "details": {"family": "gemma3"}}


def answer(prompt: str, negative: str | None = None) -> str:
    """The answer of an obedient model."""
    said = {"prompt": prompt}
    if negative is not None:
        said["negative_prompt"] = negative
    return json.dumps(said)


@dataclass
class FakeOllama:
    """The server's state and faults.

    Attributes:
        models: Those in `/api/tags`.
        says: A model's answer; None for one that fits the prompt.
        status: The status of `/api/generate`; unless 200, `body` is its answer.
        body: The answer of a bad status, or the bytes of a whole stream.
        cut_after: Pieces after which the connection breaks.
        ends_after: Pieces after which the stream ends cleanly, without its last object.
        stops_after: Pieces after which the server falls silent.
        done_reason: Why the model stopped.
        one_object: Whether it answers with one object, not a stream.
        requests: Bodies of `/api/generate`.
        abandoned: Set when a client disconnects before its whole answer.
        release: Ends a silence.
    """

    models: list[dict[str, Any]] = field(default_factory=lambda: [GEMMA])
    says: str | None = None
    status: int = 200
    body: bytes | None = None
    cut_after: int | None = None
    ends_after: int | None = None
    stops_after: int | None = None
    done_reason: str = "stop"
    one_object: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)
    abandoned: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def fitting(self, asked: dict[str, Any]) -> str:
        """The answer to a request."""
        if self.says is not None:
            return self.says
        negative = "negative_prompt" in asked["format"]["properties"]
        prompt = " ".join(asked["prompt"].split())
        return answer(f"{prompt}, better", "blurry" if negative else None)


@contextmanager
def running(fake: FakeOllama | None = None) -> Iterator[FakeOllama]:
    """The server during the block."""
    fake = fake or FakeOllama()
    server = Server(("127.0.0.1", 0), partial(Handler, fake))
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.release.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


class Server(ThreadingHTTPServer):
    """Logs no disconnected clients: its stderr is the test's."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def __init__(self, fake: FakeOllama, *arguments: Any) -> None:
        self.fake = fake
        super().__init__(*arguments)

    def log_message(self, *arguments: object) -> None:
        """Be quiet."""

    def do_GET(self) -> None:
        assert self.path == "/api/tags"
        self.whole(200, json.dumps({"models": self.fake.models}).encode())

    def do_POST(self) -> None:
        assert self.path == "/api/generate"
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.fake.requests.append(asked)
        try:
            self.respond(asked)
        except ConnectionError:  # unread data turns the client's close into a reset
            self.fake.abandoned.set()
            raise

    def respond(self, asked: dict[str, Any]) -> None:
        if self.fake.status != 200:
            self.whole(self.fake.status, self.fake.body or b"")
        elif asked["model"] not in {model["name"] for model in self.fake.models}:
            error = {"error": f"model '{asked['model']}' not found"}
            self.whole(404, json.dumps(error).encode())
        elif self.fake.one_object:
            self.whole(200, self.line(self.fake.fitting(asked), done=True))
        else:
            self.stream(asked)

    def stream(self, asked: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.fake.body is not None:
            self.chunk(self.fake.body)
            self.chunk(b"")
            return
        said = self.fake.fitting(asked)
        for number, start in enumerate(range(0, len(said), 3)):
            if number == self.fake.cut_after:
                self.close_connection = True
                self.chunk(self.line(said[start : start + 3])[:20])
                return
            if number == self.fake.ends_after:
                self.chunk(b"")
                return
            if number == self.fake.stops_after:
                self.fall_silent()
                return
            self.chunk(self.line(said[start : start + 3]))
        self.chunk(self.line("", done=True))
        self.chunk(b"")

    def fall_silent(self) -> None:
        self.close_connection = True
        self.connection.settimeout(10)
        while not self.fake.release.is_set():
            if self.connection.recv(1) == b"":
                self.fake.abandoned.set()
                return

    def line(self, said: str, *, done: bool = False) -> bytes:
        value: dict[str, Any] = {"model": "any", "response": said, "done": done}
        if done:
            value |= {"done_reason": self.fake.done_reason, "context": [1, 2, 3], "eval_count": 9}
        return json.dumps(value).encode() + b"\n"

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def whole(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
