"""Clients that leave, stall or crowd, against a live server: none of them harms the others."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from calls import SMALL, app_of, error_of, lines_of
from gates import PATIENCE, Gate
from imagine_core.settings import Limits
from imagine_core.web import exchange
from slow_server import LONG, Server, wait_until


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server that ends with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            Server(tmp_path / "models", **options).running()
        )


KINDS = [{}, {"stream": 1}, {"progress": True}, {"stream": 400, "progress": True}]


@pytest.mark.parametrize("kind", KINDS, ids=["object", "stream", "progress", "both"])
def test_a_client_that_leaves_while_its_picture_is_drawn_costs_no_more_steps(
    start: Callable[..., Server], kind: dict[str, Any]
) -> None:
    server = start()
    connection = server.post({**LONG, **kind})
    wait_until(lambda: server.forwards >= 3)
    connection.close()
    wait_until(lambda: not server.phases())
    done = server.forwards
    assert httpx.post(server.url + "/generate", json=SMALL, timeout=60).status_code == 200
    assert server.forwards == done + SMALL["steps"]
    assert done < LONG["steps"]


@pytest.mark.parametrize("kind", KINDS[:2], ids=["object", "stream"])
def test_a_client_that_leaves_the_queue_is_no_longer_in_it(
    start: Callable[..., Server], kind: dict[str, Any]
) -> None:
    server = start(max_rows=2)
    first = server.post(LONG)
    wait_until(lambda: server.phases() == ["denoising"])
    second = server.post({**LONG, **kind})
    wait_until(lambda: server.phases() == ["denoising", "queued"])
    second.close()
    wait_until(lambda: server.phases() == ["denoising"])
    first.close()


def test_a_client_that_leaves_while_the_model_loads_is_forgotten(
    start: Callable[..., Server],
) -> None:
    server, loads = start(), threading.Event()
    server.fake.loader.before_load = lambda: loads.wait(PATIENCE)
    connection = server.post(LONG)
    wait_until(lambda: server.phases() == ["loading"])
    connection.close()
    wait_until(lambda: not server.phases())
    loads.set()
    assert httpx.post(server.url + "/generate", json=SMALL, timeout=60).status_code == 200
    assert server.forwards == SMALL["steps"]


def test_a_client_that_leaves_speeds_up_the_others(start: Callable[..., Server]) -> None:
    server = start(max_rows=2)
    leaving = server.post(LONG)
    wait_until(lambda: server.phases() == ["denoising"])
    with httpx.stream(
        "POST", server.url + "/generate", json={**SMALL, "progress": True}, timeout=60
    ) as answer:
        lines = answer.iter_lines()
        assert json.loads(next(lines))["status"] == "queued"
        leaving.close()
        assert json.loads(list(lines)[-1])["status"] == "final"


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing(
    start: Callable[..., Server],
) -> None:
    server = start()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: x.local\r\nContent-Length: 99\r\n\r\n{"
        )
    assert httpx.get(server.url + "/ps").json()["jobs"] == []


def test_lines_come_when_they_are_true_and_not_all_at_the_end(start: Callable[..., Server]) -> None:
    server, gate = start(), Gate()
    server.fake.loader.before = gate
    gate.hold_after(5)
    body = {**SMALL, "steps": 20, "stream": 5}
    seen = []
    with httpx.stream("POST", server.url + "/generate", json=body, timeout=60) as answer:
        assert answer.headers["cache-control"] == "no-store"
        for line in answer.iter_lines():
            status = json.loads(line)["status"]
            seen.append((status, server.forwards))
            if status != "final":
                wait_until(lambda: gate.begun == server.forwards + 1)
                gate.hold_after(4)  # and the one that it stands before
    assert seen == [("intermediate", 5), ("intermediate", 10), ("intermediate", 15), ("final", 20)]


def test_a_slow_reader_slows_nobody_and_loses_nothing(start: Callable[..., Server]) -> None:
    server = start()
    body = {**SMALL, "width": 1024, "height": 1024, "steps": 30, "stream": 1}
    slow = server.post(body, receive_buffer=4096)
    wait_until(lambda: server.phases() == ["denoising"])
    other = httpx.post(server.url + "/generate", json=SMALL, timeout=60)
    assert other.status_code == 200
    # All steps are done while the reader has read nothing of previews larger than any buffer.
    wait_until(lambda: not server.phases())
    assert server.forwards >= 30
    slow.settimeout(60)
    with slow, slow.makefile("rb") as file:
        lines = lines_of(body_of(file))
    assert [line["status"] for line in lines] == ["intermediate"] * 29 + ["final"]
    assert sum(len(line["img"]) for line in lines) > 4 * 2**20


def body_of(file: Any) -> str:
    """The body of a chunked response."""
    while file.readline() != b"\r\n":
        pass
    parts = []
    while size := int(file.readline(), 16):
        parts.append(file.read(size))
        file.readline()
    return b"".join(parts).decode()


def test_a_client_that_never_reads_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "imagine")
    monkeypatch.setattr(exchange, "STALL_SECONDS", 0.2)
    server = Server(tmp_path / "models")
    messages = [{"type": "http.request", "body": json.dumps({**LONG, "stream": 1}).encode()}]
    scope = {"type": "http", "method": "POST", "path": "/generate", "headers": []}

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":  # as when every buffer on the way is full
            await asyncio.Event().wait()

    asyncio.run(app_of(server.engine)(scope, receive, send))
    wait_until(lambda: not server.phases())
    assert 1 <= server.forwards < LONG["steps"]
    assert "stopped reading" in caplog.text
    server.engine.close(grace=0)


def test_a_full_queue_says_so_and_when_to_come_back(start: Callable[..., Server]) -> None:
    server = start(max_rows=2, limits=Limits(queue=1))
    running = server.post(LONG)
    wait_until(lambda: server.phases() == ["denoising"])
    waiting = server.post(LONG)
    wait_until(lambda: server.phases() == ["denoising", "queued"])
    for body in (SMALL, {**SMALL, "stream": 1}):
        answer = httpx.post(server.url + "/generate", json=body)
        assert answer.status_code == 503
        assert error_of(answer)["type"] == "busy"
        assert int(answer.headers["retry-after"]) > 0
    running.close()
    wait_until(lambda: server.phases() == ["denoising"])
    waiting.close()
    assert httpx.post(server.url + "/generate", json=SMALL, timeout=60).status_code == 200


def test_ps_shows_what_runs_and_what_waits(start: Callable[..., Server]) -> None:
    server = start(max_rows=2)
    connections = [server.post(LONG), server.post(LONG)]
    wait_until(lambda: server.phases() == ["denoising", "queued"])
    answer = httpx.get(server.url + "/ps").json()
    assert answer["queue"] == 1
    first, second = answer["jobs"]
    assert (first["model"], first["steps"], first["width"]) == ("tiny", LONG["steps"], 64)
    assert 0 <= first["step"] < LONG["steps"]
    assert second["position"] == 0
    for connection in connections:
        connection.close()


def test_many_clients_at_once_each_get_their_own_picture(start: Callable[..., Server]) -> None:
    server = start()
    answers: dict[int, dict[str, Any]] = {}

    def ask(seed: int) -> None:
        body = {**SMALL, "seed": seed, "steps": 3 + seed % 4, "stream": seed % 3}
        answer = httpx.post(server.url + "/generate", json=body, timeout=60)
        answers[seed] = lines_of(answer.text)[-1]

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {seed: line["seed"] for seed, line in answers.items()} == {
        seed: str(seed) for seed in range(20)
    }
    assert len({line["img"] for line in answers.values()}) == 20


def test_a_server_that_stops_says_so_in_the_last_line(tmp_path: Path) -> None:
    server = Server(tmp_path / "models")
    with server.running():
        body = {**LONG, "stream": 2}
        with httpx.stream("POST", server.url + "/generate", json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            assert json.loads(next(lines))["status"] == "intermediate"
            server.engine.close(grace=0.1)
            assert json.loads(list(lines)[-1])["error"]["type"] == "shutting_down"
        answer = httpx.post(server.url + "/generate", json=SMALL)
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
