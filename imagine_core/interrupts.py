"""Ctrl-C: an end without a word while the program starts and when it is done, an exception between.

While modules are imported there is nothing to tidy, and an exception could not be relied on: Python
drops those that come up in its callbacks, with a traceback, and some libraries catch everything.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

INTERRUPTED = 130

MOMENT = 0.01
"""Seconds after which an interrupt that Python dropped is raised anew."""


def end_at_once() -> None:
    """Let Ctrl-C end the process from here on, unless it is ignored or somebody else's."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
    """Let Ctrl-C be a `KeyboardInterrupt` from here on, if it was to end the process."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = _raise_dropped


def hush() -> None:
    """Keep to itself, from here on, what an interrupt tore apart and what fails as it is cleared.

    An event loop that was interrupted while it was made has no `_closed` to look at in its end.
    """
    if sys.unraisablehook is _raise_dropped:
        sys.unraisablehook = _drop


def _drop(_dropped: Any) -> None:
    pass


def _end(_signal: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def _raise_dropped(dropped: Any) -> None:
    """Raise an interrupt anew that came up in a callback or a finaliser; show what else did."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return
    import _thread
    import threading

    again = threading.Timer(MOMENT, _thread.interrupt_main)
    again.daemon = True
    again.start()
