"""Runs admissions with pictures, a few at a time, whatever the preprocessors among them do."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from imagine_core.engine.interrupting import MERCY_SECONDS, Call, Stuck
from imagine_core.engine.plugged import hint_of
from imagine_core.errors import Busy, GenerationFailed

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.interfaces import Preprocessor

T = TypeVar("T")

AT_ONCE = 2
"""Requests that are admitted at once: decoding one picture may take a quarter of a gigabyte."""

PATIENCE_SECONDS = 1.0
"""How long others wait for a preprocessor."""

LONGEST_PAUSE = 1.0

MOST_LOST = 4
"""Threads that a preprocessor may hold for good."""


class Admitting:
    """Admits requests that have pictures on threads of its own.

    Args:
        most: Requests that may wait or be admitted; further ones are refused as busy.
        seconds: How long a preprocessor may take.
    """

    def __init__(self, *, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._room = threading.Semaphore(AT_ONCE)
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="imagine-admit")
        self._busy: set[Future[Any]] = set()
        self._lost: defaultdict[str, list[_Beside[Any]]] = defaultdict(list)

    async def admit(self, look: Callable[[], T]) -> T:
        """The result of `look`; it keeps its place until it ends, even where its caller leaves.

        Raises:
            Busy: As many as may wait do.
        """
        if len(self._busy) >= self._most:
            raise Busy(f"{len(self._busy)} pictures to start from are waiting; try again later")
        future = self._pool.submit(self._in_turn, look)
        self._busy.add(future)
        future.add_done_callback(self._busy.discard)
        return await asyncio.wrap_future(future)

    def prepare(self, preprocessor: Preprocessor, image: Image.Image) -> Image.Image:
        """What `hint_of` makes of `image`; called on any thread but those of `admit`."""
        return self._in_turn(lambda: hint_of(preprocessor, image, guard=self.guard))

    def guard(self, culprit: str, work: Callable[[], T]) -> T:
        """The result of `work`, on a thread of its own; others are admitted while that is slow.

        Called while a request is admitted.

        Raises:
            GenerationFailed: It did not return in time, or has too often not done so.
        """
        lost = self._lost[culprit] = [each for each in self._lost[culprit] if each.is_alive()]
        if len(lost) >= MOST_LOST:
            message = f"{culprit} has not come back {len(lost)} times; start the server again"
            raise GenerationFailed(message)
        beside = _Beside(culprit, work)
        beside.start()
        if not beside.ended.wait(PATIENCE_SECONDS):
            self._room.release()
            try:
                self._wait(beside)
            finally:
                self._room.acquire()
        return beside.result(self._seconds)

    def _in_turn(self, look: Callable[[], T]) -> T:
        with self._room:
            return look()

    def _wait(self, beside: _Beside[Any]) -> None:
        call = beside.call
        while (late := call.late(self._seconds)) < 0:
            if beside.ended.wait(min(-late, LONGEST_PAUSE)):
                return
        call.interrupt()
        if not beside.ended.wait(MERCY_SECONDS):
            self._lost[call.culprit].append(beside)
            message = f"{call.culprit} did not come back within {self._seconds:g} s"
            raise GenerationFailed(f"{message} and cannot be stopped")


class _Beside(threading.Thread, Generic[T]):
    """A thread for one call."""

    def __init__(self, culprit: str, work: Callable[[], T]) -> None:
        super().__init__(name="imagine-beside", daemon=True)
        self.call = Call(culprit, thread=0)
        self.ended = threading.Event()
        self._work = work
        self._result: T | BaseException = Stuck()

    def run(self) -> None:
        """Make the call."""
        self.call.thread = threading.get_ident()
        try:
            self._result = self.call.run(self._work)
        except BaseException as error:  # `result` raises it
            self._result = error
        self.ended.set()

    def result(self, seconds: float) -> T:
        """What the call returned, or raises what it raised; once it has ended."""
        if isinstance(self._result, Stuck):
            raise GenerationFailed(self.call.stopped(seconds))
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result
