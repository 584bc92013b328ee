"""Better prompts over HTTP: `POST /enhance`, `GET /enhancers`, and `enhance` in `/generate`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from imagine_core import Enhancement, Enhancer, EnhanceTask
from imagine_core.enhancing import (
    by_priority,
    choose_enhancer,
    draw_seed,
    enhance,
    enhanced,
    problem_of,
)
from imagine_core.errors import Busy, FieldError, RequestError, ShuttingDown
from imagine_core.web.app import json_line
from imagine_plugins.dialects import strict
from imagine_plugins.dialects.answer import Answer, Output
from imagine_plugins.dialects.strict import Refused
from imagine_plugins.dialects.wire import Order, ignored

if TYPE_CHECKING:
    from starlette.requests import Request

    from imagine_core.service import Service

log = logging.getLogger("imagine")

SEEDS = 2**64
FIELDS: dict[str, Callable[[object], Any]] = {
    "prompt": strict.text,
    "neg": strict.flag,
    "stream": strict.flag,
    "enhancer": strict.name,
    "model": strict.name,
    "seed": strict.seed,
}
"""The fields of `POST /enhance`; null is as good as none for all but the prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The body of `POST /enhance`."""

    prompt: str
    neg: bool = False
    stream: bool = False
    enhancer: str | None = None
    model: str | None = None
    seed: int | None = None
    warnings: tuple[str, ...] = ()

    def task(self) -> EnhanceTask:
        """What is asked of the enhancer."""
        return EnhanceTask(
            prompt=self.prompt,
            seed=draw_seed() if self.seed is None else self.seed,
            negative=self.neg,
            stream=self.stream,
            model=self.model,
        )


class Enhancing:
    """The enhancers of a server, and how many requests they are at work for.

    Args:
        service: The server.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._enhancers = service.plugins.enhancers
        self._busy = 0

    async def answer(self, request: Request) -> Answer:
        """`POST /enhance`: a better prompt, or a stream of lines that ends with one."""
        body = await request.body()
        longest = self._service.engine.settings.limits.prompt
        return Enhanced(self, await asyncio.to_thread(read_wish, body, longest=longest))

    def known(self) -> dict[str, Any]:
        """`GET /enhancers`: names to ask for, the default first, and what is known of each."""
        details = [self._details(each) for each in by_priority(self._enhancers)]
        usable = [each["name"] for each in details if each["problem"] is None]
        return {"enhancers": usable, "default": next(iter(usable), None), "details": details}

    async def improve(self, order: Order) -> Order:
        """`order` with a better prompt; the negative prompt stays the client's."""
        asked = order.request
        seed = draw_seed() if asked.seed is None else asked.seed
        with self.place():
            enhancer = await self.choose(order.enhance or None)
            made = await enhanced(enhancer, EnhanceTask(prompt=asked.prompt, seed=seed))
        log.info("%s made a prompt", enhancer.name)
        request = replace(asked, prompt=made.prompt, original_prompt=asked.prompt)
        return replace(order, request=request, enhance=enhancer.name)

    async def choose(self, name: str | None, *, model: str | None = None) -> Enhancer:
        """The enhancer called `name`, or the best that is available."""
        choice = await asyncio.to_thread(choose_enhancer, self._enhancers, name, model=model)
        return choice.enhancer

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among the requests that enhancers work for."""
        if self._service.engine.stopping:
            raise ShuttingDown
        if self._busy >= self._service.engine.settings.limits.queue:
            raise Busy(f"{self._busy} prompts are being made better already; try again later")
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    def _details(self, enhancer: Enhancer) -> dict[str, Any]:
        return {
            "name": enhancer.name,
            "label": enhancer.label,
            "language_model": enhancer.language_model,
            "problem": problem_of(enhancer),
        }


class Enhanced(Answer):
    """The answer to `POST /enhance`."""

    def __init__(self, enhancing: Enhancing, wish: Wish) -> None:
        super().__init__(streams=wish.stream)
        self._enhancing = enhancing
        self._wish = wish

    async def work(self, out: Output) -> None:
        """Make the prompt; each line of a stream has as much of it as there is."""
        wish, task = self._wish, self._wish.task()
        prompt = ""
        with self._enhancing.place():
            enhancer = await self._enhancing.choose(wish.enhancer, model=wish.model)
            async with aclosing(enhance(enhancer, task)) as events:
                async for event in events:
                    if isinstance(event, Enhancement):
                        line = final_line(event, wish, task, enhancer.name)
                        await out.send(json_line(line), last=True)
                        log.info("%s made a prompt", enhancer.name)
                    elif wish.stream:
                        prompt += event
                        line = {"prompt": prompt, "status": "intermediate"}
                        await out.send(json_line(line), last=False)


def read_wish(body: bytes, *, longest: int) -> Wish:
    """The wish in the body of `POST /enhance`.

    Args:
        body: The bytes.
        longest: Characters of the longest prompt.

    Raises:
        MalformedBody: The body is not a JSON object.
        RequestError: Fields that cannot be served, every one of them.
    """
    given = strict.parse_object(body)
    values: dict[str, Any] = {}
    problems: list[FieldError] = []
    for name, read in FIELDS.items():
        value = given.pop(name, None)
        if value is None:
            continue
        try:
            values[name] = read(value)
        except Refused as error:
            problems.append(FieldError(name, str(error)))
    wish = Wish(**{"prompt": "", **values}, warnings=tuple(ignored(given)))
    refused = {error.field for error in problems}
    problems += [error for error in _problems(wish, longest) if error.field not in refused]
    if problems:
        raise RequestError(problems)
    return wish


def _problems(wish: Wish, longest: int) -> Iterator[FieldError]:
    if not wish.prompt.strip():
        yield FieldError("prompt", "is required: say what to draw")
    if len(wish.prompt) > longest:
        yield FieldError("prompt", f"must have at most {longest:,} characters")
    if wish.seed is not None and not 0 <= wish.seed < SEEDS:
        yield FieldError("seed", "must be from 0 to 2^64-1")


def final_line(made: Enhancement, wish: Wish, task: EnhanceTask, enhancer: str) -> dict[str, Any]:
    """The better prompt: the whole reply, or the last line of a stream."""
    line: dict[str, Any] = {"prompt": made.prompt}
    if task.negative:
        line["neg"] = made.negative_prompt
    return line | {
        "original_prompt": task.prompt,
        "status": "final",
        "enhancer": enhancer,
        "model": made.model,
        "seed": str(task.seed),
        "warnings": list(wish.warnings),
    }
