"""Interrupts samplers that hold the device's thread for too long.

The watchdog ends a loop in Python by raising an exception in its thread. It can aim at a thread,
but not at a call, so the watchdog and the returning call must agree on which was first: each call
has one ticket, and taking it is atomic.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from imagine_core.errors import GenerationFailed, Stalled

log = logging.getLogger("imagine")

T = TypeVar("T")

CHECKS = 8
"""Checks of a call within its time limit."""

IMPORT_MACHINERY = "<frozen importlib._bootstrap>"
LONGEST_PAUSE = 1.0
IMPORTS = 10
"""Factor on the time limit during an import: half an import is worse than none."""

SHORT_WAIT = 0.01
MERCY_SECONDS = 2.0
"""Seconds after the exception was raised until the thread counts as lost in C code."""


class Stuck(BaseException):
    """Raised in a sampler that does not return; `except Exception` does not catch it."""


@dataclass(eq=False, slots=True)
class Call:
    """One call into a sampler.

    Attributes:
        sampler: Its name, and its plugin's, for messages.
        thread: Where it runs.
        began: When, on the monotonic clock.
        ticket: Empty once it is decided how the call ends: it returns, or it is interrupted.
        settled: Whether the device has finished its earlier work.
        interrupted: Whether the exception was raised.
    """

    sampler: str
    thread: int = field(default_factory=threading.get_ident)
    began: float = field(default_factory=time.monotonic)
    ticket: list[None] = field(default_factory=lambda: [None])
    settled: bool = False
    interrupted: bool = False

    def take_ticket(self) -> bool:
        """Take the ticket; whether it was still there."""
        try:
            self.ticket.pop()
        except IndexError:
            return False
        return True


class Watchdog:
    """Interrupts samplers that do not return, and reports those that cannot be interrupted.

    Args:
        seconds: How long a sampler may compute between two evaluations.
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

    # -- on the watched thread -------------------------------------------------------------

    def guard(self, sampler: str, work: Callable[[], T]) -> T:
        """The result of `work`, which is code of `sampler`.

        `Stuck` is raised within this function or not at all.

        Raises:
            GenerationFailed: It did not return in time.
        """
        call = Call(sampler)
        try:
            self._call = call
            try:
                result = work()
            except Stuck:
                raise
            except BaseException:
                self._leave(call)
                raise
            self._leave(call)
        except Stuck:
            raise GenerationFailed(
                f"{sampler} did not come back within {self._seconds:g} s; it was stopped"
            ) from None
        finally:
            self._call = self.stalled = None
        return result

    def _leave(self, call: Call) -> None:
        """After this, no exception for `call` is raised in this thread."""
        if call.take_ticket():
            return
        while not call.interrupted:  # briefly; `Stuck` may be raised here, as in the sampler
            time.sleep(0.001)
        _raise_in(call.thread, None)  # the call has returned after all

    # -- on the watchdog's own thread ------------------------------------------------------

    def _watch(self) -> None:
        pause = min(self._seconds / CHECKS, LONGEST_PAUSE)
        while not self._ended.wait(pause):
            call = self._call
            if call is None:
                continue
            late = self._late(call)
            if late > 0 and not call.settled:
                self._wait_for_device(call)
            elif late > 0 and call.take_ticket():
                _raise_in(call.thread, Stuck)
                call.interrupted = True
            elif late > MERCY_SECONDS and self.stalled is None:
                self._give_up(call)

    def _late(self, call: Call) -> float:
        late = time.monotonic() - call.began - self._seconds
        if late > 0 and _imports(call.thread):  # importing torch takes long
            late -= self._seconds * (IMPORTS - 1)
        return late

    def _wait_for_device(self, call: Call) -> None:
        """Count from when the device was done; the call is checked once more in any case."""
        before = time.monotonic()
        self._settle()
        call.settled = True
        if time.monotonic() - before > SHORT_WAIT:
            call.began = time.monotonic()

    def _give_up(self, call: Call) -> None:
        since = datetime.now(UTC) - timedelta(seconds=time.monotonic() - call.began)
        stalled = Stalled(call.sampler, since)
        self.stalled = stalled
        if self._call is not call:  # it has just returned
            self.stalled = None
            return
        log.error("%s", stalled)
        self._on_stall(stalled)


def _imports(thread: int) -> bool:
    """Whether a thread is in the middle of an import."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented in spite of its name
    while frame is not None:
        if frame.f_code.co_filename == IMPORT_MACHINERY:
            return True
        frame = frame.f_back
    return False


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise `error` in `thread` as soon as it runs Python code; None withdraws it."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )
