"""The Python package `openai` asks again by itself: nothing is drawn twice, and nothing is lost."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from clients.replies import files
from imagine_core.settings import Limits, ServerSettings
from slow_server import LONG, STEP, Server, wait_until

STEPS = 120
SECONDS = STEPS * STEP
"""What a picture takes at the least."""
ASKED: dict[str, Any] = {
    "prompt": "red",
    "size": "64x64",
    "extra_body": {"steps": STEPS, "seed": 1},
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "models").running() as server:
        yield server


def client_of(server: Server, **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="any", **options)


def started(server: Server) -> int:
    """How many generations the server has taken on."""
    text = httpx.get(f"{server.url}/metrics").text
    counts = re.findall(r"^imagine_generations_started_total\S* (\S+)$", text, re.MULTILINE)
    return int(sum(map(float, counts)))


def test_a_request_that_is_repeated_after_a_time_out_is_drawn_once(server: Server) -> None:
    with client_of(server, timeout=SECONDS * 0.6, max_retries=4) as client:
        raw = client.images.with_raw_response.generate(**ASKED)
        assert raw.retries_taken >= 1
        repeated = raw.parse()
        assert started(server) == 1
        forwards = server.forwards
        again = client.with_options(timeout=60).images.generate(**ASKED)
    assert server.forwards == 2 * forwards  # which a picture takes
    assert repeated.data is not None
    assert again.data is not None
    assert repeated.data[0].b64_json == again.data[0].b64_json


def test_a_request_without_a_seed_is_drawn_once_too(server: Server) -> None:
    asked = {**ASKED, "extra_body": {"steps": STEPS}}
    with client_of(server, timeout=SECONDS * 0.6, max_retries=4) as client:
        raw = client.images.with_raw_response.generate(**asked)
    assert raw.retries_taken >= 1
    assert started(server) == 1


def test_a_stream_that_is_repeated_before_it_began_is_drawn_once(tmp_path: Path) -> None:
    settings, loads = ServerSettings(host="127.0.0.1", heartbeat=0), threading.Event()
    held = Server(tmp_path / "models", server=settings)
    held.fake.loader.before_load = lambda: loads.wait(30)
    with held.running() as server, client_of(server, timeout=1, max_retries=4) as client:
        threading.Timer(2, loads.set).start()
        given = {**ASKED, "extra_body": {"steps": 4}}
        events = list(client.images.generate(**given, stream=True, partial_images=1))
        assert events[-1].type == "image_generation.completed"
        assert started(server) == 1


def test_equal_requests_that_are_no_repetitions_are_each_drawn(server: Server) -> None:
    asked = {**ASKED, "extra_body": {"steps": 4}}
    with client_of(server) as client:
        one, other = (client.images.generate(**asked) for _ in range(2))
    assert started(server) == 2
    assert one.data is not None
    assert other.data is not None
    assert one.data[0].b64_json != other.data[0].b64_json


def test_a_client_that_gives_up_ends_its_work(server: Server) -> None:
    asked = {**ASKED, "extra_body": {"steps": 1000}}
    with (
        client_of(server, timeout=0.5, max_retries=0) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        client.images.generate(**asked)
    wait_until(lambda: not server.phases())
    assert server.forwards < 1000


def test_a_busy_server_is_asked_again_when_it_said(tmp_path: Path) -> None:
    limited = Server(tmp_path / "models", limits=Limits(queue=1), max_rows=2)
    with limited.running() as server, ThreadPoolExecutor(4) as others:
        for count in (1, 2):  # one draws, and one waits
            others.submit(httpx.post, f"{server.url}/generate", json=LONG, timeout=60)
            wait_until(lambda count=count: len(server.phases()) == count)  # type: ignore[misc]
        refused = httpx.post(f"{server.url}/v1/images/generations", json={"prompt": "red"})
        assert refused.status_code == 503
        seconds = int(refused.headers["retry-after"])
        assert seconds <= 120  # with more the package does not ask again
        assert refused.json()["error"]["message"]
        with client_of(server, max_retries=0) as hasty, pytest.raises(openai.InternalServerError):
            hasty.images.generate(**ASKED)
        for job in httpx.get(f"{server.url}/jobs").json()["jobs"]:
            others.submit(cancel_later, server.url, job["id"])
        begun = time.monotonic()
        with client_of(server, max_retries=2) as client:
            raw = client.images.with_raw_response.generate(
                prompt="red",
                size="64x64",
                extra_body={"steps": 4},
            )
        assert raw.retries_taken >= 1
        assert time.monotonic() - begun >= min(seconds, 1)
        assert len(files(raw.parse())) == 1


def cancel_later(url: str, job: str) -> None:
    """Make room when the request has been refused."""
    time.sleep(0.5)
    httpx.post(f"{url}/jobs/{job}/cancel")
