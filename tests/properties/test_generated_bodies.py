"""`POST /generate` answers every body, and never with an internal error."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
from starlette.applications import Starlette
from starlette.types import Message

from calls import app_of
from imagine_core.engine import Engine
from imagine_core.settings import Limits, ServerSettings, Settings
from imagine_core.testing import build_test_engine
from properties.bodies import KINDS, Sent, generated

SEED = 20_000
AT_ONCE = 48
PATIENCE = 120.0
"""Seconds after which a request counts as one that hangs; most take a hundredth of one."""


class Answer(NamedTuple):
    """An answer with all of its body."""

    status: int
    text: str


@dataclass
class Tally:
    """What became of the bodies."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, sent: Sent, answer: Answer) -> None:
        status = answer.status
        self.answers[sent.kind, status] += 1
        problem = what_is_wrong(sent, answer)
        if problem is not None:
            self.wrong.append(f"{problem}: {sent}: {status} {answer.text[:300]}")


def what_is_wrong(sent: Sent, answer: Answer) -> str | None:
    status = answer.status
    if not (200 <= status < 300 or 400 <= status < 500):
        return "neither served nor refused"
    last = json.loads(answer.text.splitlines()[-1])
    if ("error" in last) != (status != 200):
        return "an answer that contradicts its status"
    if sent.kind == "valid" and status != 200:
        return "a valid body was refused"
    if sent.kind == "nearly valid" and status == 200:
        return "a wrong body was served"
    return None


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Starlette]:
    folder = tmp_path / "models"
    engine: Engine = build_test_engine(
        folder, settings=Settings(models=folder, limits=Limits(queue=2 * AT_ONCE))
    )
    yield app_of(engine, ServerSettings(host="127.0.0.1", keep_results=5))
    engine.close(grace=0)


async def post(app: Starlette, sent: Sent) -> Answer:
    """The answer to a body; httpx's own transport takes longer over it than the application."""
    head = [(b"host", b"localhost"), (b"content-type", sent.content_type.encode())]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/generate",
        "headers": head,
        "query_string": b"",
    }
    coming = [{"type": "http.request", "body": sent.data}]
    gone = asyncio.Event()
    status, parts = 0, []

    async def receive() -> Message:
        if not coming:
            await gone.wait()
            return {"type": "http.disconnect"}
        return coming.pop()

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return Answer(status, b"".join(parts).decode())


async def send_all(app: Starlette, bodies: Iterator[Sent]) -> Tally:
    """Send them, some at once."""
    tally = Tally()

    async def send_some() -> None:
        for sent in bodies:
            async with asyncio.timeout(PATIENCE):
                tally.note(sent, await post(app, sent))

    await asyncio.gather(*(send_some() for _ in range(AT_ONCE)))
    return tally


@pytest.mark.parametrize("count", [3000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_thousands_of_bodies_are_each_served_or_refused(app: Starlette, count: int) -> None:
    """A fifth of them are valid, half nearly valid, the others nonsense."""
    tally = asyncio.run(send_all(app, generated(count, seed=SEED)))
    assert not tally.wrong, "\n".join(tally.wrong[:20])
    assert tally.answers.total() == count
    made = sum(count for (_, status), count in tally.answers.items() if status == 200)
    assert made > count / 6
    assert {kind for kind, _ in tally.answers} == set(KINDS)
    assert {400, 404, 422} <= {status for _, status in tally.answers}


def test_the_bodies_are_the_same_each_time() -> None:
    assert list(generated(300, seed=1)) == list(generated(300, seed=1))
    assert list(generated(300, seed=1)) != list(generated(300, seed=2))
