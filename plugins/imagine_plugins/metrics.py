"""`GET /metrics`: a server's counts and state, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from imagine_core import Generation, hookimpl

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.registry import CollectorRegistry
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from imagine_core.executor import Executor
    from imagine_core.service import Service

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
"""Bounds of the histograms: from the smallest model on a GPU to the largest on a CPU."""

MOST_MODELS = 100
"""Models that get a label of their own; files may come and go for months."""

OTHER = "(other)"

OPERATION = {
    "summary": "What the server did and does",
    "responses": {
        "200": {
            "description": "The text format of Prometheus.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
}


class Metrics:
    """Counts generations if a server exports the counts.

    Each instance, and so each server, has its own registry.
    """

    def __init__(self) -> None:
        self._counts: Counts | None = None

    @hookimpl
    def register_routes(self, register: Callable[[BaseRoute], None], service: Service) -> None:
        """Register the route, and start to count."""
        from starlette.routing import Route

        from imagine_core.web.openapi import described

        counts = self._counts = self._counts or Counts()
        counts.watch(service.engine)

        async def metrics(_: Request) -> Response:
            return await counts.answer()

        register(described(Route("/metrics", metrics, methods=["GET"]), OPERATION))

    @hookimpl
    def generation_started(self, generation: Generation) -> None:
        """Count it."""
        if self._counts is not None:
            self._counts.started(generation)

    @hookimpl
    def generation_finished(self, generation: Generation) -> None:
        """Count it and its times."""
        if self._counts is not None:
            self._counts.finished(generation)


class Counts:
    """The collectors and their registry."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self.registry: CollectorRegistry = CollectorRegistry()
        self._models: set[str] = set()
        self._started = Counter(
            "imagine_generations_started",
            "Requests that were taken on.",
            ["model"],
            registry=self.registry,
        )
        self._finished = Counter(
            "imagine_generations",
            "Requests that ended, and how: done, failed, cancelled, or refused by a full queue.",
            ["model", "outcome"],
            registry=self.registry,
        )
        self._errors = Counter(
            "imagine_errors",
            "Requests that failed or were refused, by the type of the error.",
            ["type"],
            registry=self.registry,
        )
        self._pictures = Counter(
            "imagine_pictures", "Pictures that were finished.", registry=self.registry
        )
        self._seconds = Histogram(
            "imagine_phase_seconds",
            "What the phases of requests took: queued, loading, encoding, denoising, decoding, ...",
            ["phase"],
            buckets=SECONDS,
            registry=self.registry,
        )

    def watch(self, engine: Executor) -> None:
        """Export the state of `engine` at each scrape."""
        self.registry.register(Standing(engine, self._label))

    def started(self, generation: Generation) -> None:
        """A request was taken on."""
        self._started.labels(self._label(generation.model)).inc()

    def finished(self, generation: Generation) -> None:
        """A request has ended."""
        model, outcome = self._label(generation.model), generation.outcome or "?"
        self._finished.labels(model, outcome).inc()
        if generation.error is not None:
            self._errors.labels(generation.error).inc()
        if outcome == "done":
            self._pictures.inc(generation.images)
        for phase, seconds in generation.timings.items():
            self._seconds.labels(phase).observe(seconds)

    async def answer(self) -> Response:
        """The text, made on its own thread."""
        import asyncio

        from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
        from starlette.responses import Response

        text = await asyncio.to_thread(generate_latest, self.registry)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    def _label(self, model: str) -> str:
        if model not in self._models:
            if len(self._models) >= MOST_MODELS:
                return OTHER
            self._models.add(model)
        return model


class Standing:
    """Reads the state of an engine at each scrape, so that no gauge is out of date."""

    def __init__(self, engine: Executor, label: Callable[[str], str]) -> None:
        self._engine, self._label = engine, label

    def describe(self) -> list[Metric]:
        """No metrics, so no duplicates."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Its metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        status = self._engine.status()
        yield GaugeMetricFamily("imagine_ready", "Whether pictures can be made.", status.ready)
        jobs = GaugeMetricFamily("imagine_jobs", "Requests in progress.", labels=["state"])
        queued = sum(job.phase == "queued" for job in status.jobs)
        jobs.add_metric(["queued"], queued)
        jobs.add_metric(["running"], len(status.jobs) - queued)
        yield jobs
        memory = GaugeMetricFamily(
            "imagine_model_memory_bytes", "What loaded models take.", labels=["model"]
        )
        taken: dict[str, int] = {}
        for model in status.loaded:
            label = self._label(model.name)
            taken[label] = taken.get(label, 0) + model.memory
        for label, size in taken.items():
            memory.add_metric([label], size)
        yield memory
        yield CounterMetricFamily("imagine_forwards", "Calls of models.", status.forwards)
        yield CounterMetricFamily(
            "imagine_evaluations",
            "Evaluations that samplers wanted; those per forward are what sharing brings.",
            status.evaluations,
        )
