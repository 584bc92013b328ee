"""The reply to `POST /generate`: drives the engine for as long as the client is there."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

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
from imagine_core.web.app import json_line
from imagine_plugins.dialects.answer import Answer, Output
from imagine_plugins.dialects.lines import (
    enhancing_line,
    final_line,
    intermediate_line,
    phase_line,
    progress_line,
)
from imagine_plugins.dialects.wire import Order

if TYPE_CHECKING:
    from imagine_core.service import Service
    from imagine_plugins.dialects.enhancing import Enhancing
    from imagine_plugins.dialects.jobs import Jobs

KEEPS_NOTHING = "this server keeps no results: on_disconnect 'finish' was ignored"
NO_DATE = datetime.fromtimestamp(0, tz=UTC)


class Reply(Answer):
    """The answer to `POST /generate`."""

    def __init__(self, service: Service, order: Order, enhancing: Enhancing, jobs: Jobs) -> None:
        self.job = jobs.open(order)
        super().__init__(streams=order.streams, headers=[(b"x-job-id", self.job.id.encode())])
        self.behind = jobs.behind if self.job.keeps else None
        self.service = service
        self.order = order
        if order.finishes and not self.job.keeps:
            self.order = replace(order, warnings=(*order.warnings, KEEPS_NOTHING))
        self._enhancing = enhancing
        self._jobs = jobs

    async def work(self, out: Output) -> None:
        """Make the pictures, of a better prompt if that is asked for."""
        async with self._jobs.at_work(self.job):
            if self.order.enhance is not None:
                # Names that nobody knows are found before an enhancer works for them.
                await asyncio.to_thread(self.service.engine.resolve, self.order.request)
                if self.order.enhance:
                    self.service.plugins.enhancers.get(self.order.enhance)
                self.job.begun = True
                if self.order.progress:
                    await out.send(self._line(enhancing_line()), last=False)
                self.order = await self._enhancing.improve(self.order)
            events = self.service.engine.generate(self.order.request, id=self.job.id)
            async with aclosing(events):
                async for event in events:
                    self.logged = True  # from here on, observers of generations are told
                    await self._send(event, out)

    async def _send(self, event: GenerationEvent, out: Output) -> None:
        last = isinstance(event, GenerationResult)
        self.job.take(event)
        if out.left.is_set() and not last:
            return  # previews for nobody
        line = await self._render(event)
        if last and line is not None:
            self.job.end("final", line)
        if line is not None:
            await out.send(line, last=last)

    async def _render(self, event: GenerationEvent) -> bytes | None:
        """The line for an event, if there is one; those with pictures take a thread's time."""
        match event:
            case GenerationResult() | StepEvent(preview=Image()):
                return await asyncio.to_thread(self._picture_line, event)
            case StepEvent() if self.order.progress:
                return self._line(progress_line(event))
            case PhaseEvent() if self.order.progress:
                return self._line(phase_line(event))
        return None

    def _picture_line(self, event: StepEvent | GenerationResult) -> bytes:
        if isinstance(event, StepEvent):
            request = self.order.request
            return self._line(intermediate_line(event, _preview_png(event, request)))
        pngs = [self._png(event, made) for made in event.images]
        return self._line(final_line(event, pngs, order=self.order, version=version()))

    def _line(self, content: dict[str, Any]) -> bytes:
        return json_line({"id": self.job.id, **content})

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


def _preview_png(event: StepEvent, request: GenerationRequest) -> bytes:
    assert event.preview is not None
    return png_bytes(event.preview.resize((request.width, request.height)), None)
