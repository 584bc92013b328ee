"""Bodies are bounded: each in size and time, all of them in memory."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from calls import SMALL, app_of, error_of
from calls import ask as ask_app
from engines import png
from imagine_core.engine import Engine
from imagine_core.settings import Limits
from imagine_core.web import bodies
from imagine_core.web.app import Faults
from imagine_core.web.bodies import BodyGuard
from slow_server import LONG, Server, wait_until


async def length(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


def bounded(**options: Any) -> Faults:
    return Faults(BodyGuard(Route("/", length, methods=["POST"]).app, **options), routes=[])


class Upload:
    """A client that sends `chunks` one by one, waiting `pause` before each."""

    def __init__(self, *chunks: bytes, pause: float = 0.0, announced: str | None = None) -> None:
        self.chunks = list(chunks)
        self.pause = pause
        size = str(sum(map(len, chunks))) if announced is None else announced
        self.headers = [(b"content-length", size.encode())] if size else []
        self.status = 0
        self.body = b""
        self.answered: dict[bytes, bytes] = {}

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(self.pause)
        if not self.chunks:
            return {"type": "http.disconnect"}
        body = self.chunks.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(self.chunks)}

    async def send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.answered |= dict(message.get("headers", ()))
        self.body += message.get("body", b"")

    def to(self, app: Faults) -> Upload:
        scope = {"type": "http", "method": "POST", "path": "/", "headers": self.headers}
        asyncio.run(app(scope, self.receive, self.send))
        return self


def test_a_body_up_to_the_limit_arrives_whole() -> None:
    upload = Upload(b"12", b"345", b"67890").to(bounded(limit=10))
    assert (upload.status, upload.body) == (200, b"10")


def test_a_body_that_announces_too_much_is_refused_and_drained() -> None:
    upload = Upload(b"12345", b"678901").to(bounded(limit=10))
    assert upload.status == 413
    assert b"10 bytes" in upload.body
    assert upload.chunks == []


def test_a_body_that_grows_too_large_is_refused_though_it_announced_nothing() -> None:
    upload = Upload(*[b"x" * 4] * 5, announced="").to(bounded(limit=10))
    assert upload.status == 413
    assert upload.chunks == []


@pytest.mark.parametrize(
    ("headers", "encoding"),
    [
        ([b"gzip"], "gzip"),
        ([b"GZIP"], "gzip"),
        ([b"br"], "br"),
        ([b"identity, zstd"], "zstd"),
        ([b"gzip", b"deflate"], "gzip, deflate"),
    ],
)
def test_a_compressed_body_is_refused_in_words_and_drained(
    headers: list[bytes], encoding: str
) -> None:
    upload = Upload(gzip.compress(b"{}"), b"more")
    upload.headers += [(b"content-encoding", value) for value in headers]
    upload.to(bounded(limit=100))
    assert upload.status == 415
    error = json.loads(upload.body)["error"]
    assert error["type"] == "unsupported_encoding"
    assert f"is encoded as '{encoding}'" in error["message"]
    assert upload.answered[b"accept-encoding"] == b"identity"
    assert upload.chunks == []


@pytest.mark.parametrize("value", [b"identity", b"Identity", b""])
def test_a_body_that_says_it_is_plain_is_read(value: bytes) -> None:
    upload = Upload(b"123")
    upload.headers.append((b"content-encoding", value))
    assert upload.to(bounded(limit=10)).body == b"3"


def test_no_body_cannot_be_compressed() -> None:
    upload = Upload(b"", announced="")
    upload.headers.append((b"content-encoding", b"gzip"))
    assert upload.to(bounded(limit=10)).status == 200


def test_every_route_that_reads_a_body_refuses_a_compressed_one(engine: Engine) -> None:
    app = app_of(engine)
    body = gzip.compress(json.dumps(SMALL).encode())
    for path in ("/generate", "/enhance", "/stop"):
        answer = ask_app(app, "POST", path, content=body, headers={"Content-Encoding": "gzip"})
        assert answer.status_code == 415, path
    assert engine.status().jobs == []


def test_an_absurd_length_is_refused_without_reading_it_as_a_number() -> None:
    upload = Upload(b"x", announced="9" * 5000).to(bounded(limit=10))
    assert upload.status == 413


def test_a_body_that_never_ends_is_given_up() -> None:
    upload = Upload(*[b"x"] * 1000, pause=0.01, announced="1000").to(
        bounded(limit=10_000, seconds=0.1)
    )
    assert upload.status == 400
    assert b"did not arrive" in upload.body


def test_a_body_that_is_on_its_way_when_the_server_stops_is_told_so() -> None:
    upload = Upload(b"x", b"y", pause=600).to(bounded(limit=10_000, stopping=lambda: True))
    assert (upload.status, json.loads(upload.body)["error"]["type"]) == (503, "shutting_down")


def test_a_client_that_leaves_while_it_sends_gets_no_answer() -> None:
    class Leaving(Upload):
        async def receive(self) -> dict[str, Any]:
            return {"type": "http.disconnect"}

    assert Leaving(b"x").to(bounded(limit=10)).status == 0


# ---------------------------------------------------------------------------------- all together


class Crowd:
    """Requests to a guard, each of which stays until it is let go."""

    def __init__(self, **options: Any) -> None:
        self.leave = asyncio.Event()
        self.guard = BodyGuard(Route("/", self._stay, methods=["POST"]).app, **options)
        self.tasks: list[asyncio.Task[Upload]] = []

    async def _stay(self, request: Request) -> PlainTextResponse:
        size = len(await request.body())
        await self.leave.wait()
        return PlainTextResponse(str(size))

    async def send(self, *chunks: bytes) -> Upload:
        """An upload that has been read, or refused."""
        upload = Upload(*chunks)
        scope = {"type": "http", "method": "POST", "path": "/", "headers": upload.headers}
        call = Faults(self.guard, routes=[])(scope, upload.receive, upload.send)
        self.tasks.append(asyncio.ensure_future(call))  # type: ignore[arg-type]
        for _ in range(20):
            await asyncio.sleep(0)
        return upload

    async def end(self) -> None:
        self.leave.set()
        await asyncio.gather(*self.tasks)


@pytest.fixture
def _small_is_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SMALL", 10)


@pytest.mark.usefixtures("_small_is_ten")
def test_a_body_that_finds_no_room_beside_others_is_told_to_come_back() -> None:
    async def play() -> None:
        crowd = Crowd(limit=100, most=150)
        first = await crowd.send(b"x" * 90)
        second = await crowd.send(b"x" * 40, b"x" * 50, b"rest")
        assert second.status == 503
        assert b"busy" in second.body
        assert second.chunks == []  # read to its end, so that its client reads the answer
        assert crowd.guard.held == 90
        third = await crowd.send(b"x" * 60)
        small = await crowd.send(b"x" * 10)
        await crowd.end()
        assert [each.status for each in (first, third, small)] == [200, 200, 200]
        assert crowd.guard.held == 0

    asyncio.run(play())


@pytest.mark.usefixtures("_small_is_ten")
def test_one_body_up_to_the_limit_always_finds_room() -> None:
    async def play() -> None:
        crowd = Crowd(limit=100, most=50)
        upload = await crowd.send(b"x" * 100)
        await crowd.end()
        assert upload.status == 200

    asyncio.run(play())


def test_a_client_that_leaves_takes_its_bytes_along() -> None:
    class Leaving(Upload):
        async def receive(self) -> dict[str, Any]:
            return await super().receive() if self.chunks[1:] else {"type": "http.disconnect"}

    guard = BodyGuard(Route("/", length, methods=["POST"]).app, limit=100)
    Leaving(b"12345", b"67890").to(Faults(guard, routes=[]))
    assert guard.held == 0


def large_picture() -> str:
    """A picture whose file is larger than a body that counts as small."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_pictures_in_the_queue_take_room_until_their_requests_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = large_picture()
    monkeypatch.setattr(BodyGuard.__init__, "__kwdefaults__", {"most": 300_000, "seconds": 60.0})
    limits = Limits(body=300_000)
    with Server(tmp_path / "models", limits=limits).running() as server:
        kept = {**LONG, "img": picture, "strength": 1, "on_disconnect": "finish"}
        connection = server.post(kept)
        wait_until(lambda: server.forwards)
        connection.close()  # the work goes on, and the picture with it
        wait_until(lambda: [job["status"] for job in jobs(server)] == ["denoising"])
        refused = ask(server, {**SMALL, "img": picture})
        assert refused.status_code == 503
        assert error_of(refused)["type"] == "busy"
        assert int(refused.headers["Retry-After"]) > 0
        assert ask(server, SMALL).status_code == 200
        (job,) = jobs(server)
        httpx.post(f"{server.url}/jobs/{job['id']}/cancel")
        wait_until(lambda: not server.phases())
        wait_until(lambda: ask(server, {**SMALL, "img": picture}).status_code == 200)


def test_decoded_pictures_take_room_beside_their_bodies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = base64.b64encode(png((1, 2, 3))).decode()
    monkeypatch.setattr(BodyGuard.__init__, "__kwdefaults__", {"most": 100_000, "seconds": 60.0})
    sized = {"img": flat, "width": 128, "height": 192}  # 98,304 bytes, four a pixel
    with Server(tmp_path / "models", limits=Limits(body=100_000)).running() as server:
        with server.post({**LONG, **sized, "strength": 1}):
            wait_until(lambda: [job["status"] for job in jobs(server)] == ["denoising"])
            refused = ask(server, {**SMALL, **sized})
            assert refused.status_code == 503
            assert "the pictures that others sent take all the room" in refused.text
            assert ask(server, {**SMALL, "img": flat}).status_code == 200
            (job,) = jobs(server)
            httpx.post(f"{server.url}/jobs/{job['id']}/cancel")
            wait_until(lambda: not server.phases())
        wait_until(lambda: ask(server, {**SMALL, **sized}).status_code == 200)
        large = base64.b64encode(png((1, 2, 3), (512, 512))).decode()  # a megabyte, and alone
        body = {"img": large, "scale": 0.5}
        assert httpx.post(server.url + "/upscale", json=body, timeout=30).status_code == 200
        with server.post({**LONG, "img": flat, "strength": 1}):
            wait_until(lambda: [job["status"] for job in jobs(server)] == ["denoising"])
            refused = httpx.post(server.url + "/upscale", json=body, timeout=30)
            assert refused.status_code == 503


def jobs(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(server.url + "/jobs").json()["jobs"]
    return [job for job in found if job["status"] not in ("final", "cancelled")]


def ask(server: Server, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(server.url + "/generate", json=body, timeout=30)
