"""Ctrl-C, from our first line to our last."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagine_core import interrupts

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")

MOMENTS = 15
PROGRAMS = {
    "script": [str(Path(sys.executable).with_name("imagine"))],
    "module": ["-m", "imagine_core"],
}


def interrupted(program: str, *, after: int | None) -> tuple[int, list[str], int]:
    """How `imagine plugins` ends that is interrupted after it has imported so many modules.

    Python's log of imports is the clock: it goes as slowly as the machine. Its first lines come
    before any of ours runs.

    Returns:
        The exit code, what it said on stderr, and how many modules it imported.
    """
    command = [sys.executable, "-X", "importtime", *PROGRAMS[program], "plugins"]
    said, count = [], None
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if not line.startswith("import time:"):
                said.append(line)
            elif count is not None:
                count += 1
            elif line.split("|")[-1].strip() == interrupts.__name__:
                count = 0
            if count is not None and count == after:
                process.send_signal(signal.SIGINT)
                after = None
    return process.returncode, said, count or 0


@pytest.mark.parametrize("program", PROGRAMS)
def test_ctrl_c_at_any_moment_of_the_start_is_quiet(program: str) -> None:
    code, said, modules = interrupted(program, after=None)
    assert (code, said) == (0, [])
    codes = []
    for moment in range(MOMENTS):
        code, said, _ = interrupted(program, after=1 + moment * modules // MOMENTS)
        codes.append(code)
        assert "".join(said).strip() in {"", "Interrupted"}, moment
    assert set(codes) <= {130, 0}
    assert codes[0] == 130


def test_an_interrupt_that_python_drops_is_raised_after_all() -> None:
    program = """
import signal, time
from imagine_core import interrupts

class Interrupting:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)  # Python reports what a finaliser raises, and goes on

interrupts.end_at_once()
interrupts.raise_again()
try:
    Interrupting()
    for _ in range(3000):  # a longer sleep would not be cut short: no signal comes from outside
        time.sleep(0.01)
except KeyboardInterrupt:
    print("interrupted")
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("interrupted\n", "")


@pytest.fixture
def _usual_handler() -> Iterator[None]:
    """Python's own handler at the start, and whatever there was before at the end."""
    before, hook = signal.signal(signal.SIGINT, signal.default_int_handler), sys.unraisablehook
    yield
    signal.signal(signal.SIGINT, before)
    sys.unraisablehook = hook


@pytest.mark.usefixtures("_usual_handler")
def test_a_start_is_over_once_there_may_be_something_to_tidy() -> None:
    interrupts.end_at_once()
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    interrupts.raise_again()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("_usual_handler")
def test_a_background_job_stays_deaf_to_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.end_at_once()
    interrupts.raise_again()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.usefixtures("_usual_handler")
def test_what_else_fails_in_a_finaliser_is_shown_as_ever(
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupts.end_at_once()
    interrupts.raise_again()

    class Failing:
        def __del__(self) -> None:
            raise ValueError("of a finaliser")

    Failing()
    assert "ValueError: of a finaliser" in capsys.readouterr().err


@pytest.mark.usefixtures("_usual_handler")
def test_what_an_interrupt_tore_apart_does_not_complain(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Torn:
        def __del__(self) -> None:
            raise AttributeError("half made")

    interrupts.end_at_once()
    interrupts.raise_again()
    torn = Torn()
    interrupts.hush()
    del torn
    assert capsys.readouterr().err == ""
