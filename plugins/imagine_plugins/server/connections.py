"""How many connections a server has, and which of them has to make room for the next."""

from __future__ import annotations

import sys
from typing import Protocol

MOST_CONNECTIONS = 4096

SPARE_FILES = 256
"""Of the files that a process may have open: what models, logs and libraries need."""


class Connection(Protocol):
    """One of them."""

    def make_room(self) -> None:
        """Close: nobody uses it, and somebody else would like to come in."""


class Connections:
    """The connections of a server.

    Somebody who opens thousands of them and says nothing keeps nobody out: the one that has been
    unused for the longest time makes room for the next.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # in the order in which they became so

    def enter(self, connection: Connection) -> bool:
        """There is another one; False if all others are in use, and it has to go."""
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
        """A request is in progress on it."""
        self._idle.pop(connection, None)

    def rest(self, connection: Connection) -> None:
        """Its request has been answered."""
        if connection in self._open:
            self._idle.pop(connection, None)
            self._idle[connection] = None

    def leave(self, connection: Connection) -> None:
        """It is closed, or about to be."""
        self._open.discard(connection)
        self._idle.pop(connection, None)


def most_connections() -> int:
    """How many this process can serve; the system bounds the files that it may have open."""
    if sys.platform == "win32":
        return MOST_CONNECTIONS
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(files - SPARE_FILES, files // 2))
