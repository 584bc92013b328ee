"""A local file server with many faults, and a model hub over it."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Served:
    """A file, and the server's faults with it.

    Attributes:
        data: Its bytes.
        etag: Its ETag; None for none.
        ranges: Whether ranges are served.
        drops: Bytes after which each next answer breaks off.
        length: A wrong Content-Length; -1 omits it.
        statuses: Statuses of the next answers, before a success.
        refusal: Headers of those answers.
        location: The target of a redirect.
        headers: More headers.
        shift: Bytes that a partial answer starts too early.
        partial: The status of a partial answer.
        content_range: The Content-Range of a partial answer, with {first}, {last} and {total}.
        condition: Whether If-Range works.
        most: The longest range it sends.
        encoding: Its unwanted compression.
    """

    data: bytes = b""
    etag: str | None = '"one"'
    ranges: bool = True
    drops: list[int] = field(default_factory=list)
    length: int | None = None
    statuses: list[int] = field(default_factory=list)
    location: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    shift: int = 0
    refusal: dict[str, str] = field(default_factory=dict)
    partial: int = 206
    content_range: str | None = "bytes {first}-{last}/{total}"
    condition: bool = True
    most: int | None = None
    encoding: str | None = None


@dataclass
class Asked:
    """A received request."""

    path: str
    headers: Mapping[str, str]
    sent: int = 0


class FileServer(ThreadingHTTPServer):
    """Serves `files` by path and records the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: tests disconnect on purpose."""

    def sent(self, path: str) -> list[int]:
        """Bytes of each answer for `path`."""
        return [asked.sent for asked in self.asked if asked.path == path]

    def add_repo(
        self, name: str, files: Mapping[str, bytes], *, lfs: bool = True, commit: str = COMMIT
    ) -> None:
        """A hub's repository: a list, and files that are stored elsewhere."""
        siblings = []
        for path, data in files.items():
            digest = hashlib.sha256(data).hexdigest()
            entry: dict[str, object] = {"rfilename": path, "size": len(data)}
            if lfs and path.endswith(".safetensors"):
                entry["lfs"] = {"sha256": digest, "size": len(data)}
            siblings.append(entry)
            self.files[f"/{name}/resolve/{commit}/{path}"] = Served(
                location=f"/store/{digest}",
                headers={"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(data))},
            )
            self.files[f"/store/{digest}"] = Served(data, etag=f'"{digest[:16]}"')
        listing = json.dumps({"sha": commit, "siblings": siblings}).encode()
        self.files[f"/api/models/{name}/revision/main"] = Served(listing)

    def stored(self, data: bytes) -> Served:
        """The path of a hub's file."""
        return self.files[f"/store/{hashlib.sha256(data).hexdigest()}"]


class Handler(BaseHTTPRequestHandler):
    """Answers with the faults."""

    protocol_version = "HTTP/1.1"
    server: FileServer

    def do_GET(self) -> None:
        """Answer with a file, a part of one, a redirect or an error."""
        path = unquote(urlsplit(self.path).path)
        asked = Asked(path, dict(self.headers.items()))
        self.server.asked.append(asked)
        served = self.server.files.get(path)
        if served is None:
            self._empty(404)
        elif served.statuses:
            self._empty(served.statuses.pop(0), served.refusal)
        elif served.location is not None:
            self._empty(302, {"Location": served.location, **served.headers})
        else:
            self._file(served, asked)

    def _empty(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def _file(self, served: Served, asked: Asked) -> None:
        data, first = served.data, self._first(served)
        headers = {**served.headers}
        if served.etag is not None:
            headers["ETag"] = served.etag
        if first is not None and first >= len(data):
            self._empty(416, {**headers, "Content-Range": f"bytes */{len(data)}"})
            return
        if first is not None:
            first -= served.shift
        body = data[first or 0 :][: served.most if first is not None else None]
        if first is not None and served.content_range is not None:
            headers["Content-Range"] = served.content_range.format(
                first=first, last=first + len(body) - 1, total=len(data)
            )
        if served.encoding is not None:
            headers["Content-Encoding"] = served.encoding
            body = COMPRESS.get(served.encoding, bytes)(body)
        length = len(body) if served.length is None else served.length
        self.send_response(200 if first is None else served.partial)
        if length >= 0:
            headers["Content-Length"] = str(length)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self._send(body, served, asked)

    def _first(self, served: Served) -> int | None:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        versions = (None, served.etag, served.headers.get("Last-Modified"))
        if wanted is None or not served.ranges or (served.condition and condition not in versions):
            return None
        return int(wanted[1])

    def _send(self, body: bytes, served: Served, asked: Asked) -> None:
        drop = served.drops.pop(0) if served.drops else None
        if drop is not None:
            body = body[:drop]
        try:
            for start in range(0, len(body), 2**16):
                self.wfile.write(body[start : start + 2**16])
                asked.sent = start + 2**16
        except OSError:  # the client has enough
            self.close_connection = True
        if drop is not None or served.length is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[FileServer]:
    """A server that runs during the block."""
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def files_under(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their paths in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
