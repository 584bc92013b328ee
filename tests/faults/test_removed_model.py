"""A model's file is removed under a running server: running requests finish, others fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from calls import SMALL, error_of
from slow_server import LONG, Server, wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "models").running() as server:
        yield server


def post(server: Server, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(server.url + "/generate", json=body, timeout=60)


def test_a_picture_in_progress_is_finished_and_the_next_is_told_that_it_is_gone(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "models" / "other.fake").touch()
    body = {**SMALL, "model": "tiny", "steps": 50, "progress": True}
    with httpx.stream("POST", server.url + "/generate", json=body, timeout=60) as reply:
        lines = reply.iter_lines()
        wait_until(lambda: server.forwards)
        (tmp_path / "models" / "tiny.fake").unlink()
        refused = post(server, {**SMALL, "model": "tiny"})
        *_, last = (json.loads(line) for line in lines)
    assert last["status"] == "final"
    assert refused.status_code == 404
    assert error_of(refused)["type"] == "unknown_name"
    assert str(tmp_path) not in refused.text
    assert "tiny" not in httpx.get(server.url + "/models").json()["models"]
    assert post(server, {**SMALL, "model": "other"}).status_code == 200


def test_a_model_that_goes_between_the_request_and_its_load_is_an_error_of_its_own(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    make_room = server.engine._worker.models.make_room

    def held(*arguments: Any, **options: Any) -> Any:
        reached.set()
        assert go_on.wait(60)
        return make_room(*arguments, **options)

    monkeypatch.setattr(server.engine._worker.models, "make_room", held)
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(post(server, SMALL)))
    asking.start()
    assert reached.wait(60)
    (tmp_path / "models" / "tiny.fake").unlink()
    go_on.set()
    asking.join(60)
    (answer,) = answers
    assert answer.status_code == 422
    assert error_of(answer)["type"] == "unusable_model"
    assert "removed" in error_of(answer)["message"]
    assert str(tmp_path) not in answer.text
    (tmp_path / "models" / "tiny.fake").touch()
    assert post(server, SMALL).status_code == 200


def test_a_model_that_is_back_serves_again(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "models" / "tiny.fake"
    assert post(server, SMALL).status_code == 200
    path.unlink()
    assert post(server, {**SMALL, "model": "tiny"}).status_code == 404
    path.touch()
    assert post(server, {**SMALL, "model": "tiny"}).status_code == 200


def test_a_folder_that_is_removed_is_said_and_no_crash(server: Server, tmp_path: Path) -> None:
    connection = server.post(LONG)
    wait_until(lambda: server.forwards)
    (tmp_path / "models" / "tiny.fake").unlink()
    (tmp_path / "models").rmdir()
    assert httpx.get(server.url + "/health").json()["ready"] is True
    assert post(server, {**SMALL, "model": "tiny"}).status_code == 404
    connection.close()
