"""Turns addresses of servers, as users write them, into URLs."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from imagine_core.errors import SettingsError
from imagine_core.settings import DEFAULT_PORT

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where servers listen, not clients
"""Addresses to listen at, and the loopback address by which a client reaches each."""


def server_url(address: str, *, port: int = DEFAULT_PORT) -> str:
    """The URL of the server at `address`; without a scheme, the port defaults to `port`.

    Raises:
        SettingsError: `address` is neither a host, with or without a port, nor an HTTP URL.
    """
    plain = "://" not in address
    bare = address.strip()
    if plain and bare.count(":") > 1 and not bare.startswith("["):
        bare = f"[{bare}]"  # an IPv6 address
    try:
        parts = urlsplit(f"http://{bare}" if plain else bare)
        given = parts.port
    except ValueError:
        parts, given = urlsplit(""), None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"[\w.:%-]+", host):
        raise SettingsError(
            f"{address[:200]!r} is no address of a server: it must look like 127.0.0.1:{port} "
            "or https://example.com"
        )
    host = EVERYWHERE.get(host, host)
    host = f"[{host}]" if ":" in host else host
    given = port if given is None and plain else given
    end = "" if given is None else f":{given}"
    return f"{parts.scheme}://{host}{end}{parts.path.rstrip('/')}"
