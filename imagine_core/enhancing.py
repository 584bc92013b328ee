"""Chooses a prompt enhancer, runs it, and checks what it makes."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace

from imagine_core.errors import EnhancerFailed, FieldError, RequestError
from imagine_core.interfaces import Enhancement, Enhancer, EnhanceTask
from imagine_core.registry import Registry
from imagine_core.safe_text import quoted

__all__ = [
    "by_priority",
    "choose_enhancer",
    "enhance",
    "enhanced",
    "problem_of",
]

log = logging.getLogger("imagine")

MOST_MORE = 10_000
"""Characters that an enhancer may add: a model that makes more does not stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The enhancer to use.

    Attributes:
        enhancer: The enhancer.
        passed_over: Why those of higher priority are unavailable, one reason each.
    """

    enhancer: Enhancer
    passed_over: tuple[str, ...] = ()


def choose_enhancer(
    enhancers: Registry[Enhancer],
    name: str | None = None,
    *,
    model: str | None = None,
    address: str | None = None,
) -> Choice:
    """The enhancer called `name`; else the available one with the highest priority.

    A `model` or `address` requires an enhancer that uses a language model. May connect to servers,
    so it must not run on an event loop.

    Raises:
        UnknownName: No enhancer is called `name`.
        RequestError: It does not use `model` or `address`.
        EnhancerFailed: None is available.
    """
    wants_model = model is not None or address is not None
    if name is not None:
        enhancer = enhancers.get(name)
        if wants_model and not enhancer.language_model:
            field = "model" if model is not None else "address"
            message = f"means nothing to the enhancer {enhancer.name!r}: it asks no language model"
            raise RequestError([FieldError(field, message)])
        return Choice(enhancer=enhancer)
    suitable = [each for each in by_priority(enhancers) if each.language_model or not wants_model]
    passed_over: list[str] = []
    for enhancer in suitable:
        problem = problem_of(enhancer, address)
        if problem is None:
            return Choice(enhancer=enhancer, passed_over=tuple(passed_over))
        passed_over.append(problem)
    names = ", ".join(each.name for each in suitable)
    raise EnhancerFailed(names or "any", "; ".join(passed_over) or "no plugin brings one")


def by_priority(enhancers: Iterable[Enhancer]) -> list[Enhancer]:
    """The enhancers in the order in which they are chosen."""
    return sorted(enhancers, key=lambda enhancer: (-enhancer.priority, enhancer.name))


def problem_of(enhancer: Enhancer, address: str | None = None) -> str | None:
    """Why `enhancer` cannot be used now, or None if it can; a plugin that raises cannot."""
    try:
        return enhancer.unavailable(address)
    except Exception as error:  # a plugin may raise anything
        return _described(enhancer, error).problem


async def enhance(enhancer: Enhancer, task: EnhanceTask) -> AsyncGenerator[str | Enhancement, None]:
    """The better prompt in pieces, if `enhancer` streams, and then as a whole.

    Closing this closes the enhancer's own generator.

    Raises:
        EnhancerFailed: It raised, or yielded something invalid.
    """
    streamed = ""
    try:
        async with aclosing(_events(enhancer, task)) as events:
            async for event in events:
                if isinstance(event, Enhancement):
                    yield _checked(enhancer, task, event, streamed)
                    return
                streamed = _longer(enhancer, streamed, event, most=_most(task))
                yield str(event)
    except Exception as error:
        raise _described(enhancer, error) from error
    raise EnhancerFailed(enhancer.name, "it ended without a prompt")


async def enhanced(
    enhancer: Enhancer, task: EnhanceTask, show: Callable[[str], object] = str
) -> Enhancement:
    """The better prompt, all of it; `show` receives it piece by piece."""
    async with aclosing(enhance(enhancer, task)) as events:
        async for event in events:
            if isinstance(event, Enhancement):
                return event
            show(event)
    raise AssertionError


def _events(enhancer: Enhancer, task: EnhanceTask) -> AsyncGenerator[object, None]:
    """The enhancer's generator, not started yet."""
    events: object = enhancer.enhance(task)
    if isinstance(events, AsyncGenerator):
        return events
    if inspect.iscoroutine(events):
        events.close()
    raise EnhancerFailed(enhancer.name, "its `enhance` is no asynchronous generator")


def _most(task: EnhanceTask) -> int:
    """The most characters that an enhancer may make."""
    return len(task.prompt) + MOST_MORE


def _longer(enhancer: Enhancer, streamed: str, event: object, *, most: int) -> str:
    """The streamed text after one more event."""
    if not isinstance(event, str):
        raise EnhancerFailed(enhancer.name, f"it yielded {event!r:.100}")
    if len(streamed) + len(event) > most:
        raise EnhancerFailed(enhancer.name, "it does not come to an end")
    return streamed + event


def _checked(
    enhancer: Enhancer, task: EnhanceTask, made: Enhancement, streamed: str
) -> Enhancement:
    """`made`, if it is valid for `task`."""
    texts: tuple[object, ...] = (made.prompt, made.negative_prompt)  # of a plugin: may be anything
    for text in texts:
        if not isinstance(text, str) or not _is_unicode(text) or len(text) > _most(task):
            raise EnhancerFailed(enhancer.name, f"it made no prompt, but {text!r:.100}")
    if not made.prompt.strip():
        raise EnhancerFailed(enhancer.name, "it made an empty prompt")
    if streamed and streamed != made.prompt:
        raise EnhancerFailed(enhancer.name, "its prompt is not what it had yielded piece by piece")
    if not task.negative:
        return replace(made, negative_prompt="")
    if not made.negative_prompt.strip():
        raise EnhancerFailed(enhancer.name, "it made no negative prompt")
    return made


def _is_unicode(text: str) -> bool:
    """Whether it holds no lone surrogate, which cannot be sent or printed."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _described(enhancer: Enhancer, error: Exception) -> EnhancerFailed:
    """What a plugin raised, as an error that names it."""
    if isinstance(error, EnhancerFailed):
        return error
    log.debug("enhancer %r raised", enhancer.name, exc_info=error)
    return EnhancerFailed(enhancer.name, f"it raised {quoted(error)}")
