"""Notifies systemd, over a socket like its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import fake_imagine
from imagine_plugins.server.readiness import Readiness, readiness_from_environment

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="the system has no unix sockets"
)


@contextmanager
def systemd(address: str) -> Iterator[socket.socket]:
    """The socket that systemd would listen at."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + address[1:] if address.startswith("@") else address)
        sock.settimeout(30)
        yield sock


def lines(sock: socket.socket) -> list[str]:
    """The next message."""
    return sock.recv(4096).decode().splitlines()


def addresses(folder: Path) -> list[str]:
    """A name in the file system, and an abstract one where there are such."""
    names = [str(folder / "notify")]
    return [*names, f"@imagine-test-{os.getpid()}"] if sys.platform == "linux" else names


def test_it_is_told_at_every_kind_of_address(tmp_path: Path) -> None:
    for address in addresses(tmp_path):
        with systemd(address) as sock:
            readiness = Readiness(address)
            readiness.ready("listening,\nbusy")
            assert lines(sock) == ["READY=1", "STATUS=listening, busy"]
            readiness.stopping(within=5.5)
            assert lines(sock) == ["STOPPING=1", "STATUS=stopping", "EXTEND_TIMEOUT_USEC=35500000"]


def test_where_nobody_asks_nobody_is_told(tmp_path: Path) -> None:
    for address in (None, "", str(tmp_path / "nobody")):
        Readiness(address).ready("listening")


def test_programs_that_the_server_starts_do_not_speak_for_it(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": address, "PATH": "/bin"}
    with systemd(address) as sock:
        readiness_from_environment(environ).ready("listening")
        assert lines(sock)[0] == "READY=1"
    assert environ == {"PATH": "/bin"}


def test_the_server_says_when_it_serves_and_when_it_stops(tmp_path: Path) -> None:
    for address in addresses(tmp_path):
        with systemd(address) as sock, serving(tmp_path, address) as process:
            ready, status = lines(sock)
            assert ready == "READY=1"
            pattern = (
                r"STATUS=listening on http://127\.0\.0\.1:\d+, device fake \(float32\), \d+ .*"
            )
            assert re.fullmatch(pattern, status)
            process.send_signal(signal.SIGTERM)
            assert lines(sock)[0] == "STOPPING=1"
            assert process.wait(30) == 0


@pytest.mark.skipif(sys.platform == "darwin", reason="this may be a machine with MPS")
def test_a_server_that_cannot_compute_is_never_ready(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with systemd(address) as sock, serving(tmp_path, address, "-d", "mps") as process:
        assert process.wait(60) == 1
        assert lines(sock)[0] == "STOPPING=1"


@contextmanager
def serving(folder: Path, address: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server over a fake model that was asked to tell `address`."""
    (folder / "tiny.fake").touch()
    usual = ("--models", str(folder), "--host", "127.0.0.1", "--port", "0")
    command = [sys.executable, fake_imagine.__file__, "serve", *usual, *options]
    environment = {**os.environ, "NOTIFY_SOCKET": address}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()
