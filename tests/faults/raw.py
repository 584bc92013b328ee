"""HTTP by hand, over a raw socket."""

from __future__ import annotations

import re
import socket

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send a request, or the rest of one; the whole reply."""
    connection.settimeout(60)
    connection.sendall(request)
    return read_reply(connection)


def read_reply(connection: socket.socket) -> bytes:
    """One reply, which says how long it is."""
    connection.settimeout(60)
    said = b""
    while b"\r\n\r\n" not in said:
        said += read_some(connection)
    head, _, body = said.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    assert length is not None, head
    while len(body) < int(length[1]):
        body += read_some(connection)
    return head + b"\r\n\r\n" + body


def read_some(connection: socket.socket) -> bytes:
    part = connection.recv(65536)
    assert part, "the server closed the connection"
    return part


def read_all(connection: socket.socket) -> bytes:
    """Everything up to the end, which the server must bring about."""
    connection.settimeout(60)
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass  # the server closed while we were sending
    return b"".join(parts)
