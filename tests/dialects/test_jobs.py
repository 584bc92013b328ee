"""Requests by id: inspected, cancelled, and finished for disconnected clients."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from calls import SMALL, error_of, fields_of
from imagine_core import (
    Enhancement,
    Enhancer,
    EnhanceTask,
    GenerationResult,
    ResolvedRequest,
    hookimpl,
)
from imagine_core.errors import GenerationFailed, UnknownName
from imagine_core.settings import ServerSettings
from imagine_core.testing import FakeClock
from imagine_core.web import exchange, jobs
from imagine_core.web.dialect import Finished, Order
from imagine_core.web.jobs import Jobs
from slow_server import LONG, Server, wait_until

FINISH = {**SMALL, "steps": 40, "on_disconnect": "finish"}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server that ends with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            Server(tmp_path / "models", **options).running()
        )


def get(server: Server, path: str) -> Any:
    return httpx.get(server.url + path, timeout=60).json()


def begin(server: Server, body: dict[str, Any]) -> str:
    """Ask, read the first line, and leave; the id."""
    with httpx.stream(
        "POST", server.url + "/generate", json={**body, "progress": True}, timeout=60
    ) as reply:
        lines = reply.iter_lines()  # it closes the connection when collected
        name = json.loads(next(lines))["id"]
        wait_until(lambda: server.forwards)
    assert isinstance(name, str)
    return name


def ended(server: Server, name: str) -> Any:
    """What is said of a job once it has ended."""
    wait_until(
        lambda: get(server, f"/jobs/{name}").get("status") in {"final", "failed", "cancelled"},
    )
    return get(server, f"/jobs/{name}")


# -- the id --------------------------------------------------------------------------------------


def test_every_reply_has_an_id_in_its_head_and_in_its_first_line(
    start: Callable[..., Server],
) -> None:
    server = start()
    for body in (SMALL, {**SMALL, "stream": 1}, {**SMALL, "progress": True}):
        with httpx.stream("POST", server.url + "/generate", json=body, timeout=60) as reply:
            lines = [json.loads(line) for line in reply.iter_lines()]
        assert lines[0]["id"] == lines[-1]["id"] == reply.headers["x-job-id"]
        assert re.fullmatch("[0-9a-f]{24}", lines[0]["id"])


def test_nobody_can_guess_an_id(start: Callable[..., Server]) -> None:
    server = start()
    names = {
        httpx.post(server.url + "/generate", json=SMALL, timeout=60).json()["id"] for _ in range(5)
    }
    assert len({name[:8] for name in names}) == len({name[-8:] for name in names}) == 5


def test_ps_and_jobs_call_a_request_by_the_same_id(start: Callable[..., Server]) -> None:
    server = start()
    connection = server.post(LONG)
    wait_until(lambda: server.phases() == ["denoising"])
    (listed,) = get(server, "/jobs")["jobs"]
    assert listed["id"] == get(server, "/ps")["jobs"][0]["id"]
    assert listed["status"] == "denoising"
    connection.close()


# -- looking -------------------------------------------------------------------------------------


def test_a_job_says_how_far_it_is(start: Callable[..., Server]) -> None:
    server = start(max_rows=2)
    connections = [server.post(LONG)]
    wait_until(lambda: server.phases() == ["denoising"])
    connections += [server.post(LONG), server.post({**LONG, "n": 2})]
    wait_until(lambda: server.phases() == ["denoising", "queued", "queued"])
    wait_until(lambda: all(job.wait is not None for job in server.engine.status().jobs[1:]))
    found = [job["id"] for job in get(server, "/ps")["jobs"]]

    def said() -> list[Any]:
        return [get(server, f"/jobs/{name}") for name in found]

    wait_until(lambda: all(each.get("wait") for each in said()[1:]))
    running, *waiting = said()
    assert running["status"] == "denoising"
    assert 0 < running["step"] < running["steps"] == LONG["steps"]
    assert [each["status"] for each in waiting] == ["queued", "queued"]
    assert [each["position"] for each in waiting] == [0, 1]
    assert 0 < waiting[0]["wait"] < waiting[1]["wait"]
    assert "step" not in waiting[0]
    for connection in connections:
        connection.close()


def test_a_job_that_has_ended_without_asking_to_be_kept_is_forgotten(
    start: Callable[..., Server],
) -> None:
    server = start()
    name = httpx.post(server.url + "/generate", json=SMALL, timeout=60).json()["id"]
    wait_until(lambda: httpx.get(f"{server.url}/jobs/{name}").status_code == 404)
    assert get(server, "/jobs") == {"jobs": []}
    missing = httpx.get(f"{server.url}/jobs/nonsense")
    assert error_of(missing)["type"] == "unknown_name"
    assert httpx.post(f"{server.url}/jobs/nonsense/cancel").status_code == 404


def test_a_page_from_a_file_may_see_and_cancel_its_job_but_not_list_others(
    start: Callable[..., Server],
) -> None:
    server = start()
    page = {"Origin": "null"}
    connection = server.post(LONG)
    wait_until(lambda: server.phases() == ["denoising"])
    (job,) = get(server, "/jobs")["jobs"]
    path = f"{server.url}/jobs/{job['id']}"
    assert httpx.get(path, headers=page).headers["access-control-allow-origin"] == "null"
    preflight = {**page, "Access-Control-Request-Method": "POST"}
    assert httpx.options(path + "/cancel", headers=preflight).status_code == 204
    assert httpx.post(path + "/cancel", headers=page, json={}).status_code == 200
    assert httpx.get(server.url + "/jobs", headers=page).status_code == 403
    connection.close()


def test_jobs_want_the_key(start: Callable[..., Server]) -> None:
    server = start(server=ServerSettings(host="127.0.0.1", api_key="secret"))
    for path in ("/jobs", "/jobs/x"):
        assert httpx.get(server.url + path).status_code == 401
    assert httpx.post(server.url + "/jobs/x/cancel").status_code == 401
    key = {"Authorization": "Bearer secret"}
    assert httpx.get(server.url + "/jobs", headers=key).json() == {"jobs": []}


# -- cancelling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [LONG, {**LONG, "on_disconnect": "finish"}], ids=["plain", "kept"])
def test_a_job_is_cancelled_at_its_next_step_and_its_client_is_told(
    start: Callable[..., Server], body: dict[str, Any]
) -> None:
    server = start()
    with httpx.stream(
        "POST", server.url + "/generate", json={**body, "progress": True}, timeout=60
    ) as reply:
        lines = reply.iter_lines()  # it closes the connection when collected
        name = json.loads(next(lines))["id"]
        wait_until(lambda: server.forwards >= 3)
        answer = httpx.post(f"{server.url}/jobs/{name}/cancel")
        assert answer.json() == {"id": name, "status": "cancelled"}
        wait_until(lambda: not server.phases())
        done = server.forwards
        *_, last = lines
    assert json.loads(last)["error"]["type"] == "cancelled"
    assert server.forwards == done < LONG["steps"]
    again = httpx.get(f"{server.url}/jobs/{name}")
    assert again.status_code == (200 if "on_disconnect" in body else 404)
    assert error_of(again)["type"] == ("cancelled" if "on_disconnect" in body else "unknown_name")


def test_a_request_that_has_said_nothing_yet_is_cancelled_with_a_status(
    start: Callable[..., Server],
) -> None:
    server = start()
    replies: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: replies.append(httpx.post(server.url + "/generate", json=LONG, timeout=60))
    )
    asking.start()
    wait_until(lambda: server.phases() == ["denoising"])
    (job,) = get(server, "/jobs")["jobs"]
    httpx.post(f"{server.url}/jobs/{job['id']}/cancel")
    asking.join(30)
    assert replies[0].status_code == 409
    assert error_of(replies[0])["type"] == "cancelled"


def test_a_job_in_the_queue_can_be_cancelled(start: Callable[..., Server]) -> None:
    server = start(max_rows=2)
    first = server.post(LONG)
    wait_until(lambda: server.phases() == ["denoising"])
    second = server.post(LONG)
    wait_until(lambda: server.phases() == ["denoising", "queued"])
    name = get(server, "/ps")["jobs"][1]["id"]
    httpx.post(f"{server.url}/jobs/{name}/cancel")
    wait_until(lambda: server.phases() == ["denoising"])
    first.close()
    second.close()


class Thinks(Enhancer):
    """Thinks until it is closed."""

    name, label = "thinks", "Thinks"

    def __init__(self) -> None:
        self.thinking = threading.Event()
        self.closed = threading.Event()

    @hookimpl
    def register_enhancers(self, register: Callable[[Enhancer], None]) -> None:
        register(self)

    async def enhance(self, task: EnhanceTask) -> Any:
        self.thinking.set()
        try:
            await asyncio.sleep(300)
        finally:
            self.closed.set()
        yield Enhancement(prompt=task.prompt)


def test_a_job_whose_prompt_is_being_made_better_can_be_cancelled(
    start: Callable[..., Server],
) -> None:
    thinks = Thinks()
    server = start(extra=[("thinks", thinks)])
    connection = server.post({**SMALL, "enhance": "thinks"})
    assert thinks.thinking.wait(30)
    (job,) = get(server, "/jobs")["jobs"]
    assert job["status"] == "enhancing"
    httpx.post(f"{server.url}/jobs/{job['id']}/cancel")
    assert thinks.closed.wait(30)
    assert get(server, "/jobs") == {"jobs": []}
    connection.close()


# -- finishing without the client ----------------------------------------------------------------


@pytest.mark.parametrize("kind", [{}, {"stream": 2}, {"n": 2}], ids=["plain", "stream", "two"])
def test_what_a_client_left_is_finished_and_is_what_it_would_have_got(
    start: Callable[..., Server], kind: dict[str, Any]
) -> None:
    server = start()
    name = begin(server, {**FINISH, **kind})
    kept = ended(server, name)
    would = httpx.post(server.url + "/generate", json={**SMALL, "steps": 40, **kind}, timeout=60)
    expected = json.loads(would.text.splitlines()[-1])
    assert kept["id"] == name
    assert set(kept) == set(expected)
    for key in {"img", "images", "seed", "status", "steps", "warnings"} & set(kept):
        assert kept[key] == expected[key]
    (listed,) = get(server, "/jobs")["jobs"]
    assert listed["status"] == "final"
    assert 0 < listed["expires_in"] <= 600
    assert httpx.post(f"{server.url}/jobs/{name}/cancel").json()["status"] == "final"


def test_a_result_that_was_sent_is_kept_too_for_who_knows_whether_it_arrived(
    start: Callable[..., Server],
) -> None:
    server = start()
    final = httpx.post(server.url + "/generate", json=FINISH, timeout=60).json()
    assert ended(server, final["id"]) == final


def test_a_failure_is_kept_as_well(start: Callable[..., Server]) -> None:
    server = start()
    name = begin(server, FINISH)
    server.fake.loader.before = lambda rows: 1 / 0
    kept = ended(server, name)
    assert (kept["id"], kept["status"]) == (name, "failed")
    assert kept["error"]["type"] == "generation_failed"


def test_what_was_never_taken_on_drives_no_result_out(start: Callable[..., Server]) -> None:
    server = start()
    name = httpx.post(server.url + "/generate", json=FINISH, timeout=60).json()["id"]
    for wrong in ({"model": "nobody"}, {"sampler": "nobody"}, {"enhance": "nobody"}):
        refused = httpx.post(server.url + "/generate", json={**FINISH, **wrong}, timeout=60)
        assert refused.status_code == 404
    assert [job["id"] for job in get(server, "/jobs")["jobs"]] == [name]


def test_a_client_that_stalls_is_finished_without(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "STALL_SECONDS", 0.3)
    server = start()
    body = {**FINISH, "stream": 1, "width": 1024, "height": 1024}
    connection = server.post(body, receive_buffer=4096)
    wait_until(lambda: get(server, "/jobs")["jobs"])
    (job,) = get(server, "/jobs")["jobs"]
    assert ended(server, job["id"])["status"] == "final"
    connection.close()


def test_a_server_that_keeps_nothing_says_so_and_gives_up_who_left(
    start: Callable[..., Server],
) -> None:
    server = start(server=ServerSettings(host="127.0.0.1", keep_results=0))
    reply = httpx.post(server.url + "/generate", json={**FINISH, "steps": 2}, timeout=60).json()
    assert "on_disconnect" in reply["warnings"][0]
    begin(server, {**LONG, "on_disconnect": "finish"})
    wait_until(lambda: not server.phases())
    assert get(server, "/jobs") == {"jobs": []}


def test_leaving_is_cancelling_unless_something_else_is_said(
    start: Callable[..., Server],
) -> None:
    server = start()
    begin(server, {**LONG, "on_disconnect": "cancel"})
    wait_until(lambda: not server.phases())
    assert server.forwards < LONG["steps"]


@pytest.mark.parametrize("value", ["stay", "", 1, True, ["finish"]])
def test_other_ways_to_leave_are_refused(start: Callable[..., Server], value: object) -> None:
    server = start()
    reply = httpx.post(server.url + "/generate", json={**SMALL, "on_disconnect": value})
    assert fields_of(reply)["on_disconnect"].startswith('must be "cancel" or "finish"')


# -- what is kept ----------------------------------------------------------------------------------

REQUEST = ResolvedRequest(prompt="red")


async def make(found: Jobs, png: bytes, request: ResolvedRequest = REQUEST) -> str:
    record = found.open(Order(request=request, finishes=True))
    async with found.at_work(record):
        result = GenerationResult(images=(), request=request)
        record.finish(Finished(result=result, pngs=(png,), seeds=(1,)))
    return record.id


def names(found: Jobs) -> list[str]:
    return [record.id for record in found]


def test_results_leave_after_their_time() -> None:
    clock = FakeClock()
    found = Jobs(keep=600, clock=clock)

    async def main() -> None:
        first = await make(found, b"1")
        clock.advance(300)
        second = await make(found, b"2")
        clock.advance(299)
        assert names(found) == [first, second]
        clock.advance(1)
        assert names(found) == [second]
        with pytest.raises(UnknownName):
            found.get(first)

    asyncio.run(main())


def test_the_oldest_results_leave_when_there_are_too_many_or_they_are_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "MOST_RESULTS", 3)
    monkeypatch.setattr(jobs, "MOST_BYTES", 100)

    async def main() -> None:
        found = Jobs(keep=600)
        made = [await make(found, b"x" * 10) for _ in range(5)]
        assert names(found) == made[2:]
        large = await make(found, b"x" * 95)
        assert names(found) == [large]
        await make(found, b"x" * 101)
        assert names(found) == []

    asyncio.run(main())


def test_a_kept_result_does_not_hold_the_picture_to_start_from() -> None:
    async def main() -> None:
        found = Jobs(keep=600)
        request = ResolvedRequest(prompt="red", init_image=b"x" * 1000)
        record = found.get(await make(found, b"png", request))
        assert record.order.request.init_image is None
        assert record.request.init_image is None
        assert record.finished is not None
        assert record.finished.result.request.init_image is None
        assert record.finished.pngs == (b"png",)

    asyncio.run(main())


@pytest.mark.parametrize("error", [GenerationFailed("broken"), ZeroDivisionError("oops")])
def test_a_kept_error_has_its_answer_and_no_traceback(error: Exception) -> None:
    from imagine_core.web.app import explain

    async def main() -> None:
        found = Jobs(keep=600)
        record = found.open(Order(request=REQUEST, finishes=True))
        record.begun = True
        with pytest.raises(type(error)):
            async with found.at_work(record):
                raise error
        assert record.outcome == "failed"
        assert record.error is not None
        assert record.error.__traceback__ is None
        assert explain(record.error) == explain(error)

    asyncio.run(main())


def test_a_failure_is_logged_under_one_id_only(caplog: pytest.LogCaptureFixture) -> None:
    from imagine_core.web.app import explain

    error = GenerationFailed("broken")
    assert explain(error) == explain(error)
    assert len(caplog.records) == 1
