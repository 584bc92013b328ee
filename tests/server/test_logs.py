"""The log of a server: one line for each request, and nothing that does not belong."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from calls import SMALL, app_of, ask
from imagine_core.engine import Engine
from imagine_core.settings import Limits, ServerSettings
from imagine_core.testing import FakePlugin, build_test_engine
from imagine_plugins.server.logs import JsonFormatter, TextFormatter
from slow_server import LONG, Server, wait_until

log = logging.getLogger("imagine")
PROMPT = "a very private prompt"
KEY = "a-very-secret-key"


class Heard:
    """What a log says in one of its formats."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(formatter)

    @property
    def lines(self) -> list[str]:
        return self._stream.getvalue().splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture(params=["text", "json"])
def heard(request: pytest.FixtureRequest) -> Iterator[Heard]:
    heard = Heard(TextFormatter() if request.param == "text" else JsonFormatter())
    yield from listening(heard)


@pytest.fixture
def objects() -> Iterator[Heard]:
    yield from listening(Heard(JsonFormatter()))


@pytest.fixture
def text() -> Iterator[Heard]:
    yield from listening(Heard(TextFormatter()))


def listening(heard: Heard) -> Iterator[Heard]:
    before = log.level
    log.addHandler(heard.handler)
    log.setLevel(logging.INFO)
    yield heard
    log.removeHandler(heard.handler)
    log.setLevel(before)


def test_an_enlarging_is_a_line_without_sampler_and_steps(
    engine: Engine, text: Heard, objects: Heard
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8)).save(buffer, "PNG")
    body = {"img": base64.b64encode(buffer.getvalue()).decode(), "upscaler": "nearest"}
    assert ask(app_of(engine), "POST", "/upscale", json=body).status_code == 200
    engine.close()
    (line,) = text.lines
    assert " done: nearest, 1 x 24x16, enlarged; queued" in line
    (said,) = objects.objects
    assert (said["model"], said["width"]) == ("nearest", 24)
    assert said.keys().isdisjoint({"sampler", "schedule", "steps"})


def test_a_picture_is_one_line_for_people(engine: Engine, text: Heard) -> None:
    assert ask(app_of(engine), "POST", "/generate", json={**SMALL, "n": 2}).status_code == 200
    engine.close()
    (line,) = text.lines
    head, timings = line.split("; ")
    assert re.fullmatch(
        r"\S+ \S+ INFO [0-9a-f]{24} done: tiny, 2 x 64x64, dpm\+\+ 2m, 4 steps", head
    )
    phases = re.findall(r"(\w+) \d+\.\d\d s", timings)
    assert sorted(phases) == ["decoding", "denoising", "encoding", "loading", "queued"]


def test_a_picture_is_one_object_for_programs(engine: Engine, objects: Heard) -> None:
    answer = ask(app_of(engine), "POST", "/generate", json=SMALL).json()
    engine.close()
    (line,) = objects.objects
    assert line["id"] == answer["id"]
    assert (line["outcome"], line["level"], line["model"]) == ("done", "INFO", "tiny")
    assert (line["sampler"], line["steps"], line["width"], line["height"]) == (
        "dpm++ 2m",
        4,
        64,
        64,
    )
    assert set(line["timings"]) == {"queued", "loading", "encoding", "denoising", "decoding"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])


def test_a_failure_and_a_client_that_left_are_one_line_each(tmp_path: Path, objects: Heard) -> None:
    with Server(tmp_path / "models").running() as server:
        connection = server.post(LONG)
        wait_until(lambda: server.forwards >= 2)
        connection.close()
        wait_until(lambda: not server.phases())
        server.fake.loader.before = too_much
        assert ask(app_of(server.engine), "POST", "/generate", json=SMALL).status_code == 507
    ends = [(line["outcome"], line.get("error")) for line in objects.objects if "outcome" in line]
    assert ends == [("cancelled", None), ("failed", "out_of_memory")]


def test_a_request_that_finds_the_queue_full_is_one_line(tmp_path: Path, objects: Heard) -> None:
    with Server(tmp_path / "models", limits=Limits(queue=1), max_rows=2).running() as server:
        connections = [server.post(LONG)]
        wait_until(lambda: server.phases() == ["denoising"])
        connections.append(server.post(LONG))
        wait_until(lambda: server.phases() == ["denoising", "queued"])
        answer = ask(app_of(server.engine), "POST", "/generate", json=SMALL)
        assert answer.status_code == 503
        for connection in connections:
            connection.close()
    ends = [(line["outcome"], line.get("error")) for line in objects.objects if "outcome" in line]
    assert ends.count(("refused", "busy")) == 1
    assert len(ends) == 3


def too_much(rows: int) -> None:
    raise MemoryError


REFUSED = [
    ({"width": 500, "steps": "many"}, "invalid_request", ["prompt", "width", "steps"]),
    ({**SMALL, "model": PROMPT}, "unknown_name", []),
    ({**SMALL, "sampler": PROMPT}, "unknown_name", []),
]


@pytest.mark.parametrize(("body", "kind", "wrong"), REFUSED)
def test_a_refusal_is_one_line_that_does_not_quote_the_client(
    engine: Engine, objects: Heard, body: dict[str, Any], kind: str, wrong: list[str]
) -> None:
    assert ask(app_of(engine), "POST", "/generate", json=body).status_code in (404, 422)
    (line,) = objects.objects
    assert (line["outcome"], line["error"], line["wrong"]) == ("refused", kind, wrong)
    assert (line["method"], line["path"]) == ("POST", "/generate")
    assert PROMPT not in json.dumps(line)


def test_whoever_is_turned_away_at_the_door_is_logged(tmp_path: Path, objects: Heard) -> None:
    engine = build_test_engine(tmp_path)
    app = app_of(engine, ServerSettings(host="127.0.0.1", api_key=KEY))
    for headers in ({}, {"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        ask(app, "POST", "/generate", json=SMALL, headers=headers)
    kinds = [line["error"] for line in objects.objects]
    assert kinds == ["unauthorized", "forbidden", "forbidden"]


def test_no_line_has_a_prompt_a_key_or_a_path(tmp_path: Path, heard: Heard) -> None:
    fake = FakePlugin()
    engine = build_test_engine(tmp_path / "models", fake)
    app = app_of(engine, ServerSettings(host="127.0.0.1", api_key=KEY))
    key = {"Authorization": f"Bearer {KEY}"}
    body = {**SMALL, "prompt": PROMPT, "neg": PROMPT}
    assert ask(app, "POST", "/generate", json=body, headers=key).status_code == 200
    wrong = {"Authorization": f"Bearer {KEY}x"}
    assert ask(app, "POST", "/generate", json=body, headers=wrong).status_code == 401
    refused = {**body, "steps": 0}
    assert ask(app, "POST", "/generate", json=refused, headers=key).status_code == 422
    engine.close()
    said = "\n".join(heard.lines)
    assert len(heard.lines) == 3
    for secret in (PROMPT, KEY, str(tmp_path)):
        assert secret not in said


def test_control_characters_in_names_stay_in_their_line(tmp_path: Path, heard: Heard) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "two\nlines\x1b[31m\u2028.fake").write_bytes(b"fake")
    engine = build_test_engine(folder)
    assert ask(app_of(engine), "POST", "/generate", json=SMALL).status_code == 200
    engine.close()
    (line,) = heard.lines
    assert "two\\nlines\\x" in line or "two\\nlines\\u001b" in line
    assert line.isprintable()


def raised(message: str) -> ValueError:
    """An error with a traceback."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - it is ours
        raise ValueError(message)
    return caught.value


def test_a_traceback_stays_readable_and_harmless(text: Heard) -> None:
    log.error("it failed", exc_info=raised("\x1b[2Jcleared"))
    first, *trace = text.lines
    assert first.endswith("ERROR it failed")
    assert trace[0].startswith("Traceback")
    assert trace[-1] == r"ValueError: \x1b[2Jcleared"


def test_a_traceback_is_a_field_of_its_object(objects: Heard) -> None:
    log.error("it failed", exc_info=raised("why"))
    (line,) = objects.objects
    assert line["message"] == "it failed"
    assert line["traceback"].endswith("ValueError: why")
