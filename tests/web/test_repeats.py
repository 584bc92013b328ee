"""A client that sends its request again gets the result of the first, drawn once."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from calls import LoopClock, live_with_clock
from engines import png
from gates import Gate
from imagine_core import GenerationResult, ResolvedRequest, hookimpl
from imagine_core.engine import Engine
from imagine_core.errors import Cancelled
from imagine_core.pictures import images
from imagine_core.service import Service
from imagine_core.settings import ServerSettings
from imagine_core.testing import FakeClock, FakePlugin, build_test_engine
from imagine_core.web import jobs
from imagine_core.web.app import build_app, explain
from imagine_core.web.dialect import EVENTS, Event, Finished, Order, Record, speaking
from imagine_core.web.generation import RETURN_SECONDS, generation
from imagine_core.web.jobs import RETRY_SECONDS, Jobs
from slow_server import wait_until

BODY: dict[str, Any] = {"prompt": "red", "width": 64, "height": 64, "steps": 4, "guidance_scale": 1}
RETRY = {"X-Retry": "1"}


class Repeating:
    """A dialect whose clients repeat equal requests, and mark the repetitions."""

    framing = EVENTS

    def __init__(self) -> None:
        self.on_cancel: bytes | None = None

    def read(self, body: bytes, request: Request) -> Order:
        """The order."""
        given = json.loads(body)
        picture = given.pop("picture", None)
        return Order(
            finishes=given.pop("finishes", False),
            keeps=given.pop("keeps", False),
            streams=given.pop("streams", False),
            request=ResolvedRequest(**given, init_image=picture and picture.encode()),
            idempotency_key=sha256(body).hexdigest(),
            retry="x-retry" in request.headers,
        )

    def say(self, event: Event, record: Record) -> bytes | None:
        """The seed, which is drawn, and a digest of the picture."""
        if isinstance(event, Cancelled):
            return self.on_cancel
        if not isinstance(event, Finished):
            return None
        seed, digest = event.seeds[0], sha256(event.pngs[0]).hexdigest()
        said = json.dumps({"seed": seed, "digest": digest}).encode()
        return b"data: " + said + b"\n\n" if record.order.streams else said

    def fail(self, error: Exception, *, begun: bool = False) -> tuple[int, bytes]:
        """The type of the error."""
        status, body = explain(error)
        kind = json.dumps(body["error"]["type"]).encode()
        return status, b"data: " + kind + b"\n\n" if begun else kind


@dataclass
class World:
    """A server over a fake model whose steps a gate holds."""

    engine: Engine
    fake: FakePlugin
    service: Service
    dialect: Repeating
    url: str
    clock: LoopClock
    gate: Gate = field(default_factory=Gate)

    @property
    def forwards(self) -> int:
        """Forwards that the model has computed."""
        return sum(len(model.forwards) for model in self.fake.loader.models)

    @property
    def clients(self) -> list[int]:
        """How many clients wait for each order."""
        return [record.clients for record in self.service.jobs]

    def send(self, body: dict[str, Any] = BODY, **headers: str) -> HTTPConnection:
        """A connection over which the request was sent; nothing is read."""
        connection = HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", "/again/draw", json.dumps(body), named)
        return connection

    def draw(self, body: dict[str, Any] = BODY, **headers: str) -> tuple[int, Any, str]:
        """Status, JSON and job of the answer to a request."""
        return answer(self.send(body, **headers))

    def hold(self, body: dict[str, Any] = BODY, **headers: str) -> HTTPConnection:
        """Send a request, and wait until its second step is held."""
        begun = self.gate.begun
        self.gate.hold_after(1)
        connection = self.send(body, **headers)
        wait_until(lambda: self.gate.begun == begun + 2)
        return connection

    def leave(self, connection: HTTPConnection) -> None:
        """Close a connection, and wait until the server has noticed."""
        waiting = sum(self.clients)
        connection.close()
        wait_until(lambda: sum(self.clients) == waiting - 1)

    def join(self, body: dict[str, Any] = BODY, **headers: str) -> HTTPConnection:
        """Repeat a request, and wait until it has joined the first."""
        waiting = sum(self.clients)
        connection = self.send(body, x_retry="1", **headers)
        wait_until(lambda: sum(self.clients) == waiting + 1)
        return connection

    def listed(self) -> list[Any]:
        """What /jobs lists."""
        return list(httpx.get(self.url + "/jobs").json()["jobs"])


def answer(connection: HTTPConnection) -> tuple[int, Any, str]:
    """Status, JSON and job of an answer."""
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    last = [line for line in text.splitlines() if line and line != ":"][-1]
    said = json.loads(last.removeprefix("data: "))
    return reply.status, said, reply.headers.get("X-Job-Id", "")


Start = Callable[..., World]


@contextmanager
def world(folder: Path, **settings: Any) -> Iterator[World]:
    dialect, fake = Repeating(), FakePlugin()

    class Brings:
        @hookimpl
        def register_routes(self, register: Callable[[BaseRoute], None], service: Service) -> None:
            route = Route("/again/draw", generation(service, dialect), methods=["POST"])
            register(speaking(route, dialect))

    engine = build_test_engine(folder, fake, extra=[("again", Brings())])
    served = ServerSettings(host="127.0.0.1", **settings)
    service = Service(engine=engine, plugins=engine.plugins, settings=served)
    stop = partial(engine.close, grace=0)
    with live_with_clock(build_app(service), on_stop=stop) as (url, clock):
        wait_until(lambda: engine.status().ready)
        made = World(engine, fake, service, dialect, url, clock)
        fake.loader.before = made.gate
        try:
            yield made
        finally:
            made.gate.open()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server that ends with the test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(world(tmp_path / "models", **settings))


# -- while the first is in progress ----------------------------------------------------------------


@pytest.mark.parametrize("body", [BODY, {**BODY, "streams": True}], ids=["json", "stream"])
def test_a_repetition_joins_the_order_in_progress_which_is_drawn_once(
    start: Start, body: dict[str, Any]
) -> None:
    here = start()
    first = here.hold(body)
    second = here.join(body)
    assert here.clients == [2]
    assert [job["status"] for job in here.listed()] == ["denoising"]
    assert len(here.engine.status().jobs) == 1
    here.gate.open()
    status, said, job = answer(first)
    assert (status, set(said)) == (200, {"seed", "digest"})
    assert answer(second) == (status, said, job)
    assert here.forwards == BODY["steps"]


def test_the_first_client_may_leave_before_its_repetition_comes(start: Start) -> None:
    here = start()
    here.leave(here.hold())
    here.clock.advance(RETURN_SECONDS - 1)
    again = here.join()
    here.clock.advance(100 * RETURN_SECONDS)
    here.gate.open()
    assert answer(again)[0] == 200
    assert here.forwards == BODY["steps"]


def test_the_first_client_may_leave_after_its_repetition_came(start: Start) -> None:
    here = start()
    first = here.hold()
    again = here.join()
    here.leave(first)
    here.clock.advance(100 * RETURN_SECONDS)
    here.gate.open()
    assert answer(again)[0] == 200
    assert here.forwards == BODY["steps"]


def test_an_order_to_which_nobody_returns_is_cancelled(start: Start) -> None:
    here = start()
    here.leave(here.hold({**BODY, "steps": 1000}))
    here.clock.advance(RETURN_SECONDS - 1)
    assert [job["status"] for job in here.listed()] == ["denoising"]
    here.clock.advance(1)
    wait_until(lambda: not here.listed())
    here.gate.open()
    wait_until(lambda: not here.engine.status().jobs)
    assert here.forwards <= 3


def test_a_stream_that_has_begun_ends_with_its_client(start: Start) -> None:
    here = start(heartbeat=0.05)
    connection = here.hold({**BODY, "streams": True, "steps": 1000})
    with connection.getresponse() as stream:
        assert stream.read(3) == b":\n\n"
    connection.close()
    wait_until(lambda: not here.listed())
    here.gate.open()
    wait_until(lambda: not here.engine.status().jobs)
    assert here.forwards <= 3


def test_the_time_to_return_begins_with_each_leave(start: Start) -> None:
    here = start()
    here.leave(here.hold())
    here.clock.advance(RETURN_SECONDS - 1)
    here.leave(here.join())
    here.clock.advance(RETURN_SECONDS - 1)
    again = here.join()
    here.gate.open()
    assert answer(again)[0] == 200
    assert here.forwards == BODY["steps"]


def test_an_order_that_finishes_without_a_client_does_so_for_its_repetition(start: Start) -> None:
    here = start()
    body = {**BODY, "finishes": True}
    here.leave(here.hold(body))
    here.clock.advance(100 * RETURN_SECONDS)
    here.gate.open()
    wait_until(lambda: [job["status"] for job in here.listed()] == ["final"])
    assert here.draw(body, x_retry="1")[0] == 200
    assert here.forwards == BODY["steps"]


def test_what_was_left_and_finished_in_time_waits_for_its_repetition(start: Start) -> None:
    here = start()
    here.leave(here.hold())
    here.gate.open()
    wait_until(lambda: [job["status"] for job in here.listed()] == ["final"])
    assert here.listed()[0]["expires_in"] > RETRY_SECONDS
    assert here.draw(x_retry="1")[0] == 200
    assert here.forwards == BODY["steps"]


@pytest.mark.parametrize("said", [None, b'"ended"'])
def test_all_connections_are_told_that_the_order_was_cancelled_by_its_id(
    start: Start, said: bytes | None
) -> None:
    here = start()
    here.dialect.on_cancel = said
    first = here.hold()
    second = here.join()
    (job,) = here.listed()
    httpx.post(f"{here.url}/jobs/{job['id']}/cancel")
    here.gate.open()
    expected = (409, "cancelled") if said is None else (200, "ended")
    assert answer(first)[:2] == answer(second)[:2] == expected
    assert here.draw(x_retry="1")[0] == 200  # and then it is another order


def test_a_repetition_gets_the_error_of_the_order_that_it_joined(start: Start) -> None:
    here = start()
    first = here.hold()
    second = here.join()
    held = here.gate

    def fail(rows: int) -> None:
        raise RuntimeError("broken")

    here.fake.loader.before = fail
    held.open()
    assert answer(first)[:2] == answer(second)[:2] == (500, "generation_failed")
    here.fake.loader.before = held
    assert here.draw(x_retry="1")[0] == 200  # what failed is drawn again


def test_a_repetition_gets_the_refusal_of_the_order_that_it_joined(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = start()
    decodes, decode = threading.Event(), images._decode

    def slow(data: bytes) -> Any:
        decodes.wait(60)
        return decode(data)

    monkeypatch.setattr(images, "_decode", slow)
    body = {**BODY, "picture": "no picture"}
    first = here.send(body)
    wait_until(lambda: here.clients == [1])
    second = here.join(body)
    decodes.set()
    assert answer(first)[:2] == answer(second)[:2] == (422, "invalid_request")
    assert here.listed() == []


# -- once the first has ended ----------------------------------------------------------------------


def test_a_repetition_of_a_finished_order_gets_its_pictures_to_the_byte(start: Start) -> None:
    here = start()
    first = here.draw()
    assert here.draw(x_retry="1") == here.draw(x_retry="1") == first
    assert here.forwards == BODY["steps"]
    assert [job["status"] for job in here.listed()] == ["final"]


def test_an_equal_request_that_is_no_repetition_is_drawn(start: Start) -> None:
    here = start()
    assert len({here.draw()[2], here.draw()[2]}) == 2
    assert here.forwards == 2 * BODY["steps"]


def test_another_request_is_no_repetition(start: Start) -> None:
    here = start()
    first, other = here.draw(), here.draw({**BODY, "prompt": "blue"}, x_retry="1")
    assert first[2] != other[2]
    assert here.forwards == 2 * BODY["steps"]


@pytest.mark.parametrize(
    "other",
    [
        {"authorization": "Bearer other"},
        {"api_key": "other"},
        {"x_forwarded_for": "192.0.2.7"},
    ],
    ids=["bearer", "api-key", "address"],
)
def test_the_equal_request_of_another_caller_is_no_repetition(
    start: Start, other: dict[str, Any]
) -> None:
    here = start()
    mine = here.draw()
    theirs = here.draw(x_retry="1", **other)
    assert theirs[1]["seed"] != mine[1]["seed"]
    assert here.draw(x_retry="1", **other) == theirs
    assert here.draw(x_retry="1") == mine
    assert here.forwards == 2 * BODY["steps"]


def test_of_equal_orders_a_repetition_gets_the_one_in_progress(start: Start) -> None:
    here = start()
    before = here.draw()
    held = here.hold()
    again = here.join()
    here.gate.open()
    assert answer(again) == answer(held) != before


def test_of_equal_orders_each_repetition_gets_one_that_was_left(start: Start) -> None:
    here = start()
    left, attended = here.hold(), here.send()
    wait_until(lambda: here.clients == [1, 1])
    here.leave(left)
    again = here.join()
    assert here.clients == [1, 1]
    here.gate.open()
    assert answer(again)[2] != answer(attended)[2]


def test_a_server_that_keeps_nothing_joins_all_the_same(start: Start) -> None:
    here = start(keep_results=0)
    first = here.hold()
    again = here.join()
    here.leave(first)
    here.gate.open()
    status, said, _ = answer(again)
    assert status == 200
    wait_until(lambda: here.listed() == [])
    assert here.draw(x_retry="1")[1]["seed"] != said["seed"]
    assert here.forwards == 2 * BODY["steps"]


@pytest.mark.parametrize("body", [BODY, {**BODY, "finishes": True, "keeps": True}])
def test_a_server_that_keeps_nothing_gives_up_what_was_left(
    start: Start, body: dict[str, Any]
) -> None:
    here = start(keep_results=0)
    here.leave(here.hold({**body, "steps": 1000}))
    here.clock.advance(RETURN_SECONDS)
    wait_until(lambda: here.listed() == [])
    here.gate.open()
    wait_until(lambda: not here.engine.status().jobs)
    assert here.forwards <= 3


# -- how long results are kept ---------------------------------------------------------------------

ORDER = Order(request=ResolvedRequest(prompt="red"), idempotency_key="key")


async def make(found: Jobs, *, left: bool = False, **changes: Any) -> Record:
    """The record of a finished order, whose client received the picture unless it `left`."""
    order = Order(request=ORDER.request, **{"idempotency_key": "key", **changes})
    record = found.open(order, caller="me")
    async with found.at_work(record):
        if left:
            record.leave(RETURN_SECONDS)
        result = GenerationResult(images=(), request=ResolvedRequest.of(order.request, {}))
        record.finish(Finished(result=result, pngs=(png((1, 2, 3)),), seeds=(1,)))
    return record


@pytest.mark.parametrize(
    ("made", "keep", "seconds"),
    [
        ({}, 600, RETRY_SECONDS),
        ({}, 30, 30),
        ({"left": True}, 600, 600),
        ({"finishes": True}, 600, 600),
        ({"keeps": True}, 600, 600),
        ({"keeps": True, "idempotency_key": None}, 600, 600),
        ({"idempotency_key": None}, 600, 0),
        ({"keeps": True, "finishes": True, "left": True}, 0, 0),
    ],
)
def test_a_received_result_is_kept_for_a_repetition_others_as_long_as_results_are(
    made: dict[str, Any], keep: float, seconds: float
) -> None:
    async def main() -> None:
        clock = FakeClock()
        found = Jobs(keep=keep, clock=clock)
        record = await make(found, **made)
        assert record.keeps == (seconds > 0)
        clock.advance(max(seconds - 0.001, 0))
        assert list(found) == ([record] if seconds else [])
        clock.advance(0.001)
        assert list(found) == []

    asyncio.run(main())


def test_received_results_are_dropped_before_those_that_a_client_still_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "MOST_RESULTS", 3)

    async def main() -> None:
        clock = FakeClock()
        found = Jobs(keep=600, clock=clock)
        needed = [await make(found, keeps=True), await make(found, left=True)]
        clock.advance(595)  # they expire before what is received now
        for _ in range(3):
            latest = await make(found)
            assert list(found) == [*needed, latest]
        needed.append(await make(found, finishes=True))
        assert list(found) == needed
        await make(found)
        assert list(found) == needed

    asyncio.run(main())


def test_pictures_at_addresses_are_dropped_before_results_that_no_client_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "MOST_RESULTS", 3)

    async def main() -> None:
        clock = FakeClock()
        found = Jobs(keep=600, clock=clock)
        needed = [await make(found, finishes=True), await make(found, left=True)]
        for _ in range(5):
            clock.advance(1)
            latest = await make(found, keeps=True)
            assert list(found) == [*needed, latest]

    asyncio.run(main())


def test_a_repetition_is_known_by_its_mark_its_caller_and_its_key() -> None:
    async def main() -> None:
        found = Jobs(keep=600, clock=FakeClock())
        record = await make(found)
        again = Order(request=ORDER.request, idempotency_key="key", retry=True)
        assert found.first(again, caller="me") is record
        assert found.first(again, caller="you") is None
        assert found.first(ORDER, caller="me") is None
        other = Order(request=ORDER.request, idempotency_key="other", retry=True)
        assert found.first(other, caller="me") is None
        without = Order(request=ORDER.request, retry=True)
        assert found.first(without, caller="me") is None
        await make(found, idempotency_key=None, keeps=True)
        assert found.first(without, caller="me") is None

    asyncio.run(main())


def test_a_caller_has_those_of_its_orders_that_are_in_progress() -> None:
    async def main() -> None:
        found = Jobs(keep=600)
        await make(found)
        mine, theirs = (found.open(ORDER, caller=caller) for caller in ("me", "you"))
        async with found.at_work(mine), found.at_work(theirs):
            assert (found.of("me"), found.of("you")) == ([mine], [theirs])
        assert found.of("me") == []

    asyncio.run(main())


def test_a_result_is_there_for_a_repetition_before_the_first_client_has_read_it() -> None:
    async def main() -> None:
        record = Jobs(keep=600).open(ORDER)
        assert not record.ended.is_set()
        result = GenerationResult(images=(), request=ResolvedRequest.of(ORDER.request, {}))
        record.finish(Finished(result=result, pngs=(b"png",), seeds=(1,)))
        assert record.ended.is_set()

    asyncio.run(main())
