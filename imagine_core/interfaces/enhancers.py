"""Prompt enhancers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

__all__ = [
    "EnhanceTask",
    "Enhancement",
    "Enhancer",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnhanceTask:
    """What an enhancer starts from.

    Attributes:
        prompt: What the user wrote.
        seed: Whatever is left to chance is drawn from this: the same seed, the same prompt.
        negative: Whether a negative prompt is wanted too.
        stream: Whether the caller wants the prompt piece by piece.
        model: Which language model to use; None for whichever the enhancer prefers.
        address: Where the server of that model is; None for where it usually is. It comes from
            the command line alone: a client must not decide where the server connects to.
    """

    prompt: str
    seed: int
    negative: bool = False
    stream: bool = False
    model: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Enhancement:
    """What an enhancer made of a prompt.

    Attributes:
        prompt: The better prompt.
        negative_prompt: What to keep away from; needed only where one was asked for.
        model: The language model that wrote it, if one did.
    """

    prompt: str
    negative_prompt: str = ""
    model: str | None = None


class Enhancer:
    """Makes a better prompt of a prompt. Subclass it, and register an instance.

    Attributes:
        name: What `-e` takes.
        label: What people read.
        priority: Requests that name none get the available enhancer with the highest priority.
        language_model: Whether a language model does the work, so that a task's `model` and
            `address` mean something.
    """

    name: str
    label: str
    priority: int = 0
    language_model: bool = False

    def unavailable(self, address: str | None = None) -> str | None:
        """Why it cannot be used now, or None if it can. Called on a thread; may ask a server."""
        del address
        return None

    def enhance(self, task: EnhanceTask) -> AsyncIterator[str | Enhancement]:
        """An asynchronous generator that yields an `Enhancement` at its end.

        Before it, where `task.stream` asks for it, it may yield the better prompt piece by piece,
        as strings. Closing it cancels the work. Raises `EnhancerFailed` saying what is wrong and
        what to do.
        """
        raise NotImplementedError
