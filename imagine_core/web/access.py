"""What a server's settings allow: host names, origins of web pages, the API key."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from imagine_core.errors import SettingsError

if TYPE_CHECKING:
    from starlette.datastructures import Headers

    from imagine_core.settings import ServerSettings

LOCAL = ("localhost", "127.0.0.1", "0.0.0.0", "[::1]")  # noqa: S104 - names, not an address to bind
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]+)?")
HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+(?:%[a-z0-9._-]+)?\])(?::[0-9]*)?")


class Access:
    """Decides which hosts, origins and keys a server's settings allow.

    Args:
        settings: The origins, the host names and the key.
        machine: The names of this machine.
    """

    def __init__(self, settings: ServerSettings, *, machine: Iterable[str] | None = None) -> None:
        self._origins = [origin_pattern(origin) for origin in settings.origins]
        names = machine_names() if machine is None else machine
        self._hosts = [host_pattern(name) for name in (*names, *settings.hosts)]
        self._key = None if settings.api_key is None else settings.api_key.encode()

    def host(self, host: str) -> bool:
        """Whether the server answers to the name in a Host header."""
        name = _host_name(host)
        if name is None:
            return False
        return _is_address(name) or any(pattern.fullmatch(name) for pattern in self._hosts)

    def origin(self, origin: str, host: str) -> bool:
        """Whether pages of `origin` may call everything that `host` offers."""
        origin = origin.lower()
        if any(pattern.fullmatch(origin) for pattern in self._origins):
            return True
        parts = ORIGIN.fullmatch(origin)
        if parts is None or not origin.startswith(("http://", "https://")):
            return False
        return parts[1] in LOCAL or origin.partition("://")[2] == host.lower()

    def key(self, headers: Headers) -> bool:
        """Whether the headers of a request hold the key, if the server has one.

        Clients send it as a bearer token, as the password of HTTP Basic (RFC 7617) with any user
        name, or, as those of Azure do, in an api-key header.
        """
        if self._key is None:
            return True
        return any(hmac.compare_digest(given, self._key) for given in _keys(headers))


def _keys(headers: Headers) -> Iterator[bytes]:
    """What may be the key in some headers; Starlette reads their bytes as Latin-1."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield given.strip().encode("latin-1")
    elif scheme.lower() == "basic":
        with suppress(ValueError):  # not base64
            pair = base64.b64decode(given.strip().encode("latin-1"), validate=True)
            yield pair  # a key that looks like "user:password"
            yield pair.partition(b":")[2]
    if "api-key" in headers:
        yield headers["api-key"].strip().encode("latin-1")


def machine_names() -> Iterator[str]:
    """The names of this machine in its own network only."""
    yield "localhost"
    yield "*.localhost"
    yield "*.local"  # multicast DNS: no name that a stranger could register
    yield "*.internal"  # reserved for private use too: host.docker.internal, for one
    name = socket.gethostname().lower()
    if name:
        yield name
        yield name.partition(".")[0]


def origin_pattern(origin: str) -> re.Pattern[str]:
    """The pattern of an allowed origin: "https://example.com", "http://*.lan:*", "null" or "*"."""
    origin = origin.strip().lower().rstrip("/")
    if origin == "*":
        return re.compile(r".*")
    if origin != "null" and not ORIGIN.fullmatch(origin.replace(":*", ":1").replace("*", "x")):
        raise SettingsError(
            f"origin {origin[:200]!r} must look like https://example.com, with a port where the "
            "page's address has one; '*' stands for any"
        )
    return re.compile(re.escape(origin).replace(r"\*", "[a-z0-9._-]*"))


def host_pattern(host: str) -> re.Pattern[str]:
    """The pattern of an allowed host name: "example.com", "*.example.com" or "*"."""
    host = host.strip().lower().rstrip(".")
    if not re.fullmatch(r"[a-z0-9._*-]+", host):
        raise SettingsError(f"host {host[:200]!r} must be a name without port, such as example.com")
    return re.compile(re.escape(host).replace(r"\*", r"[a-z0-9._-]*"))


def _host_name(host: str) -> str | None:
    """The name or address in a Host header, without its port; None if it is neither."""
    parts = HOST.fullmatch(host.lower())
    return None if parts is None else parts[1].strip("[]").partition("%")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
