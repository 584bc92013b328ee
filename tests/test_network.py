"""Tests of imagine_core.network."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from imagine_core import network
from imagine_core.errors import Offline


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LOCALHOST.", "a.localhost"]
)
def test_this_machine_has_many_names(host: str) -> None:
    assert network.is_loopback(host)


@pytest.mark.parametrize("host", ["", "example.com", "192.168.1.7", "localhost.example.com", "::2"])
def test_others_are_elsewhere(host: str) -> None:
    assert not network.is_loopback(host)


@pytest.mark.parametrize(
    ("value", "forbids"), [("1", True), ("yes", True), ("0", False), ("", False)]
)
def test_the_environment_decides(
    monkeypatch: pytest.MonkeyPatch, value: str, *, forbids: bool
) -> None:
    monkeypatch.setenv("IMAGINE_OFFLINE", value)
    assert network.offline() is forbids
    network.check("http://127.0.0.1:5000/health")
    if forbids:
        with pytest.raises(Offline, match=r"'example\.com'"):
            network.check("https://example.com/a")
    else:
        network.check("https://example.com/a")


GUARDED = """
import socket, sys
from imagine_core import network
from imagine_core.errors import Offline

network.forbid()
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
socket.getaddrinfo("0.0.0.0", 80)
socket.getaddrinfo(socket.gethostname(), 80)
attempts = [
    lambda: socket.create_connection(("192.0.2.1", 9), timeout=1),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 9)),
    lambda: socket.getaddrinfo("example.com", 443),
    lambda: socket.gethostbyname("example.com"),
]
for attempt in attempts:
    try:
        attempt()
    except Offline as error:
        print(error.host)
    except OSError as error:
        print("went out:", error)
"""


def test_whoever_does_not_ask_is_stopped_at_the_socket() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", GUARDED], capture_output=True, text=True, check=True
    )
    hosts = ["192.0.2.1", "192.0.2.1", "example.com", "example.com"]
    assert ended.stdout.split("\n") == [*hosts, ""], ended.stderr


def test_the_tests_themselves_reach_nobody() -> None:
    with socket.socket() as sock, pytest.raises(AssertionError, match=r"192\.0\.2\.1"):
        sock.connect(("192.0.2.1", 9))
    with pytest.raises(AssertionError, match=r"example\.com"):
        socket.getaddrinfo("example.com", 443)
