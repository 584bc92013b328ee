"""Runs the program with the fake model in new processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fake_imagine

KEY = "a key"


@dataclass(frozen=True)
class Ended:
    """The exit status and output of a run."""

    code: int
    out: str
    err: str

    @property
    def files(self) -> list[Path]:
        """The files it reports as saved."""
        return [Path(line) for line in self.out.splitlines()]


Imagine = Callable[..., Ended]


def command(*arguments: str | Path) -> list[str]:
    """The command line of the program with the fake model."""
    return [sys.executable, fake_imagine.__file__, *map(str, arguments)]


@contextmanager
def serving(
    folder: Path, *, step: float, **variables: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server with one fake model, and its address.

    `step` is the seconds of an evaluation; `variables` are added to the environment.
    """
    folder.mkdir(exist_ok=True)
    (folder / "tiny.fake").touch()
    arguments = command("serve", "--host", "127.0.0.1", "-p", "0", "--models", folder)
    environment = {**os.environ, "FAKE_STEP": str(step), "IMAGINE_API_KEY": KEY, **variables}
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if line.startswith("listening on"))
            yield line.split()[2].rstrip(","), process
        finally:
            process.kill()
