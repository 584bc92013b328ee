"""A client may disconnect at any moment: its work ends at the next step.

The queue, the load of the model and the steps in general are in test_reply.py.
"""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from calls import SMALL
from imagine_core.engine import engine
from imagine_core.testing import FakeModel
from imagine_core.web import generation
from sent_pictures import box_mask, encoded, noise
from slow_server import LONG, Server, wait_until

Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server that ends with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            Server(tmp_path / "models", **options).running()
        )


class Gate:
    """Stands in for a function of somebody's, and holds its callers until it is opened."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.calls = 0
        behind = getattr(owner, name)

        def held(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            self.entered.set()
            assert self.open.wait(60)
            return behind(*arguments, **options)

        patch.setattr(owner, name, held)


def leave_at(gate: Gate, server: Server, body: dict[str, Any]) -> None:
    """Ask, go while the gate holds the request, let the server see it, and open the gate."""
    connection = server.post(body)
    assert gate.entered.wait(30)
    go(server, connection)
    gate.open.set()
    wait_until(lambda: not server.phases())


def go(server: Server, connection: socket.socket) -> None:
    """Close the connection, and wait until the server has noticed."""
    connection.close()
    wait_until(lambda: httpx.get(server.url + "/jobs").json()["jobs"] == [])


def test_while_the_prompt_is_read(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()
    gate = Gate(monkeypatch, FakeModel, "encode_prompt")
    leave_at(gate, server, {**LONG, "n": 4, "guidance": 1})
    assert server.forwards == 0
    assert gate.calls == 1


def test_in_the_middle_of_a_step(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()
    gate = Gate(monkeypatch, FakeModel, "predict")
    leave_at(gate, server, {**LONG, "n": 4})
    assert gate.calls == 1


@pytest.mark.parametrize("steps", [1, 4])
def test_while_the_picture_is_decoded(
    start: Start, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    server = start()
    gate = Gate(monkeypatch, FakeModel, "decode")
    leave_at(gate, server, {**SMALL, "steps": steps, "n": 4})
    assert gate.calls == 1


def test_while_the_picture_is_written(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()
    gate = Gate(monkeypatch, generation, "finished")
    leave_at(gate, server, {**SMALL, "n": 1})
    assert httpx.post(server.url + "/generate", json=SMALL, timeout=30).status_code == 200


def test_while_a_repainted_picture_is_put_together(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    gate = Gate(monkeypatch, engine, "finished")
    picture, mask = (
        base64.b64encode(encoded(each)).decode() for each in (noise(), box_mask((8, 8, 40, 40)))
    )
    body = {**SMALL, "img": picture, "mask": mask, "strength": 1, "mask_padding": 4}
    leave_at(gate, server, body)
    assert gate.calls == 1
    kept = server.post({**body, "on_disconnect": "finish"})
    wait_until(lambda: gate.calls == 2)
    kept.close()
    wait_until(lambda: [job["status"] for job in jobs(server)] == ["final"])
    (job,) = jobs(server)
    assert httpx.get(f"{server.url}/jobs/{job['id']}").json()["img"]


def jobs(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(server.url + "/jobs").json()["jobs"]
    return found


def test_while_the_picture_is_sent(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()

    def noise(*_: Any, **__: Any) -> tuple[dict[str, Any], bytes]:
        return {}, bytes(24 * 2**20)  # more than any buffer on the way takes

    monkeypatch.setattr(generation, "finished", noise)
    connection = server.post(SMALL, receive_buffer=4096)

    def sending() -> bool:
        found = httpx.get(server.url + "/jobs").json()["jobs"]
        return [job["status"] for job in found] == ["final"]

    wait_until(sending)
    assert not server.phases()  # another request has the device by now
    go(server, connection)
