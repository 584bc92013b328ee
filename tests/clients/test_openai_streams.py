"""The Python package `openai` reads streams: partial pictures, heartbeats, and errors within."""

from __future__ import annotations

import base64
import itertools
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from clients.native import PROMPT, SEED, Live, Pixels, distance, pixels, same
from imagine_core.settings import ServerSettings
from slow_server import Server, wait_until

SIZE, STEPS = "256x256", 12
OWN: dict[str, Any] = {"seed": SEED, "steps": STEPS}


def stream(client: OpenAI, **fields: Any) -> list[Any]:
    """All events of a stream."""
    given = {"prompt": PROMPT, "size": SIZE, "extra_body": OWN, **fields}
    return list(client.images.generate(**given, stream=True))


def kinds(events: Iterable[Any]) -> list[str]:
    return [event.type.removeprefix("image_generation.") for event in events]


def picture(event: Any) -> Pixels:
    return pixels(base64.b64decode(event.b64_json, validate=True))


def test_partial_pictures_approach_the_one_that_is_completed(live: Live, client: OpenAI) -> None:
    first, second, last = events = stream(client, partial_images=2)
    assert kinds(events) == ["partial_image", "partial_image", "completed"]
    assert [event.partial_image_index for event in (first, second)] == [0, 1]
    assert {(event.size, event.output_format) for event in events} == {(SIZE, "png")}
    assert all(isinstance(event.created_at, int) for event in events)
    final = picture(last)
    assert same([final], live.draw(seed=SEED, width=256, height=256, steps=STEPS))
    far, near = (distance(picture(event), final) for event in (first, second))
    assert far > near > 0
    assert distance(picture(first), picture(second)) > 1
    assert near < 60  # it can be recognised: noise alone would be twice as far
    assert last.usage.total_tokens >= 0


@pytest.mark.parametrize("partial_images", [None, 0])
def test_without_partial_pictures_there_is_the_completed_one_alone(
    client: OpenAI, partial_images: int | None
) -> None:
    assert kinds(stream(client, partial_images=partial_images)) == ["completed"]


def test_a_few_steps_have_no_more_partial_pictures_than_they_can(client: OpenAI) -> None:
    events = stream(client, partial_images=3, extra_body={"seed": SEED, "steps": 2})
    assert kinds(events)[-1] == "completed"
    assert len(events) <= 2


def test_each_of_two_pictures_is_completed(live: Live, client: OpenAI) -> None:
    events = stream(client, n=2, partial_images=1)
    assert kinds(events).count("completed") == 2
    assert 1 <= kinds(events).count("partial_image") <= 2
    done = [picture(event) for event in events if event.type.endswith("completed")]
    assert same(done, live.draw(seed=SEED, n=2, width=256, height=256, steps=STEPS))


def test_a_stream_is_of_the_format_that_was_asked_for(client: OpenAI) -> None:
    events = stream(client, partial_images=1, output_format="jpeg")
    assert {event.output_format for event in events} == {"jpeg"}
    assert all(base64.b64decode(event.b64_json).startswith(b"\xff\xd8\xff") for event in events)


# -- on a server that is held up -------------------------------------------------------------------


def test_heartbeats_keep_a_silent_stream_for_longer_than_the_client_waits(tmp_path: Path) -> None:
    settings = ServerSettings(host="127.0.0.1", heartbeat=0.2)
    server, loads = Server(tmp_path / "models", server=settings), threading.Event()
    server.fake.loader.before_load = lambda: loads.wait(30)
    release = threading.Timer(3, loads.set)
    with server.running(), OpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
        release.start()
        asking = client.with_options(timeout=1, max_retries=0)
        events = stream(asking, size="64x64", extra_body={"steps": 4})
    assert kinds(events) == ["completed"]


def test_an_error_after_the_first_picture_is_raised(tmp_path: Path) -> None:
    server, forwards = Server(tmp_path / "models"), itertools.count(1)

    def fail(rows: int) -> None:
        if next(forwards) == 16:
            raise RuntimeError("broken")

    server.fake.loader.before = fail
    seen: list[str] = []
    with server.running(), OpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
        events = client.images.generate(
            prompt="red",
            size="64x64",
            stream=True,
            partial_images=3,
            extra_body={"steps": 20},
        )
        with pytest.raises(openai.APIError) as caught:
            seen.extend(event.type for event in events)
    assert set(seen) == {"image_generation.partial_image"}
    assert not isinstance(caught.value, openai.APIConnectionError)
    assert isinstance(caught.value.code, str)
    assert "test_an_error" not in caught.value.message  # no traceback
    assert caught.value.message.endswith(".") or len(caught.value.message) > 10


def test_leaving_a_stream_ends_the_work(tmp_path: Path) -> None:
    server = Server(tmp_path / "models")
    with server.running(), OpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
        with client.images.generate(
            prompt="red",
            size="64x64",
            stream=True,
            partial_images=3,
            extra_body={"steps": 400},
        ) as events:
            assert next(iter(events)).type == "image_generation.partial_image"
        wait_until(lambda: not server.phases())
    assert server.forwards < 400
