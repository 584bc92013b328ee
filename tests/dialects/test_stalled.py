"""A sampler that holds the device for ever, as clients see it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from calls import SMALL, error_of
from imagine_core import Evaluation, SamplerSpec, Sampling, SamplingTask, hookimpl
from imagine_core.engine import watchdog
from slow_server import LONG, Server, wait_until


class Blocks:
    """A sampler that waits in C code, where no exception reaches it."""

    def __init__(self) -> None:
        self.release = threading.Event()

    @hookimpl
    def register_samplers(self, register: Callable[[SamplerSpec], None]) -> None:
        register(SamplerSpec(name="blocks", label="Blocks", sample=self.sample))

    def sample(self, task: SamplingTask) -> Sampling:
        yield Evaluation(task.noise, 999.0, 0)
        self.release.wait()
        return task.noise


def test_health_tells_the_truth_and_nobody_waits_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "MERCY_SECONDS", 0.2)
    blocks = Blocks()
    server = Server(tmp_path / "m", extra=[("stranger", blocks)], sampler_seconds=2.0)
    with server.running():
        assert httpx.post(server.url + "/generate", json=SMALL, timeout=60).status_code == 200
        before = datetime.now(UTC)
        waiting = server.post(LONG)
        wait_until(lambda: server.phases() == ["denoising"])
        body = {**SMALL, "sampler": "blocks"}
        culprit = httpx.post(server.url + "/generate", json=body, timeout=60)
        for answer in (culprit, httpx.post(server.url + "/generate", json=SMALL, timeout=60)):
            assert answer.status_code == 503
            assert error_of(answer)["type"] == "stalled"
            assert int(answer.headers["retry-after"]) > 0
            assert "sampler 'blocks' of plugin 'stranger'" in error_of(answer)["message"]
        waiting.settimeout(60)
        assert waiting.recv(100).startswith(b"HTTP/1.1 503")
        waiting.close()
        health = httpx.get(server.url + "/health")
        assert health.status_code == 200
        said = health.json()
        assert (said["status"], said["ready"]) == ("stalled", False)
        assert before <= datetime.fromisoformat(said["since"]).replace(microsecond=999_999)
        blocks.release.set()
        wait_until(lambda: httpx.get(server.url + "/health").json()["ready"])
        assert httpx.post(server.url + "/generate", json=SMALL, timeout=60).status_code == 200
