"""Routes that answer with JSON, computed on a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from imagine_core.strict_json import parse_object
from imagine_core.web.app import AsciiJSONResponse
from imagine_core.web.callers import caller_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from imagine_core.service import Service
    from imagine_core.web.dialect import Record

__all__ = [
    "Call",
    "answering",
]


READING = 2
"""Bodies that one route reads at once."""


class Call(NamedTuple):
    """A request for an answer.

    Attributes:
        caller: Its client.
        orders: The orders of the client that are in progress, the oldest first.
        given: The JSON object in its body, if it has one to read.
        query: Its query.
    """

    caller: str
    orders: list[Record]
    given: dict[str, Any]
    query: Mapping[str, str]


def answering(
    service: Service, answer: Callable[[Call], object], *, reads: bool = False
) -> Callable[[Request], Coroutine[Any, Any, AsciiJSONResponse]]:
    """The endpoint with what `answer` returns, called on a thread; `reads`: it has a body."""
    reading = asyncio.Semaphore(READING)

    async def endpoint(request: Request) -> AsciiJSONResponse:
        caller, body = caller_of(request), await request.body() if reads else b""
        orders = service.jobs.of(caller)

        def work() -> AsciiJSONResponse:
            given = parse_object(body) if reads else {}
            return AsciiJSONResponse(answer(Call(caller, orders, given, request.query_params)))

        async with reading if reads else nullcontext():
            return await asyncio.to_thread(work)

    return endpoint
