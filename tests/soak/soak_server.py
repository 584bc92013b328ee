"""`imagine` with the fake model, as `fake_imagine`, that notes when steps begin and requests end.

`GET /soak` returns the notes since the last call: `began`, the times of steps, and
`ended`, the times of requests by their ids; all on the machine's monotonic clock.

A step takes SOAK_STEP seconds, and at least one turn of the event loop: a real step takes so long
that the loop has seen the events of its beginning by its end, and that must hold on a busy machine.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from imagine_core import hookimpl
from imagine_core.cli import build_cli, main
from imagine_core.engine.jobs import Job
from imagine_core.testing import FakePlugin, build_test_plugins
from imagine_core.web.app import AsciiJSONResponse

TURNS = 20
"""Of the event loop: from the end of a connection to the cancelled job it takes about ten."""


class Notes:
    """A plugin that notes, and answers `GET /soak`."""

    def __init__(self, step: float) -> None:
        self._step = step
        self._loop: asyncio.AbstractEventLoop | None = None
        self._began: list[float] = []
        self._ended: dict[str, float] = {}

    @hookimpl
    def register_routes(self, register: Callable[[BaseRoute], None]) -> None:
        register(Route("/soak", self._answer, methods=["GET"]))

    async def _answer(self, _: Request) -> AsciiJSONResponse:
        self._loop = asyncio.get_running_loop()
        began, self._began = self._began, []
        ended, self._ended = self._ended, {}
        return AsciiJSONResponse({"began": began, "ended": ended})

    def step(self, rows: int) -> None:
        """What the fake model does before each forward."""
        del rows
        self._began.append(time.monotonic())
        time.sleep(self._step)
        if self._loop is not None:
            come_round(self._loop)

    def watch(self, close: Callable[[Any], None]) -> Callable[[Any], None]:
        """`close` of the engine's jobs, which is called when one leaves the device or the queue."""

        def noted(job: Any) -> None:
            close(job)
            self._ended.setdefault(job.id, time.monotonic())

        return noted


def come_round(loop: asyncio.AbstractEventLoop) -> None:
    """Wait for some turns of `loop`, if it still turns."""
    done = threading.Event()

    def turn(left: int) -> None:
        if left:
            loop.call_soon(turn, left - 1)
        else:
            done.set()

    try:
        loop.call_soon_threadsafe(turn, TURNS)
    except RuntimeError:
        return
    done.wait(10)


if __name__ == "__main__":
    notes, fake = Notes(float(os.environ["SOAK_STEP"])), FakePlugin()
    fake.loader.before = notes.step
    setattr(Job, "close", notes.watch(Job.close))  # noqa: B010 - mypy minds methods
    extra = [("soak", notes)]
    sys.exit(main(program=build_cli(lambda: build_test_plugins(fake, extra=extra))))
