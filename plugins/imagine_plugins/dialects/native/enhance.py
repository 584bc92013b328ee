"""Better prompts over HTTP: `POST /enhance` and `GET /enhancers`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagine_core import Enhancement, Enhancer, EnhanceTask, strict_json
from imagine_core.enhancing import by_priority, enhance, problem_of
from imagine_core.errors import FieldError, RequestError
from imagine_core.kinds import SEEDS, draw_seed
from imagine_core.strict_json import Refused
from imagine_core.web.app import json_line
from imagine_core.web.dialect import LINES
from imagine_core.web.exchange import Exchange, Output
from imagine_core.web.reading import ignored

if TYPE_CHECKING:
    from starlette.requests import Request

    from imagine_core.service import Service
    from imagine_core.web.enhancing import Enhancing

log = logging.getLogger("imagine")

FIELDS: dict[str, Callable[[object], Any]] = {
    "prompt": strict_json.text,
    "neg": strict_json.flag,
    "stream": strict_json.flag,
    "enhancer": strict_json.name,
    "model": strict_json.name,
    "seed": strict_json.seed,
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
        """The enhancer's task."""
        return EnhanceTask(
            prompt=self.prompt,
            seed=draw_seed() if self.seed is None else self.seed,
            negative=self.neg,
            stream=self.stream,
            model=self.model,
        )


def enhance_endpoint(service: Service) -> Callable[[Request], Coroutine[Any, Any, EnhanceExchange]]:
    """`POST /enhance`: a better prompt, or a stream that ends with one."""
    longest = service.engine.settings.limits.prompt

    async def endpoint(request: Request) -> EnhanceExchange:
        wish = await asyncio.to_thread(read_wish, await request.body(), longest=longest)
        return EnhanceExchange(service, wish)

    return endpoint


def enhancers(enhancing: Enhancing) -> dict[str, Any]:
    """`GET /enhancers`: the names, the default first, and details of each."""
    details = [_details(each) for each in by_priority(enhancing.enhancers)]
    usable = [each["name"] for each in details if each["problem"] is None]
    return {"enhancers": usable, "default": next(iter(usable), None), "details": details}


def _details(enhancer: Enhancer) -> dict[str, Any]:
    return {
        "name": enhancer.name,
        "label": enhancer.label,
        "language_model": enhancer.language_model,
        "problem": problem_of(enhancer),
    }


class EnhanceExchange(Exchange):
    """The answer to `POST /enhance`."""

    def __init__(self, service: Service, wish: Wish) -> None:
        super().__init__(
            framing=LINES if wish.stream else None, heartbeat=service.settings.heartbeat
        )
        self._enhancing = service.enhancing
        self._wish = wish

    async def work(self, out: Output) -> None:
        """Make the prompt; each line of a stream has all of it so far."""
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
        longest: Most characters of a prompt.

    Raises:
        MalformedBody: The body is not a JSON object.
        RequestError: All fields that cannot be served.
    """
    given = strict_json.parse_object(body)
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
        places = list(FIELDS)
        raise RequestError(sorted(problems, key=lambda error: places.index(error.field)))
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
