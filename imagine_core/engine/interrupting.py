"""Ends code that does not return, by an exception in its thread.

An exception can be aimed at a thread, but not at a call, so the returning call and its interrupter
must agree on which was first: each call has one ticket, and taking it is atomic.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

IMPORT_MACHINERY = "<frozen importlib._bootstrap>"
IMPORTS = 10
"""Factor on the time limit during an import: half an import is worse than none."""

MERCY_SECONDS = 2.0
"""Seconds after the exception was raised until the thread counts as lost in C code."""


class Stuck(BaseException):
    """Raised in code that does not return; `except Exception` does not catch it."""


@dataclass(eq=False, slots=True)
class Call:
    """One call of a plugin's code.

    Attributes:
        culprit: Whose code it is, for messages.
        thread: Where it runs.
        began: When, on the monotonic clock.
        ticket: Empty once it is decided how the call ends: it returns, or it is interrupted.
        settled: Whether the device has finished its earlier work.
        interrupted: Whether the exception was raised.
    """

    culprit: str
    thread: int = field(default_factory=threading.get_ident)
    began: float = field(default_factory=time.monotonic)
    ticket: list[None] = field(default_factory=lambda: [None])
    settled: bool = False
    interrupted: bool = False

    def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, on the call's thread.

        `Stuck` is raised within this function or not at all.
        """
        try:
            result = work()
        except Stuck:
            raise
        except BaseException:
            self._leave()
            raise
        self._leave()
        return result

    def late(self, seconds: float) -> float:
        """Seconds since it should have returned, negative before; imports may take longer."""
        late = time.monotonic() - self.began - seconds
        if late > 0 and _imports(self.thread):  # importing torch takes long
            late -= seconds * (IMPORTS - 1)
        return late

    def interrupt(self) -> bool:
        """Raise `Stuck` in it; whether it had not returned yet."""
        if not self._take_ticket():
            return False
        _raise_in(self.thread, Stuck)
        self.interrupted = True
        return True

    def stopped(self, seconds: float) -> str:
        """The message for a call that was interrupted after so many seconds."""
        return f"{self.culprit} did not come back within {seconds:g} s; it was stopped"

    def _take_ticket(self) -> bool:
        """Take the ticket; whether it was still there."""
        try:
            self.ticket.pop()
        except IndexError:
            return False
        return True

    def _leave(self) -> None:
        """After this, no exception for the call is raised in this thread."""
        if self._take_ticket():
            return
        while not self.interrupted:  # briefly; `Stuck` may be raised here, as in the work
            time.sleep(0.001)
        _raise_in(self.thread, None)  # the call has returned after all


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
