"""Serves the orders of any dialect: admits them, enhances prompts, and drives the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from PIL.Image import Image

from imagine_core.errors import Cancelled
from imagine_core.pictures.metadata import finished
from imagine_core.types import (
    GeneratedImage,
    GenerationEvent,
    GenerationResult,
    PhaseEvent,
    StepEvent,
)
from imagine_core.web.callers import caller_of
from imagine_core.web.dialect import Dialect, Event, Finished, Order, Record
from imagine_core.web.exchange import Exchange, Output

if TYPE_CHECKING:
    from starlette.requests import Request

    from imagine_core.engine.admission import Admitted
    from imagine_core.service import Service

__all__ = [
    "generation",
    "so_far",
]

RETURN_SECONDS = 5.0
"""How long an order whose client may send it again continues without one."""

READING = 2
"""Bodies that one route parses at once: each may be JSON of some 64 MB."""


def generation(
    service: Service, dialect: Dialect, *, opened: Callable[[Record], object] = id
) -> Callable[[Request], Awaitable[GenerationExchange]]:
    """The endpoint that takes orders in `dialect`, makes their pictures and reports progress.

    `opened` is called with the record of each.
    """
    reading = asyncio.Semaphore(READING)

    async def endpoint(request: Request) -> GenerationExchange:
        body = await request.body()
        async with reading:
            order = await asyncio.to_thread(dialect.read, body, request)
        exchange = GenerationExchange(service, dialect, order, caller=caller_of(request))
        opened(exchange.record)
        return exchange

    return endpoint


class GenerationExchange(Exchange):
    """The answer to one order, or to the repetition of one."""

    def __init__(self, service: Service, dialect: Dialect, order: Order, *, caller: str) -> None:
        first = service.jobs.first(order, caller=caller)
        self._repeats = first is not None
        self.record = first or service.jobs.open(order, caller=caller)
        super().__init__(
            framing=dialect.framing if order.streams else None,
            heartbeat=service.settings.heartbeat,
            headers=[(b"x-job-id", self.record.id.encode())],
        )
        finishes = order.finishes and service.jobs.keeps
        if (finishes or order.idempotency_key is not None) and not self._repeats:
            self.behind = service.jobs.behind
        self.logged = self._repeats
        self._service = service
        self._dialect = dialect

    async def work(self, out: Output) -> None:
        """Make the pictures, or take those that the order has brought before."""
        try:
            await (self._rejoin(out) if self._repeats else self._draw(out))
        except Cancelled as cancelled:
            said = await asyncio.to_thread(self._dialect.say, cancelled, self.record)
            if said is None:
                raise
            await out.send(said, last=True)

    async def _rejoin(self, out: Output) -> None:
        """Wait for the order that is in progress already, or send its result again."""
        self.record.join()
        try:
            await self.record.ended.wait()
        finally:
            self.record.leave(RETURN_SECONDS)
        if self.record.finished is None:
            raise self.record.error or Cancelled
        await self._say(self.record.finished, out, last=True)

    async def _draw(self, out: Output) -> None:
        """Make the pictures, with the prompt enhanced if the order asks for it."""
        service, record = self._service, self.record
        async with service.jobs.at_work(record):
            order = record.order
            admitted = await service.engine.admit(order.request, errors=order.errors)
            with self.holding(admitted.held):
                await self._make(admitted, out)

    async def _make(self, admitted: Admitted, out: Output) -> None:
        service, record, order = self._service, self.record, self.record.order
        if order.enhance is not None:
            service.enhancing.require(order.enhance)
            await self._send(PhaseEvent(phase="enhancing"), out)
            admitted, record.enhancer = await service.enhancing.improve(admitted, order.enhance)
        record.request = admitted.request
        async with aclosing(service.engine.generate(admitted, id=record.id)) as events:
            async for event in events:
                self.logged = True  # from here on, observers report how it ends
                await self._send(event, out)

    def leave_behind(self, *, begun: bool) -> bool:
        """Leave the order to itself, or to a client that sends it again.

        No client repeats a stream that has begun.
        """
        if begun and self._framing is not None and not self.record.order.finishes:
            return False
        self.record.leave(RETURN_SECONDS)
        return True

    def last_words(self, error: Exception) -> bytes:
        """The dialect's message for `error`."""
        return self._dialect.fail(error, begun=True)[1]

    async def _send(self, event: GenerationEvent, out: Output) -> None:
        self.record.take(event)
        if isinstance(event, GenerationResult):
            done = await asyncio.to_thread(_finished, self._service, event)
            self.record.finish(done)
            await self._say(done, out, last=True)
        elif self._framing is not None and not out.left.is_set():
            await self._say(event, out, last=False)

    async def _say(self, event: Event, out: Output, *, last: bool) -> None:
        if isinstance(event, Finished) or (
            isinstance(event, StepEvent) and isinstance(event.preview, Image)
        ):
            message = await asyncio.to_thread(self._dialect.say, event, self.record)
        else:
            message = self._dialect.say(event, self.record)
        if message is not None:
            await out.send(message, last=last)


def so_far(service: Service, record: Record) -> Finished:
    """What there is of an order that has not finished: its latest preview as its picture.

    Without a preview there is none.
    """
    request = record.request
    images: tuple[GeneratedImage, ...] = ()
    if record.preview is not None:
        preview = record.preview.resize(request.drawn_size)
        images = (GeneratedImage(image=preview, seed=request.seed or 0),)
    return _finished(service, GenerationResult(images=images, request=request))


def _finished(service: Service, result: GenerationResult) -> Finished:
    label = service.plugins.samplers.get(result.request.sampler).label
    return Finished(
        result=result,
        pngs=tuple(finished(made, result, sampler_label=label)[1] for made in result.images),
        seeds=tuple(made.seed for made in result.images),
        subseeds=tuple(m.subseed for m in result.images if m.subseed is not None),
    )
