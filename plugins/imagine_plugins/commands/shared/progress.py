"""The progress of a generation on a terminal: one line, rewritten for each event."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from typing import TextIO

from imagine_core.types import GenerationEvent, PhaseEvent, StepEvent, UpscaleEvent

PHASES = {
    "queued": "starting",
    "loading": "loading the model",
    "encoding": "reading the prompt",
    "denoising": "drawing",
    "enlarging": "enlarging",
    "decoding": "finishing",
}
BAR = 24


class Progress:
    """Shows events as they come: the phase, or a bar with step, steps and the time left.

    Args:
        stream: Where to write; nothing unless it is a terminal.
        images: Pictures in the request.
        doing: What its steps do.
        quiet: Write nothing.
        clock: Seconds, from any start.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        images: int = 1,
        doing: str = PHASES["denoising"],
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shown = stream.isatty() and not quiet
        self._stream = stream
        self._images = images
        self._doing = doing
        self._clock = clock
        self._length = 0
        self._done: dict[int, int] = {}
        self._first: tuple[float, int] | None = None

    def say(self, text: str) -> None:
        """Show `text` until the next event."""
        if self.shown:
            text = text[: shutil.get_terminal_size().columns - 3]  # room for a "^C"
            rest = max(0, self._length - len(text))
            self._stream.write("\r" + text + " " * rest + "\b" * rest)
            self._stream.flush()
            self._length = len(text)

    def update(self, event: GenerationEvent | UpscaleEvent) -> None:
        """Show `event`."""
        match event:
            case PhaseEvent(phase="queued", position=position, wait=wait) if position:
                about = "" if wait is None else f", about {duration(wait)}"
                self.say(f"waiting: {position} ahead{about}")
            case PhaseEvent(phase="loading", fraction=float(fraction)):
                self.say(f"{PHASES['loading']} {bar(fraction)} {fraction:.0%}")
            case PhaseEvent(phase=phase):
                self.say(PHASES[phase])
            case StepEvent(step=step, steps=steps, image=image):
                self._done[image] = step
                self._step(sum(self._done.values()), steps * self._images)

    def clear(self) -> None:
        """Clear the line for further output."""
        if self._length:
            self._length += 2  # the terminal may have shown a "^C"
            self.say("")

    def _step(self, done: int, total: int) -> None:
        now = self._clock()
        if self._first is None:  # loading and encoding do not count
            self._first = (now, done)
        since, before = self._first
        left = ""
        if done > before:
            left = duration((now - since) / (done - before) * (total - done)) + " left"
        self.say(f"{self._doing} {bar(done / max(total, 1))} {done}/{total}  {left}")


def bar(fraction: float) -> str:
    """A bar filled to `fraction`."""
    filled = int(BAR * min(max(fraction, 0.0), 1.0))
    return "[" + "#" * filled + "-" * (BAR - filled) + "]"


def duration(seconds: float) -> str:
    """Seconds for people: 0:07, 1:02:03."""
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
