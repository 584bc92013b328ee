"""The Python package `webuiapi` watches pictures, ends them, and enters by a key."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from webuiapi import WebUIApi, WebUIApiResult

from clients.native import PROMPT, SEED, Live, opened, same
from clients.webui import DRAW, client_of, pictures
from slow_server import wait_until

LONG: dict[str, Any] = {"prompt": PROMPT, "width": 256, "height": 256, "steps": 900}

Begin = Callable[[WebUIApi], Future[WebUIApiResult]]


@pytest.fixture
def begin(live: Live) -> Iterator[Begin]:
    """Begins a long picture of a client; none goes on behind the test."""
    with ThreadPoolExecutor(2) as threads:
        yield lambda api: threads.submit(api.txt2img, **LONG)
        for job in live.jobs():
            httpx.post(f"{live.url}/jobs/{job['id']}/cancel")


def test_progress_has_steps_and_a_picture_until_an_interrupt(
    live: Live, api: WebUIApi, begin: Begin
) -> None:
    idle = api.get_progress()
    assert (idle["progress"], idle["state"]["job_count"]) == (0.0, 0)
    drawing = begin(api)
    with client_of(live) as watching:
        seen: list[Any] = []

        def on_its_way() -> object:
            seen.append(watching.get_progress())
            return seen[-1]["state"]["sampling_step"] > 1 and seen[-1]["current_image"]

        wait_until(on_its_way)
        last = seen[-1]
        assert 0 < last["progress"] < 1
        assert last["eta_relative"] > 0
        assert (last["state"]["sampling_steps"], last["state"]["job_count"]) == (900, 1)
        assert opened(base64.b64decode(last["current_image"])).size[0] > 0
        bare = watching.custom_get("sdapi/v1/progress?skip_current_image=true")
        assert bare["current_image"] is None
        assert watching.interrupt() == {}
        result = drawing.result(30)
        watching.util_wait_for_ready(check_interval=0.1)
    assert len(result.images) <= 1
    assert "infotexts" in result.info
    wait_until(lambda: live.jobs() == [])


def test_skipping_ends_the_callers_pictures_only(live: Live, api: WebUIApi, begin: Begin) -> None:
    with client_of(live, address="127.0.0.2") as neighbour:
        mine, theirs = begin(api), begin(neighbour)
        wait_until(lambda: len(live.jobs()) == 2)
        assert api.skip() is None
        mine.result(30)
        wait_until(lambda: len(live.jobs()) == 1)  # it leaves the device at the next step
        assert not theirs.done()
        neighbour.interrupt()
        theirs.result(30)


def test_an_interrupt_of_nothing_is_fine(api: WebUIApi) -> None:
    assert api.interrupt() == {}
    assert api.skip() is None


def test_the_key_is_the_password_of_any_user(locked: Live) -> None:
    with client_of(locked) as api:
        with pytest.raises(RuntimeError) as caught:
            api.txt2img(**DRAW)
        assert caught.value.args[0] == 401
        api.set_auth("anybody", "a wrong key")
        with pytest.raises(RuntimeError):
            api.txt2img(**DRAW)
        api.set_auth("anybody", locked.key)
        native = locked.draw(seed=SEED, sampler="dpm++ 2m karras")
        assert same(pictures(api.txt2img(**DRAW)), native)
    with client_of(locked, username="me", password=locked.key) as api:
        assert len(api.get_samplers()) > 5
