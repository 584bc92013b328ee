"""Repeats requests that failed for a passing reason, with the pauses that servers ask for."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from imagine_core.errors import ServerFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

TRIES = 5
"""Attempts in a row that bring nothing new before a request is given up."""

LONGEST_BACKOFF = 30.0
LONGEST_WAIT = 300.0
"""Seconds of Retry-After that are waited; hubs count their requests in windows of five minutes."""

MOST_DIGITS = 9
NONE_LEFT = re.compile(r";\s*r=0(?!\d)")
RESET = re.compile(r";\s*t=(\d{1,9})(?!\d)")


class Lost(Exception):
    """The connection broke, or the server is busy: worth another attempt.

    Args:
        message: Which server, and what happened.
        wait: Seconds before the server wants to be asked again.
    """

    def __init__(self, message: str, *, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Retries:
    """Repeats requests until they succeed or bring nothing new `TRIES` times in a row.

    Args:
        say: Shows the user why it takes longer.
        pause: Waits so many seconds.
    """

    def __init__(
        self,
        say: Callable[[str], None] = lambda _: None,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._say = say
        self._pause = pause

    def run(self, request: Callable[[], T], *, arrived: Callable[[], int] = lambda: 0) -> T:
        """The result of `request`.

        Args:
            request: Raises `Lost` where another attempt may help.
            arrived: Bytes that are kept so far. Only an attempt that gets further than all before
                it starts the count again.

        Raises:
            ServerFailed: No attempt succeeded, or the server asks for a wait beyond
                `LONGEST_WAIT`.
        """
        failures, furthest = 0, arrived()
        while True:
            try:
                return request()
            except Lost as error:
                now = arrived()
                failures = 1 if now > furthest else failures + 1
                furthest = max(furthest, now)
                if failures >= TRIES or error.wait > LONGEST_WAIT:
                    raise ServerFailed(_given_up(error, now), lost=True) from error
                backoff = min(2.0 ** (failures - 1), LONGEST_BACKOFF)
                seconds = max(backoff, error.wait)
                self._say(f"{error}; trying again in {seconds:.0f} s")
                self._pause(seconds)


def wanted_wait(headers: Mapping[str, str]) -> float:
    """The seconds that a server wants to be left alone for; 0 if it does not say."""
    return max(_retry_after(headers), _rate_limit(headers))


def _rate_limit(headers: Mapping[str, str]) -> float:
    """What the Hugging Face hub sends: `RateLimit: "api";r=0;t=55` (draft-ietf-httpapi-ratelimit).

    `r` are the requests that remain, `t` the seconds until their count starts again.
    """
    used_up = [item for item in headers.get("ratelimit", "").split(",") if NONE_LEFT.search(item)]
    return max((float(found[1]) for item in used_up if (found := RESET.search(item))), default=0.0)


def _retry_after(headers: Mapping[str, str]) -> float:
    """What Retry-After says (RFC 9110, 10.2.3), in seconds or as a date."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal() and text.isascii():
        return float(text[:MOST_DIGITS])
    then = http_date(text)
    # The server's own clock, so that a wrong one on either side does not matter.
    now = http_date(headers.get("date", "")) or datetime.now(UTC)
    return 0.0 if then is None else max(0.0, (then - now).total_seconds())


def http_date(text: str) -> datetime | None:
    """The time that an HTTP date names (RFC 9110, 5.6.7); None if it is none."""
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found.replace(tzinfo=found.tzinfo or UTC)


def _given_up(error: Lost, arrived: int) -> str:
    when = f"in {error.wait / 60:.0f} minutes" if error.wait > LONGEST_WAIT else "later"
    if arrived:
        then = "" if when == "later" else f" {when}"
        return f"the download stopped ({error}); the same command goes on from there{then}"
    return f"nothing came ({error}); try again {when}"
