"""Bounds the connections of a server, and picks the idle one to close for a new one."""

from __future__ import annotations

import sys
from typing import Protocol

MOST_CONNECTIONS = 4096

SPARE_FILES = 256
"""Open files that are reserved for models, logs and libraries."""


class Connection(Protocol):
    """A connection of the server."""

    def make_room(self) -> None:
        """Close this idle connection in favour of a new one."""


class Connections:
    """The connections of a server.

    A client that opens thousands of idle connections cannot lock others out: beyond the bound, the
    longest idle connection is closed.

    Args:
        most: The bound.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # in the order in which they became idle

    def enter(self, connection: Connection) -> bool:
        """Add a connection; False if all others are in use, and it must be closed."""
        if len(self._open) >= self.most:
            if not self._idle:
                return False
            oldest = next(iter(self._idle))
            self.leave(oldest)
            oldest.make_room()
        self._open.add(connection)
        self._idle[connection] = None
        return True

    def use(self, connection: Connection) -> None:
        """Mark a connection as in use."""
        self._idle.pop(connection, None)

    def rest(self, connection: Connection) -> None:
        """Mark a connection as idle."""
        if connection in self._open:
            self._idle.pop(connection, None)
            self._idle[connection] = None

    def leave(self, connection: Connection) -> None:
        """Remove a connection that is closed."""
        self._open.discard(connection)
        self._idle.pop(connection, None)


def most_connections() -> int:
    """The most connections that the system's bound on open files allows."""
    if sys.platform == "win32":
        return MOST_CONNECTIONS
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(files - SPARE_FILES, files // 2))
