"""The wall clock may jump, forth and back: nothing depends on it."""

from __future__ import annotations

import ast
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from calls import SMALL
from faults.raw import HEALTH, exchange
from imagine_core.settings import ServerSettings
from slow_server import Server, wait_until

ROOT = Path(__file__).parents[2]
HOURS = 3600.0
REAL = time.time


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    keeps = ServerSettings(host="127.0.0.1", keep_results=60)
    with Server(tmp_path / "models", server=keeps, keep_alive=60).running() as server:
        yield server


def get(server: Server, path: str) -> Any:
    return httpx.get(server.url + path, timeout=30).json()


@pytest.mark.parametrize("jump", [10 * HOURS, -10 * HOURS])
def test_what_is_kept_for_a_time_is_kept_for_that_time(
    server: Server, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {**SMALL, "on_disconnect": "finish"}
    name = httpx.post(server.url + "/generate", json=body, timeout=30).json()["id"]
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as idle:
        assert b"200 OK" in exchange(idle, HEALTH)
        monkeypatch.setattr(time, "time", lambda: REAL() + jump)
        server.engine._worker.models.sweep()
        assert get(server, f"/jobs/{name}")["status"] == "final"
        (model,) = get(server, "/ps")["models"]
        assert 0 < model["expires_in"] <= 60
        assert 0 <= model["idle_seconds"] < 60
        assert b"200 OK" in exchange(idle, HEALTH)
    assert len(server.fake.loader.models) == 1


@pytest.mark.parametrize("jump", [10 * HOURS, -10 * HOURS])
def test_a_picture_in_progress_does_not_notice(
    server: Server, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {**SMALL, "steps": 40, "progress": True}
    with httpx.stream("POST", server.url + "/generate", json=body, timeout=60) as reply:
        lines = reply.iter_lines()
        wait_until(lambda: server.forwards)
        monkeypatch.setattr(time, "time", lambda: REAL() + jump)
        *_, last = (json.loads(line) for line in lines)
    assert last["status"] == "final"
    assert all(0 <= seconds < 60 for seconds in last["timings"].values())
    queued = httpx.post(server.url + "/generate", json={**SMALL, "progress": True}, timeout=60)
    waits = [json.loads(line).get("wait") for line in queued.text.splitlines()]
    assert all(wait is None or 0 <= wait < 60 for wait in waits)


def test_no_code_of_ours_measures_with_the_clock_on_the_wall() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("imagine_core", "plugins")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in ("time", "time_ns")
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
    ]
    assert found == []
