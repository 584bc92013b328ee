"""Whether Imagine may connect to elsewhere: `--offline` and IMAGINE_OFFLINE forbid it.

The decision holds for the whole process and the programs it starts, so it lives in the
environment. Our code calls `check` before it connects, for a clear error; `guard` enforces it for
all other code, libraries and plugins included.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from functools import cache
from urllib.parse import urlsplit

from imagine_core.errors import Offline

__all__ = [
    "check",
    "forbid",
    "is_loopback",
    "offline",
]

VARIABLE = "IMAGINE_OFFLINE"
NO = {"", "0", "false", "no", "off"}
INTERNET = 2
"""Least parts of an internet socket's address: host and port."""

UNSPECIFIED = ("", "0.0.0.0", "::")  # noqa: S104 - to a client they are this machine
CONNECTING = {"socket.connect", "socket.sendto"}
RESOLVING = {"socket.getaddrinfo", "socket.gethostbyname"}


def forbid() -> None:
    """Forbid connections to elsewhere, from now on."""
    os.environ[VARIABLE] = "1"
    guard()


def offline() -> bool:
    """Whether connections to elsewhere are forbidden."""
    return os.environ.get(VARIABLE, "").strip().lower() not in NO


def check(url: str) -> None:
    """Raise `Offline` if a connection to the host of `url` is forbidden."""
    host = urlsplit(url).hostname or ""
    if offline() and not is_loopback(host):
        raise Offline(host)


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine, by its address or by a name that always means it."""
    host = host.lower().strip("[]").rstrip(".")
    if _is_address(host):
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    return host == "localhost" or host.endswith(".localhost")


@cache
def guard() -> None:
    """Refuse connections to elsewhere at the socket, for as long as they are forbidden.

    Python calls audit hooks before every connection and every look-up of a name. A hook cannot be
    removed, so this one stays, and reads the decision each time.
    """
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event in CONNECTING and offline():
        address = arguments[1]
        if isinstance(address, tuple) and len(address) >= INTERNET:
            _require_loopback(str(address[0]))
    elif event in RESOLVING and offline():
        host = arguments[0]
        if isinstance(host, str | bytes):
            _require_local_name(host if isinstance(host, str) else host.decode("ascii", "replace"))


def _require_loopback(host: str) -> None:
    if host not in UNSPECIFIED and not is_loopback(host):
        raise Offline(host)


def _require_local_name(host: str) -> None:
    """Allow addresses, which need no look-up, and this machine's name, on which servers listen."""
    if not _is_address(host) and host != socket.gethostname():
        _require_loopback(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
