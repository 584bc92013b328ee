"""A server that is told to stop: how what is in progress ends, and what is said of it."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial

import httpx
import pytest

from calls import SMALL, app_of, live_server
from imagine_core.engine import Engine
from imagine_core.testing import FakePlugin
from imagine_plugins import serving
from slow_server import wait_until


def test_what_goes_on_without_its_client_is_told_in_the_log_that_its_time_is_over(
    engine: Engine,
    fake: FakePlugin,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="imagine")
    monkeypatch.setattr(serving, "LAST_WORDS_SECONDS", 60)
    stepping = threading.Event()

    def step(_rows: int) -> None:
        """A step that outlasts the grace time."""
        stepping.set()
        wait_until(lambda: engine.stopping)
        time.sleep(0.5)

    fake.loader.before = step
    body = {**SMALL, "progress": True, "on_disconnect": "finish"}
    stop = partial(engine.close, grace=0)
    with (
        live_server(app_of(engine), on_stop=stop, grace=0) as (url, _),
        httpx.stream("POST", url + "/generate", json=body, timeout=60) as answer,
    ):
        next(answer.iter_lines())
        assert stepping.wait(60)
    assert "failed (shutting_down): tiny" in caplog.text
    assert "cancelled" not in caplog.text
