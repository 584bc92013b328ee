"""Tells plugins which generations start and end, so that no plugin can harm one."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagine_core.engine.jobs import Job
    from imagine_core.plugins import Plugins
    from imagine_core.types import Generation

log = logging.getLogger("imagine")

BACKLOG = 10_000
"""Calls that may wait for observers; one that hangs must not fill the memory."""

HOOKS = ("generation_started", "generation_finished")


class Observers:
    """Calls the observing hooks on a thread of their own: a slow plugin delays only other plugins.

    Each job is reported once as started and once as finished, in that order.
    """

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._news: queue.Queue[Callable[[], None] | None] = queue.Queue(BACKLOG)
        self._open: dict[Job, None] = {}
        self._needed = any(plugins.implement(hook) for hook in HOOKS)
        self._thread = threading.Thread(target=self._run, name="imagine-observers", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        if self._needed:
            self._thread.start()

    def close(self, *, seconds: float = 2.0) -> None:
        """Make the calls that wait, within `seconds`, then stop."""
        if self._thread.is_alive():
            self._put(None)
            self._thread.join(seconds)

    def started(self, job: Job) -> None:
        """Report that `job` was accepted."""
        if self._needed:
            self._open[job] = None
            self._tell("generation_started", job.report(ended=False))

    def finished(self, job: Job) -> None:
        """Report that `job` has ended; the second time, from any thread, does nothing."""
        try:
            del self._open[job]  # atomic: only one of two threads succeeds
        except KeyError:
            return
        self._tell("generation_finished", job.report(ended=True))

    def _tell(self, hook: str, generation: Generation) -> None:
        self._put(partial(self._plugins.tell, hook, generation=generation))

    def _put(self, news: Callable[[], None] | None) -> None:
        try:
            self._news.put_nowait(news)
        except queue.Full:
            log.warning("a plugin that observes generations hangs; it misses one")

    def _run(self) -> None:
        while (news := self._news.get()) is not None:
            news()
