"""Retries of requests: their number, their pauses, and their limit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from imagine_core.errors import ServerFailed
from imagine_plugins.pulling.retries import LONGEST_WAIT, TRIES, Lost, Retries, wanted_wait

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


class Request:
    """Fails with each of `errors`, then succeeds; `arrived` is what it kept by then."""

    def __init__(self, *errors: Lost, arrived: Iterator[int] | None = None) -> None:
        self.errors = list(errors)
        self.pauses: list[float] = []
        self.said: list[str] = []
        self._arrived = arrived

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def run(self) -> str:
        retries = Retries(self.said.append, pause=self.pauses.append)
        if self._arrived is None:
            return retries.run(self)
        return retries.run(self, arrived=self._arrived.__next__)


def test_pauses_double_from_one_second() -> None:
    request = Request(*[Lost("hub: 503")] * 4)
    assert request.run() == "done"
    assert request.pauses == [1, 2, 4, 8]
    assert request.said[0] == "hub: 503; trying again in 1 s"


def test_a_server_that_asks_for_a_longer_wait_is_obeyed() -> None:
    request = Request(Lost("hub: 429", wait=40), Lost("hub: 429", wait=0.5))
    request.run()
    assert request.pauses == [40, 2]
    assert request.said[0] == "hub: 429; trying again in 40 s"


def test_a_wait_beyond_all_patience_ends_it_at_once() -> None:
    request = Request(Lost("hub: 429", wait=LONGEST_WAIT + 1500))
    with pytest.raises(ServerFailed, match=r"hub: 429\); try again in 30 minutes") as caught:
        request.run()
    assert caught.value.lost
    assert request.pauses == []


def test_what_never_succeeds_is_given_up() -> None:
    request = Request(*[Lost("hub: 503")] * TRIES)
    with pytest.raises(ServerFailed, match=r"nothing came \(hub: 503\); try again later"):
        request.run()
    assert len(request.pauses) == TRIES - 1


def test_only_what_gets_further_than_ever_counts_as_success() -> None:
    broken = [Lost("broken")] * 20
    request = Request(*broken, arrived=iter([0, 10, 20, 30, 0, 30, 0, 30]))
    with pytest.raises(ServerFailed, match=r"^the download stopped \(broken\); the same"):
        request.run()
    assert request.pauses == [1, 1, 1, 2, 4, 8]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "-7"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "\u0663"}, 0),
        ({"retry-after": "9" * 5000}, 999_999_999),
        ({"retry-after": date(NOON + timedelta(minutes=2)), "date": date(NOON)}, 120),
        ({"retry-after": date(NOON - timedelta(minutes=2)), "date": date(NOON)}, 0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0),
        ({"ratelimit": '"api";r=0;t=55'}, 55),
        ({"ratelimit": '"api";r=12;t=55'}, 0),
        ({"ratelimit": '"api";r=10;t=9, "pages"; r=0; t=5', "retry-after": "3"}, 5),
        ({"ratelimit": '"api";r=0;t=x'}, 0),
    ],
)
def test_the_wait_that_a_server_wants(headers: dict[str, str], seconds: float) -> None:
    assert wanted_wait(headers) == seconds


def test_a_date_without_the_servers_own_clock_is_taken_by_ours() -> None:
    headers = {"retry-after": date(datetime.now(UTC) + timedelta(seconds=100))}
    assert 90 < wanted_wait(headers) <= 100
