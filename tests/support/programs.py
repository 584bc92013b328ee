"""Runs the program in new processes, with the fake model or with doodle."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
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


@contextmanager
def serving_doodle(
    models: Path, *options: str, key: str = ""
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server as a user starts it, with the bundled model and those in `models`; its address."""
    where = ("--host", "127.0.0.1", "-p", "0", "-d", "cpu", "--models", str(models))
    with subprocess.Popen(
        [sys.executable, "-m", "imagine_core", "serve", *where, *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "IMAGINE_API_KEY": key},
    ) as process:
        assert process.stderr is not None
        reading = threading.Thread(target=process.stderr.read)  # a full pipe would stop it
        found = (re.search(r"http://[\w.:]+", line) for line in process.stderr)
        try:
            address = next(match[0] for match in found if match)
            reading.start()
            yield address, process
        finally:
            process.terminate()
            if reading.ident is not None:
                reading.join()
