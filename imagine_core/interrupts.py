"""Ctrl-C: ends the process silently while it starts and exits, raises an exception in between.

During imports there is nothing to clean up, and an exception would be unreliable: Python drops
those raised in its callbacks, with a traceback, and some libraries catch everything.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

INTERRUPTED = 130

DELAY = 0.01
"""Seconds after which an interrupt that Python dropped is raised again."""


def end_at_once() -> None:
    """Let Ctrl-C end the process from here on, unless it is ignored or handled elsewhere."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` from here on, if `end_at_once` was in force."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = _raise_dropped


def hush() -> None:
    """From here on, silence errors raised while half-built objects are torn down after Ctrl-C.

    An event loop that was interrupted while it was made, for example, has no `_closed` yet.
    """
    if sys.unraisablehook is _raise_dropped:
        sys.unraisablehook = _drop


def _drop(_dropped: Any) -> None:
    pass


def _end(_signal: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def _raise_dropped(dropped: Any) -> None:
    """Raise an interrupt again that a callback or finaliser dropped; show other errors."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return
    import _thread
    import threading

    again = threading.Timer(DELAY, _thread.interrupt_main)
    again.daemon = True
    again.start()
