"""Which connection closes when all of a server's are taken."""

from __future__ import annotations

import pytest

from imagine_plugins.server import connections
from imagine_plugins.server.connections import Connections, most_connections


class Fake:
    """A connection that notes that it had to go."""

    def __init__(self) -> None:
        self.gone = False

    def make_room(self) -> None:
        self.gone = True


def test_the_longest_unused_makes_room() -> None:
    crowd = Connections(3)
    a, b, c, d, e = (Fake() for _ in range(5))
    for each in (a, b, c):
        assert crowd.enter(each)
    crowd.use(a)
    crowd.rest(a)  # which makes it the latest
    assert crowd.enter(d)
    assert crowd.enter(e)
    assert [each.gone for each in (a, b, c, d, e)] == [False, True, True, False, False]


def test_what_is_in_use_stays_and_the_newcomer_has_to_go() -> None:
    crowd = Connections(2)
    a, b, c = Fake(), Fake(), Fake()
    for each in (a, b):
        assert crowd.enter(each)
        crowd.use(each)
    assert not crowd.enter(c)
    assert [a.gone, b.gone] == [False, False]
    crowd.leave(c)
    crowd.leave(a)
    assert crowd.enter(c)


def test_what_had_to_go_does_not_come_back_by_resting() -> None:
    crowd = Connections(1)
    a, b, c = Fake(), Fake(), Fake()
    crowd.enter(a)
    crowd.enter(b)
    crowd.rest(a)
    crowd.use(b)
    assert not crowd.enter(c)


@pytest.mark.parametrize(
    ("files", "most"), [(1024, 768), (300, 150), (65_536, 4096), (-1, 4096), (20, 10)]
)
def test_the_limit_leaves_files_for_others(
    files: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, -1))
    assert most_connections() == most
    assert connections.MOST_CONNECTIONS == 4096
