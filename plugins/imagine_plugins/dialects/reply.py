"""The reply to `POST /generate`: drives the engine for as long as the client is there."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from imagine_core.errors import RequestError
from imagine_core.pictures.infotext import write_infotext
from imagine_core.pictures.metadata import meta_of, png_bytes
from imagine_core.types import (
    GeneratedImage,
    GenerationEvent,
    GenerationRequest,
    GenerationResult,
    PhaseEvent,
    StepEvent,
)
from imagine_core.version import version
from imagine_core.web.app import explain, json_line
from imagine_plugins.dialects.lines import (
    enhancing_line,
    final_line,
    intermediate_line,
    phase_line,
    progress_line,
)
from imagine_plugins.dialects.wire import Order, on_wire

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from imagine_core.service import Service
    from imagine_plugins.dialects.enhancing import Enhancing

log = logging.getLogger("imagine")

STALL_SECONDS = 120.0
"""A client that takes nothing for so long is given up."""

NO_DATE = datetime.fromtimestamp(0, tz=UTC)


class Answer:
    """An ASGI application that answers one request, and lets go of it when its client leaves.

    Errors before the first byte are raised, for the application's one table of statuses; later
    ones are the last line.

    Args:
        streams: Whether the answer is a stream of lines.
    """

    def __init__(self, *, streams: bool) -> None:
        self._streams = streams

    async def work(self, out: Output) -> None:
        """Do what is asked for, and send it."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        del scope
        out = Output(send, streams=self._streams)
        work = asyncio.create_task(self._answer(out))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if out.complete:  # which servers report as a disconnect too
                await work
        finally:
            if not work.done():
                log.info("a client left: its request is given up")
            await _cancel(gone)
            await _cancel(work)
        if not work.cancelled():
            work.result()

    async def _answer(self, out: Output) -> None:
        try:
            await self.work(out)
        except TimeoutError:
            log.warning("a client stopped reading: its request is given up")
        except Exception as error:
            renamed = on_wire(error) if isinstance(error, RequestError) else error
            if not out.started:
                raise renamed from error
            await out.send(json_line(explain(renamed)[1]), last=True)


class Reply(Answer):
    """The answer to `POST /generate`."""

    def __init__(self, service: Service, order: Order, enhancing: Enhancing) -> None:
        super().__init__(streams=order.streams)
        self.service = service
        self.order = order
        self._enhancing = enhancing

    async def work(self, out: Output) -> None:
        """Make the pictures, of a better prompt if that is asked for."""
        started = time.perf_counter()
        if self.order.enhance is not None:
            if self.order.progress:
                await out.send(json_line(enhancing_line()), last=False)
            self.order = await self._enhancing.improve(self.order)
        async with aclosing(self.service.engine.generate(self.order.request)) as events:
            async for event in events:
                line = await self._render(event)
                if line is not None:
                    await out.send(line, last=isinstance(event, GenerationResult))
                if isinstance(event, GenerationResult):
                    _log_result(event, time.perf_counter() - started)

    async def _render(self, event: GenerationEvent) -> bytes | None:
        """The line for an event, if there is one; those with pictures take a thread's time."""
        match event:
            case GenerationResult() | StepEvent(preview=Image()):
                return await asyncio.to_thread(self._picture_line, event)
            case StepEvent() if self.order.progress:
                return json_line(progress_line(event))
            case PhaseEvent() if self.order.progress:
                return json_line(phase_line(event))
        return None

    def _picture_line(self, event: StepEvent | GenerationResult) -> bytes:
        if isinstance(event, StepEvent):
            request = self.order.request
            return json_line(intermediate_line(event, _preview_png(event, request)))
        pngs = [self._png(event, made) for made in event.images]
        return json_line(final_line(event, pngs, order=self.order, version=version()))

    def _png(self, result: GenerationResult, made: GeneratedImage) -> bytes:
        """The PNG of a picture and its metadata.

        Without what may differ between two equal requests (the date, the model's hash, which is
        known some time after the model), so that they get equal bytes; and without the picture
        that the client itself sent.
        """
        request = result.request
        meta = meta_of(request, seed=made.seed, date=NO_DATE) | {"img": None}
        del meta["date"]
        infotext = write_infotext(
            request,
            seed=made.seed,
            sampler_label=self.service.plugins.samplers.get(request.sampler).label,
            model_hash=None,
            version=version(),
        )
        return png_bytes(made.image, meta, infotext=infotext)


@dataclass(slots=True)
class Output:
    """What goes to the client: one JSON object, or lines of them."""

    _send: Send
    streams: bool
    started: bool = False
    complete: bool = False

    async def send(self, line: bytes, *, last: bool) -> None:
        """Send a line; the head of the response goes before the first."""
        async with asyncio.timeout(STALL_SECONDS):
            if not self.started:
                self.started = True
                await self._send(self._head(line))
            await self._send({"type": "http.response.body", "body": line, "more_body": not last})
            self.complete = last

    def _head(self, first: bytes) -> dict[str, Any]:
        headers = [(b"cache-control", b"no-store")]
        if self.streams:
            headers.append((b"content-type", b"application/x-ndjson"))
            headers.append((b"x-accel-buffering", b"no"))  # nginx would hold lines back
        else:
            headers.append((b"content-type", b"application/json"))
            headers.append((b"content-length", str(len(first)).encode()))
        return {"type": "http.response.start", "status": 200, "headers": headers}


async def _disconnected(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _preview_png(event: StepEvent, request: GenerationRequest) -> bytes:
    assert event.preview is not None
    return png_bytes(event.preview.resize((request.width, request.height)), None)


def _log_result(result: GenerationResult, seconds: float) -> None:
    request = result.request
    log.info(
        "%s: %d x %dx%d, %s, %d steps, %.1f s",
        request.model,
        request.images,
        request.width,
        request.height,
        request.sampler,
        request.steps,
        seconds,
    )
