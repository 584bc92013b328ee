"""The clients of the soak: they ask, stay, leave, cancel and return, each by its own seed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from soak.orders import References, check_previews, order
from soak.wire import Connection

WAYS = {"stays": 55, "leaves": 23, "leaves and comes back": 7, "breaks off": 3, "cancels": 12}
"""What a client does, and in how many of a hundred visits: a third leave."""


@dataclass
class Tally:
    """What clients saw.

    Attributes:
        visits: How visits ended.
        outcomes: How requests may have ended, by id.
        left: When somebody left who wanted no result, by id.
        streams: Whole streams whose previews were counted.
    """

    visits: Counter[str] = field(default_factory=Counter)
    outcomes: dict[str, set[str]] = field(default_factory=dict)
    left: dict[str, float] = field(default_factory=dict)
    streams: int = 0


class Client:
    """One client.

    Args:
        url: The server.
        references: What pictures have to look like.
        tally: Where it notes what it saw.
        seed: Of its dice.
    """

    def __init__(self, url: str, references: References, tally: Tally, *, seed: int) -> None:
        self._url = url
        self._references = references
        self._tally = tally
        self._random = Random(seed)
        self._connection = Connection(url)
        self._typical = 1.0  # seconds that a request takes
        self._mine = ""  # the request that it left last

    async def visit_until(self, over: Callable[[], bool]) -> None:
        """Visit again and again."""
        try:
            while not over():
                (way,) = self._random.choices(list(WAYS), list(WAYS.values()))
                name, body = order(self._random)
                self._tally.visits[await self._visit(way, name, body)] += 1
        finally:
            self._connection.leave()

    async def _visit(self, way: str, name: str, body: dict[str, Any]) -> str:
        match way:
            case "stays":
                return await self._stay(name, body)
            case "leaves":
                progress = self._random.random() < 0.8  # the first line says the id
                return await self._leave(name, {**body, "progress": progress})
            case "leaves and comes back":
                return await self._come_back(name, {**body, "on_disconnect": "finish"})
            case "breaks off":
                await self._connection.send("POST", "/generate", body, part=self._random.random())
                self._connection.leave()
                return "broke off"
        return await self._cancel(name, {**body, "progress": True})

    async def _read(self, body: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        await self._connection.send("POST", "/generate", body)
        async for line in self._connection.lines():
            lines.append(line)  # noqa: PERF401 - whoever leaves has read some of them

    async def _stay(self, name: str, body: dict[str, Any]) -> str:
        lines: list[dict[str, Any]] = []
        started = asyncio.get_running_loop().time()
        await self._read(body, lines)
        self._typical += 0.3 * (asyncio.get_running_loop().time() - started - self._typical)
        return await self._judge(name, body, lines)

    async def _leave(self, name: str, body: dict[str, Any]) -> str:
        lines: list[dict[str, Any]] = []
        reading = asyncio.create_task(self._read(body, lines))
        await asyncio.wait({reading}, timeout=self._random.random() * self._typical)
        if reading.done():
            await reading
            return await self._judge(name, body, lines)
        moment = self._connection.leave()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        if lines and "id" in lines[0]:
            mine = self._mine = lines[0]["id"]
            keeps = body.get("on_disconnect") == "finish"
            self._tally.outcomes[mine] = {"done"} if keeps else {"done", "cancelled"}
            if not keeps:
                self._tally.left[mine] = moment
            return "left"
        return "left before anything was said"

    async def _come_back(self, name: str, body: dict[str, Any]) -> str:
        body = {**body, "progress": True}
        ended = await self._leave(name, body)
        if ended != "left":
            return ended
        while True:
            job = await self._connection.ask("GET", f"/jobs/{self._mine}")
            if self._connection.status == 404:  # others came after it, and results are bounded
                return "came back too late"
            if job["status"] == "final":
                self._references.check(name, body, job)
                return "came back"
            assert "error" not in job, job
            await asyncio.sleep(0.2)

    async def _cancel(self, name: str, body: dict[str, Any]) -> str:
        lines: list[dict[str, Any]] = []
        said = ""
        moment = self._random.randrange(6)  # lines that it waits for
        await self._connection.send("POST", "/generate", body)
        async for line in self._connection.lines():
            lines.append(line)
            if len(lines) == moment + 1 and "id" in line:
                other = Connection(self._url)
                said = (await other.ask("POST", f"/jobs/{line['id']}/cancel")).get("status", "")
                other.leave()
        ended = await self._judge(name, body, lines)
        assert (said == "cancelled") == (ended == "was cancelled"), (said, ended)
        return ended

    async def _judge(self, name: str, body: dict[str, Any], lines: list[dict[str, Any]]) -> str:
        """Hold a whole reply to what it should be."""
        last, error = lines[-1], lines[-1].get("error", {"type": None})["type"]
        if self._connection.status == 503:
            assert error == "busy", last
            assert int(self._connection.headers["retry-after"]) > 0
            await asyncio.sleep(self._random.random())
            return "was refused"
        assert self._connection.status in (200, 409), (self._connection.status, last)
        mine = self._connection.headers.get("x-job-id") or lines[0]["id"]
        if error is not None:
            assert error == "cancelled", last
            self._tally.outcomes[mine] = {"cancelled"}
            return "was cancelled"
        self._tally.outcomes[mine] = {"done"}
        self._references.check(name, body, last)
        if "n" not in body and "hires" not in body and body.get("stream"):
            check_previews(body, lines)
            self._tally.streams += 1
        return "got it"
