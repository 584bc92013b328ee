"""Interrupts plugins' code that holds the device's thread for too long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from imagine_core.engine.interrupting import MERCY_SECONDS, Call, Stuck
from imagine_core.errors import GenerationFailed, Stalled

log = logging.getLogger("imagine")

T = TypeVar("T")

CHECKS = 8
"""Checks of a call within its time limit."""

LONGEST_PAUSE = 1.0
SHORT_WAIT = 0.01


class Watchdog:
    """Interrupts plugins' code that does not return, and reports what cannot be interrupted.

    Args:
        seconds: How long the code may take: a sampler's between two evaluations.
        on_stall: Called on the watchdog's thread when the device's thread is lost.
        settle: Waits until an asynchronous device is done with the last forward. A sampler that
            reads a number waits for that too, which is not its fault.
    """

    def __init__(
        self,
        *,
        seconds: float,
        on_stall: Callable[[Stalled], None],
        settle: Callable[[], object] = lambda: None,
    ) -> None:
        self.stalled: Stalled | None = None
        self._seconds = seconds
        self._on_stall = on_stall
        self._settle = settle
        self._call: Call | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="imagine-watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._ended.set()

    def guard(self, culprit: str, work: Callable[[], T]) -> T:
        """The result of `work`, which is code of `culprit`; on the watched thread.

        Raises:
            GenerationFailed: It did not return in time.
        """
        call = Call(culprit)
        self._call = call
        try:
            return call.run(work)
        except Stuck:
            raise GenerationFailed(call.stopped(self._seconds)) from None
        finally:
            self._call = self.stalled = None

    # -- on the watchdog's own thread ------------------------------------------------------

    def _watch(self) -> None:
        pause = min(self._seconds / CHECKS, LONGEST_PAUSE)
        while not self._ended.wait(pause):
            call = self._call
            if call is None:
                continue
            late = call.late(self._seconds)
            if late > 0 and not call.settled:
                self._wait_for_device(call)
            elif late > 0 and call.interrupt():
                continue
            elif late > MERCY_SECONDS and self.stalled is None:
                self._give_up(call)

    def _wait_for_device(self, call: Call) -> None:
        """Count from when the device was done; the call is checked once more in any case."""
        before = time.monotonic()
        self._settle()
        call.settled = True
        if time.monotonic() - before > SHORT_WAIT:
            call.began = time.monotonic()

    def _give_up(self, call: Call) -> None:
        since = datetime.now(UTC) - timedelta(seconds=time.monotonic() - call.began)
        stalled = Stalled(call.culprit, since)
        self.stalled = stalled
        if self._call is not call:  # it has just returned
            self.stalled = None
            return
        log.error("%s", stalled)
        self._on_stall(stalled)
