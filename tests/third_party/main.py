"""Proves the plugin system as a stranger meets it: wheels in a fresh environment, no checkout.

`nox -s third_party` builds Imagine's wheel, installs it and the example package, draws with the
example's sampler through the command line and over HTTP, finds it in the lists and on the page's
own source of samplers, runs the example's tests, and uninstalls it again.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "imagine-sampler-rk4"
REQUEST = {"prompt": "a red house", "width": 128, "height": 128, "steps": 3, "sampler": "rk4"}


def imagine(*arguments: str) -> str:
    """What `imagine` prints."""
    program = shutil.which("imagine")
    assert program is not None
    done = subprocess.run([program, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


@contextmanager
def server() -> Iterator[str]:
    """The address of a running `imagine serve`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = shutil.which("imagine")
    assert program is not None
    process = subprocess.Popen([program, "serve", "--host", "127.0.0.1", "--port", str(port)])
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                fetch(f"{address}/health")
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        assert process.wait(30) == 0


def fetch(url: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON that a route answers with."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(url, data, timeout=300) as answer:  # noqa: S310 - our own server
        return json.load(answer)


def main() -> None:
    """Use the example, then take it away."""
    reports = {report["name"]: report for report in json.loads(imagine("plugins", "--json"))}
    assert reports["sampler-rk4"]["problem"] is None
    assert reports["sampler-rk4"]["distribution"] == "imagine-sampler-rk4"
    assert [name for name, report in reports.items() if report["problem"]] == []
    assert "rk4" in imagine("samplers")
    with tempfile.TemporaryDirectory() as folder:
        size = ("-w", "128", "-h", "128", "-n", "3")
        drawn = imagine("run", "a red house", "--sampler", "rk4", *size, "-o", folder + "/a.png")
        assert Path(drawn.strip()).is_file()
        assert '"sampler": "rk4"' in imagine("info", drawn.strip())
    with server() as address:
        assert "rk4" in fetch(f"{address}/samplers")["samplers"]  # where the page has them from
        assert fetch(f"{address}/generate", REQUEST)["sampler"] == "rk4"
    pip = [sys.executable, "-m", "pip"]
    settings = str(EXAMPLE / "pyproject.toml")  # not ours, which lies further up
    tests = [sys.executable, "-m", "pytest", "-q", "-c", settings, str(EXAMPLE)]
    subprocess.run(tests, check=True)
    subprocess.run([*pip, "uninstall", "-y", "-q", "imagine-sampler-rk4"], check=True)
    assert "rk4" not in imagine("samplers")
    print("the example package works, and leaves nothing behind")


if __name__ == "__main__":
    main()
