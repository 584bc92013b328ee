"""The client of the native HTTP API, in the shape of the engine: a request in, events out."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from imagine_core import network
from imagine_core.errors import (
    Busy,
    Cancelled,
    FieldError,
    GenerationFailed,
    ImagineError,
    MalformedBody,
    OutOfMemory,
    RequestError,
    ServerFailed,
    ShuttingDown,
    Unauthorized,
)
from imagine_core.fields import in_core, to_json
from imagine_core.types import (
    GenerationEvent,
    GenerationRequest,
    GenerationResult,
    UpscaleEvent,
    UpscaleRequest,
    UpscaleResult,
)
from imagine_plugins.dialects.native.lines import read_line
from imagine_plugins.dialects.native.upscale_lines import read_upscale_line, upscale_body
from imagine_plugins.server.addresses import server_url

if TYPE_CHECKING:
    import httpx
    from PIL import Image

T = TypeVar("T")

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0

WITHOUT_DETAILS = (Cancelled, ShuttingDown, Unauthorized)
SAYING: dict[object, type[ImagineError]] = {
    error.type: error for error in (OutOfMemory, GenerationFailed, MalformedBody)
}
"""Errors that are nothing but their type, and their message. Of others, the server knows more."""


class NativeClient:
    """A server at `address`: "host", "host:port" or a URL.

    Args:
        address: Where the server is.
        api_key: Its key, if it needs one.
        answer_seconds: How long to wait for an answer that needs no work.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.url = server_url(address)
        self._answer_seconds = answer_seconds
        self._headers = {}
        if api_key:
            self._headers[b"Authorization"] = f"Bearer {api_key.strip()}".encode()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """The events of one request, as `Engine.generate` has them; closing it cancels.

        Raises:
            ImagineError: The server's error, or `ServerFailed` if it sent none.
        """
        body = {**to_json(request), "progress": True}
        finished = False

        def read(line: bytes) -> GenerationEvent | None:
            return self._read(line, partial(_event, request))

        async with (
            self._call("POST", "/generate", seconds=None, json=body) as response,
            aclosing(_lines(response)) as lines,
        ):
            async for line in lines:
                event = await asyncio.to_thread(read, line)
                finished = finished or isinstance(event, GenerationResult)
                if event is not None:
                    yield event
        if not finished:
            raise self._gone()

    async def upscale(self, request: UpscaleRequest) -> AsyncGenerator[UpscaleEvent]:
        """The events of enlarging a picture, as `Engine.upscale` has them; closing it cancels.

        Raises:
            ImagineError: The server's error, or `ServerFailed` if it sent none.
        """
        body = {**upscale_body(request), "progress": True}
        finished = False

        def read(line: bytes) -> UpscaleEvent | None:
            return self._read(line, partial(_upscaled, request))

        async with (
            self._call("POST", "/upscale", seconds=None, json=body) as response,
            aclosing(_lines(response)) as lines,
        ):
            async for line in lines:
                event = await asyncio.to_thread(read, line)
                finished = finished or isinstance(event, UpscaleResult)
                if event is not None:
                    yield event
        if not finished:
            raise self._gone()

    async def upscalers(self) -> dict[str, Any]:
        """`GET /upscalers`."""
        return await self._get("/upscalers")

    async def models(self, kind: str = "model") -> dict[str, Any]:
        """`GET /models` of a kind."""
        return await self._get(f"/models?kind={quote(kind, safe='')}")

    async def samplers(self) -> dict[str, Any]:
        """`GET /samplers`."""
        return await self._get("/samplers")

    async def health(self) -> dict[str, Any]:
        """`GET /health`."""
        return await self._get("/health")

    async def version(self) -> dict[str, Any]:
        """`GET /version`."""
        return await self._get("/version")

    async def ps(self) -> dict[str, Any]:
        """`GET /ps`."""
        return await self._get("/ps")

    async def model(self, name: str, kind: str | None = None) -> dict[str, Any]:
        """`GET /models/NAME`, of a kind or of any."""
        query = "" if kind is None else f"?kind={quote(kind, safe='')}"
        return await self._get(f"/models/{quote(name, safe='')}{query}", patient=True)

    async def stop(self, name: str) -> dict[str, Any]:
        """`POST /stop`."""
        async with self._call("POST", "/stop", seconds=None, json={"model": name}) as response:
            return self._object(await response.aread())

    async def _get(self, path: str, *, patient: bool = False) -> dict[str, Any]:
        seconds = None if patient else self._answer_seconds
        async with self._call("GET", path, seconds=seconds) as response:
            return self._object(await response.aread())

    @asynccontextmanager
    async def _call(
        self, method: str, path: str, *, seconds: float | None, json: object = None
    ) -> AsyncIterator[httpx.Response]:
        """The successful response to one call; connection errors in our words."""
        import httpx

        network.check(self.url)
        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        # A proxy does not apply to this machine, with or without NO_PROXY.
        trust = not network.is_loopback(urlsplit(self.url).hostname or "")
        try:
            async with (
                httpx.AsyncClient(timeout=timeout, headers=self._headers, trust_env=trust) as http,
                http.stream(method, self.url + path, json=json) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    raise self._error(response, await response.aread())
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerFailed(
                f"no server answers at {self.url} ({error}); does 'imagine serve' run there?",
                lost=True,
            ) from error
        except httpx.TransportError as error:
            raise self._gone() from error

    def _read(self, line: bytes, read: Callable[[dict[str, Any]], T]) -> T | None:
        """What `read` makes of a line; None of a blank one."""
        if not line.strip():
            return None
        value = self._object(line)
        if "error" in value:
            raise self._stated(value["error"])
        try:
            return read(value)
        except (KeyError, ValueError, TypeError, OSError, AttributeError) as error:
            raise self._strange() from error

    def _object(self, text: bytes) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise self._strange()
        return value

    def _error(self, response: httpx.Response, body: bytes) -> ImagineError:
        """The error of a bad status, in the server's words if it has any."""
        try:
            stated = self._object(body)["error"]
        except (ServerFailed, KeyError):
            stated = None
        if not isinstance(stated, Mapping):
            status = f"{response.status_code} {response.reason_phrase}".strip()
            return ServerFailed(f"{self.url} answered {status}; is it an Imagine server?")
        return self._stated(stated, retry_after=response.headers.get("retry-after"))

    def _stated(self, stated: object, *, retry_after: str | None = None) -> ImagineError:
        """The error in a server's body; `ServerFailed` for an unknown type."""
        if not isinstance(stated, Mapping):
            return self._strange()
        message = str(stated.get("message", "the server gave no reason"))
        kind = stated.get("type")
        fields = tuple(_fields(stated.get("fields")))
        if kind == RequestError.type and fields:
            return in_core(RequestError(fields))
        if kind == Busy.type:
            wait = str(retry_after or stated.get("retry_after", ""))
            return Busy(message, retry_after=int(wait) if wait.isdecimal() else 5)
        for error in WITHOUT_DETAILS:
            if kind == error.type:
                return error()
        return SAYING.get(kind, ServerFailed)(message)

    def _gone(self) -> ServerFailed:
        return ServerFailed(f"the server at {self.url} went away before it was done", lost=True)

    def _strange(self) -> ServerFailed:
        return ServerFailed(f"what answers at {self.url} does not speak as an Imagine server does")


def _event(request: GenerationRequest, line: dict[str, Any]) -> GenerationEvent | None:
    return read_line(line, request, _picture)


def _upscaled(request: UpscaleRequest, line: dict[str, Any]) -> UpscaleEvent | None:
    return read_upscale_line(line, request, _picture)


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes]:
    """The lines of a response, each as soon as it is complete."""
    parts: list[bytes] = []
    async for chunk in response.aiter_bytes():
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            yield b"".join([*parts, line])
            parts.clear()
        parts.append(rest)
    yield b"".join(parts)


def _fields(stated: object) -> Iterable[FieldError]:
    for each in stated if isinstance(stated, list) else ():
        if isinstance(each, Mapping):
            yield FieldError(str(each.get("field", "?")), str(each.get("message", "")))


def _picture(encoded: str) -> tuple[Image.Image, bytes]:
    """A picture, and its PNG bytes."""
    from PIL import Image

    try:
        png = base64.b64decode(encoded, validate=True)
        image = Image.open(BytesIO(png), formats=["PNG"])
        image.load()
    except (binascii.Error, SyntaxError) as error:  # Pillow calls broken PNGs that
        raise ValueError("no picture") from error
    return image, png
