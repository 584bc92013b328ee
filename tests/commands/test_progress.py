from __future__ import annotations

import io
import os

import pytest

from imagine_core import GenerationEvent, PhaseEvent, StepEvent
from imagine_core.testing import FakeClock
from imagine_plugins.commands.shared.progress import Progress


class Terminal(io.StringIO):
    """A terminal that knows what a person would see on its last line."""

    def isatty(self) -> bool:
        return True

    @property
    def line(self) -> str:
        cells: list[str] = []
        at = 0
        for character in self.getvalue().rpartition("\n")[2]:
            if character == "\r":
                at = 0
            elif character == "\b":
                at -= 1
            else:
                cells[at : at + 1] = [character]
                at += 1
        return "".join(cells).rstrip()


def step(number: int, *, steps: int = 10, image: int = 0) -> StepEvent:
    return StepEvent(step=number, steps=steps, seed=1, image=image)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (PhaseEvent(phase="queued"), "starting"),
        (PhaseEvent(phase="queued", position=3), "waiting: 3 ahead"),
        (PhaseEvent(phase="queued", position=3, wait=72.4), "waiting: 3 ahead, about 1:13"),
        (PhaseEvent(phase="loading"), "loading the model"),
        (
            PhaseEvent(phase="loading", fraction=0.25),
            "loading the model [######------------------] 25%",
        ),
        (PhaseEvent(phase="decoding"), "finishing"),
        (step(5), "drawing [############------------] 5/10"),
    ],
)
def test_each_event_is_said_in_a_line_of_its_own(event: GenerationEvent, line: str) -> None:
    terminal = Terminal()
    progress = Progress(terminal)
    progress.say("a much longer line than any of those that come after it in this test")
    progress.update(event)
    assert terminal.line == line


def test_the_time_left_counts_from_the_first_step_not_from_loading() -> None:
    terminal, clock = Terminal(), FakeClock()
    progress = Progress(terminal, clock=clock)
    progress.update(PhaseEvent(phase="loading"))
    clock.advance(1000)
    for number in (1, 2, 3):
        progress.update(step(number))
        clock.advance(20)
    assert terminal.line.endswith("3/10  2:20 left")


def test_the_steps_of_several_pictures_add_up() -> None:
    terminal, clock = Terminal(), FakeClock()
    progress = Progress(terminal, images=2, clock=clock)
    for number in (1, 2, 3):
        for image in (0, 1):
            progress.update(step(number, image=image))
            clock.advance(600)
    assert " 6/20 " in terminal.line
    assert terminal.line.endswith("2:20:00 left")


def test_a_cleared_line_is_empty_even_where_ctrl_c_was_echoed() -> None:
    terminal = Terminal()
    progress = Progress(terminal)
    progress.say("loading the model")
    terminal.write("^C")
    progress.clear()
    assert terminal.line == ""


def test_a_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((20, 24)))
    terminal = Terminal()
    Progress(terminal).update(step(5))
    assert terminal.line == "drawing [########"


@pytest.mark.parametrize(("stream", "quiet"), [(io.StringIO(), False), (Terminal(), True)])
def test_nothing_is_written_where_nobody_looks(stream: io.StringIO, *, quiet: bool) -> None:
    progress = Progress(stream, quiet=quiet)
    progress.say("starting")
    progress.update(step(1))
    progress.clear()
    assert not progress.shown
    assert stream.getvalue() == ""
