"""Proves that one file is enough: `python check.py dist/imagine`.

Every command runs with an empty environment, a home of its own, and a path that leads nowhere: no
Python, no shell, nothing that this machine has and another may lack but its C library.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 300
STARTS = 5
LIMIT = 1.0
"""Seconds that `imagine --version` may take from the second start on."""

PLUGIN = """\
import sqlite3  # of the standard library, and nothing that Imagine itself imports

from imagine_core import hookimpl
from imagine_core.sampling import sigma_sampler


def by_hand(x, sigmas, noise):
    for now, after in zip(sigmas, sigmas[1:]):
        x = x + (x - (yield x, now)) / now * (after - now)
    return x


@hookimpl
def register_samplers(register):
    register(sigma_sampler(by_hand, name="of a stranger", label="Of a stranger", evaluations=1))
"""


class Binary:
    """The executable, and the home that it runs in."""

    def __init__(self, path: Path, home: Path) -> None:
        self.path, self.home = path, home
        self.environment = {"HOME": str(home), "PATH": "/nonexistent"}

    def __call__(self, *arguments: str, fails: bool = False) -> str:
        """Run it with these arguments; its output."""
        done = subprocess.run(
            [self.path, *arguments],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if (done.returncode != 0) is not fails:
            sys.exit(
                f"imagine {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The address of a server."""
        command = [str(self.path), "serve", "--host", "127.0.0.1", "--port", "0"]
        with subprocess.Popen(
            command, env=self.environment, cwd=self.home, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            line = next(line for line in process.stderr if line.startswith("listening on"))
            yield line.split()[2].rstrip(",")
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0, "SIGTERM is no failure"


def fetch(url: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON that a route answers with."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(url, data, timeout=PATIENCE) as answer:  # noqa: S310 - our own
        return json.load(answer)


def seconds(binary: Binary, *arguments: str) -> float:
    """The seconds that a run takes."""
    started = time.monotonic()
    binary(*arguments)
    return time.monotonic() - started


def check_starts(binary: Binary) -> None:
    """It starts, and quickly from the second time on."""
    first = seconds(binary, "--version")
    later = sorted(seconds(binary, "--version") for _ in range(STARTS))
    print(f"first start {first:.1f} s; later ones " + ", ".join(f"{s:.2f}" for s in later) + " s")
    assert later[STARTS // 2] < LIMIT, f"a start takes more than {LIMIT} s"


def check_commands(binary: Binary) -> None:
    """Every command has its help, and those that need no model do what they are for."""
    plugins = json.loads(binary("plugins", "--json"))
    assert len(plugins) > 20, "the built-in plugins are found"
    assert [each for each in plugins if each["problem"]] == []
    commands = [each for each in plugins if "register_commands" in each["hooks"]]
    for each in commands:
        name = each["name"].removeprefix("imagine-command-")
        assert f"Usage: imagine {name}" in binary(name, "--help")
    assert "doodle" in binary("list")
    assert "euler a" in binary("samplers")
    assert "default" in binary("config")
    assert f"ExecStart={binary.path} serve" in binary("service", "install", "--print")
    assert binary("enhance", "a cat", "--enhancer", "table").strip()
    binary("nonsense", fails=True)


def check_pictures(binary: Binary, *, sampler: str = "dpm++ 2m") -> None:
    """It draws, here and as a server, and knows afterwards what it drew."""
    size = ("-w", "128", "-h", "128", "-n", "3", "--seed", "1")
    started = time.monotonic()
    drawn = binary("run", "a red house", *size, "--sampler", sampler, "-o", "a.png").strip()
    print(f"a picture in a process of its own: {time.monotonic() - started:.1f} s")
    assert json.loads(binary("info", drawn))["sampler"] == sampler
    assert Path(binary.home, binary("convert", "--force", drawn).strip()).stat().st_size > 1000
    with binary.serving() as address:
        body = {"prompt": "a red house", "width": 128, "height": 128, "steps": 3, "seed": 1}
        assert fetch(f"{address}/generate", {**body, "sampler": sampler})["sampler"] == sampler
        assert "doodle" in binary("ps", "-a", address)
        with urllib.request.urlopen(f"{address}/", timeout=PATIENCE) as page:  # noqa: S310
            assert b"<html" in page.read(), "the page is inside"


def check_stranger(binary: Binary) -> None:
    """A wheel that is unpacked into ~/.imagine/plugins takes part."""
    folder = binary.home / ".imagine" / "plugins"
    folder.mkdir(parents=True)
    wheel = binary.home / "stranger-1.0-py3-none-any.whl"
    info = "stranger-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("stranger.py", PLUGIN)
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
        file.writestr(f"{info}/entry_points.txt", "[imagine]\nsampler-stranger = stranger\n")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    report = next(p for p in json.loads(binary("plugins", "--json")) if "stranger" in p["name"])
    assert report["problem"] is None, report
    assert (report["distribution"], report["version"]) == ("stranger", "1.0")
    check_pictures(binary, sampler="of a stranger")


def main(path: str) -> None:
    """Run every check."""
    with tempfile.TemporaryDirectory() as home:
        binary = Binary(Path(path).resolve(strict=True), Path(home))
        check_starts(binary)
        check_commands(binary)
        check_pictures(binary)
        check_stranger(binary)
    print(f"{path} works: {Path(path).stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1])
