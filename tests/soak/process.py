"""The server of the soak as a process: its log, its memory, its files, its counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from soak import soak_server

ARGUMENTS = ("serve", "--host", "127.0.0.1", "-p", "0", "--log-format", "json")
BOUNDS = ("--max-rows", "96", "--max-queue", "120")


class ServerProcess:
    """A running server.

    Attributes:
        url: Where it listens.
        log: Every line that it wrote so far.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._proc = Path("/proc") / str(process.pid)
        self.url = ""
        self.log: list[dict[str, Any]] = []
        self._listening, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        assert self._listening.wait(60), "the server did not start"

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(json.loads(line))
            message = self.log[-1]["message"]
            if message.startswith("listening on"):
                self.url = message.split()[2].rstrip(",")
                self._listening.set()
        self._ended.set()

    def stop(self) -> None:
        """Stop it as a service manager does, and read its log to the end."""
        self._process.terminate()
        assert self._process.wait(60) == 0
        assert self._ended.wait(60)

    def memory(self) -> int:
        """Bytes that it has in memory."""
        status = (self._proc / "status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    def files(self) -> list[str]:
        """What its open files are, sorted."""
        found = []
        for each in (self._proc / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed while we look
                name = str(each.readlink())
                kind = name.partition(":")[0]
                found.append(kind if kind in ("socket", "pipe") else name)
        return sorted(found)

    def get(self, path: str) -> Any:
        """What it answers to a question."""
        return httpx.get(self.url + path, timeout=60).json()

    def outcomes(self) -> dict[str, list[str]]:
        """How each request ended, by its id, as often as the log says so."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for line in list(self.log):
            if "id" in line:
                found[line["id"]].append(line["outcome"])
        return found

    def metrics(self) -> Counter[str]:
        """Its counts; generations by their outcome, and jobs by their state."""
        counts: Counter[str] = Counter()
        text = httpx.get(self.url + "/metrics", timeout=60).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                label = sample.labels.get("outcome") or sample.labels.get("state")
                counts[f"{sample.name} {label}" if label else sample.name] += int(sample.value)
        return counts


@contextmanager
def soak_process(folder: Path, *, step: float) -> Iterator[ServerProcess]:
    """A server over one fake model."""
    folder.mkdir(exist_ok=True)
    (folder / "tiny.fake").touch()
    command = [sys.executable, soak_server.__file__, *ARGUMENTS, *BOUNDS, "--models", str(folder)]
    environment = {**os.environ, "SOAK_STEP": str(step)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield ServerProcess(process)
        finally:
            process.kill()
