"""Tells systemd when the server is ready or stops: sd_notify(3), without its library.

systemd passes the name of a datagram socket in NOTIFY_SOCKET to services of `Type=notify`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

VARIABLE = "NOTIFY_SOCKET"
MARGIN = 30.0
"""Seconds beyond the grace time before systemd may kill a stopping server."""


class Readiness:
    """Notifies the service manager at `address`.

    Args:
        address: The path of its socket, or `@` and the name of an abstract one; None without one.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address

    def ready(self, status: str) -> None:
        """Report that the server is ready; `status` is shown to people."""
        self._tell("READY=1", f"STATUS={status}")

    def stopping(self, *, within: float) -> None:
        """Report that the server stops, which may take `within` seconds."""
        patience = int((within + MARGIN) * 1e6)
        self._tell("STOPPING=1", "STATUS=stopping", f"EXTEND_TIMEOUT_USEC={patience}")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        message = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.connect(name)
                sock.sendall(message.encode())
        except OSError:
            pass  # the manager is gone, and requests continue


def readiness_from_environment(environ: MutableMapping[str, str] = os.environ) -> Readiness:
    """The readiness that NOTIFY_SOCKET asks for; child processes do not inherit the variable."""
    return Readiness(environ.pop(VARIABLE, None))
