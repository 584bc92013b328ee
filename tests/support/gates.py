"""Gates before the steps of the fake model, so that tests decide when each of them is made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

PATIENCE = 120.0  # seconds after which a test that has failed lets go


class Gate:
    """Stands before each step of the fake model, open at first."""

    def __init__(self) -> None:
        self.begun = 0
        self._last: int | None = None
        self._changed = threading.Condition()

    def __call__(self, _rows: int) -> None:
        with self._changed:
            self.begun += 1
            number = self.begun
            self._changed.wait_for(lambda: self._may(number), timeout=PATIENCE)

    def _may(self, number: int) -> bool:
        return self._last is None or number <= self._last

    def hold_after(self, steps: int) -> None:
        """Let so many steps through from now on, and no more."""
        self._set(self.begun + steps)

    async def step_until(self, condition: Callable[[], object]) -> None:
        """Let single steps through, between which the engine looks around, until it is so."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while not condition():
            assert asyncio.get_running_loop().time() < end, "it did not happen in time"
            self.hold_after(0)
            await asyncio.sleep(0.01)

    def open(self) -> None:
        """Let everything through."""
        self._set(None)

    def _set(self, last: int | None) -> None:
        with self._changed:
            self._last = last
            self._changed.notify_all()
