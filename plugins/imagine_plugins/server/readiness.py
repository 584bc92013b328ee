"""Tells systemd how the server is: sd_notify(3), without its library.

systemd names a datagram socket in NOTIFY_SOCKET to a service with `Type=notify`; everywhere else
there is none, and nothing is said.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

VARIABLE = "NOTIFY_SOCKET"
MARGIN = 30.0
"""Seconds beyond the grace time before systemd may lose patience with a server that stops."""


class Readiness:
    """Tells the service manager behind `address`; nobody, where there is none.

    Args:
        address: The path of its socket, or `@` and the name of an abstract one.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address

    def ready(self, status: str) -> None:
        """Say that requests are served, and in `status`, for people, how."""
        self._tell("READY=1", f"STATUS={status}")

    def stopping(self, *, within: float) -> None:
        """Say that the server stops, which may take so many seconds."""
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
            pass  # whoever asked to be told is gone; the pictures matter more


def readiness_from_environment(environ: MutableMapping[str, str] = os.environ) -> Readiness:
    """What this process was asked to tell; programs that it starts shall not tell it too."""
    return Readiness(environ.pop(VARIABLE, None))
