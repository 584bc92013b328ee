"""The rules of prompt enhancers, each with the check that raises if it is broken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from imagine_core.enhancing import enhance
from imagine_core.interfaces import Enhancement, Enhancer, EnhanceTask
from imagine_core.registry import Registry


@dataclass
class Enhanced:
    """An enhancer under test; the attributes are the arguments of `check_enhancer`."""

    enhancer: Enhancer
    repeatable: bool
    prompts: tuple[str, ...]
    patience: float

    @property
    def tasks(self) -> list[EnhanceTask]:
        """Each prompt, with and without a negative prompt and streaming."""
        return [
            EnhanceTask(prompt=prompt, seed=2**64 - 1, negative=negative, stream=stream)
            for prompt in self.prompts
            for negative in (False, True)
            for stream in (False, True)
        ]

    async def run(self, task: EnhanceTask) -> Made:
        """What it makes of `task`; `enhance` itself checks that this makes sense."""
        *pieces, last = [event async for event in enhance(self.enhancer, task)]
        assert isinstance(last, Enhancement)
        return Made(len(pieces), last)

    @cached_property
    def together(self) -> list[Made]:
        """What it makes of all tasks at once."""

        async def run() -> list[Made]:
            return await asyncio.gather(*(self.run(task) for task in self.tasks))

        return asyncio.run(run())


class Made(NamedTuple):
    """What an enhancer made, and in how many pieces before."""

    pieces: int
    enhancement: Enhancement


def registered(enhanced: Enhanced) -> None:
    """It can be registered, has a name in lower case and a label."""
    enhancer = enhanced.enhancer
    Registry[Enhancer]("enhancer", Enhancer).register(enhancer, plugin="this test")
    name = enhancer.name
    assert name == " ".join(name.lower().split()), f"its name {name!r} is not in lower case"
    assert isinstance(enhancer.label, str), "it has no label"
    assert enhancer.label, "its label is empty"


def availability(enhanced: Enhanced) -> None:
    """It is available, since the test has seen to that."""
    problem = enhanced.enhancer.unavailable()
    assert problem is None, f"it says that it is unavailable: {problem!r}"


def prompts(enhanced: Enhanced) -> None:
    """It makes a prompt of any prompt, and a negative one if that is asked for; many at once."""
    assert len(enhanced.together) == len(enhanced.tasks)


def streaming(enhanced: Enhanced) -> None:
    """It yields the prompt piece by piece only if the task asks for that."""
    for task, made in zip(enhanced.tasks, enhanced.together, strict=True):
        assert task.stream or not made.pieces, "it streams to somebody who did not ask for it"


def seed(enhanced: Enhanced) -> None:
    """Alone again, it makes of each prompt what it made in company, if it is repeatable."""

    async def again() -> list[Made]:
        return [await enhanced.run(task) for task in enhanced.tasks]

    if enhanced.repeatable:
        both = zip(enhanced.together, asyncio.run(again()), strict=True)
        for task, (first, second) in zip(enhanced.tasks, both, strict=True):
            said = f"seed {task.seed} does not repeat what it made of {task.prompt!r:.60}"
            assert first.enhancement == second.enhancement, said


def event_loop(enhanced: Enhanced) -> None:
    """It does not hold up the event loop, on which everybody else is served."""

    async def watch() -> float:
        task = EnhanceTask(prompt=enhanced.prompts[0], seed=1)
        work = asyncio.ensure_future(enhanced.run(task))
        longest = 0.0
        while not work.done():
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            longest = max(longest, time.perf_counter() - before)
        await work
        return longest

    longest = asyncio.run(watch())
    assert longest < enhanced.patience, f"it held up the event loop for {longest:.1f} s"


def cancelling(enhanced: Enhanced) -> None:
    """It ends when it is cancelled, at once and without a fault."""

    async def cancel(seconds: float) -> None:
        task = EnhanceTask(prompt=enhanced.prompts[0], seed=1, stream=True)
        work = asyncio.ensure_future(enhanced.run(task))
        await asyncio.sleep(seconds)
        work.cancel()
        done, _ = await asyncio.wait({work}, timeout=enhanced.patience)
        assert done, "it goes on after it has been cancelled"
        assert work.cancelled() or work.exception() is None, "being cancelled breaks it"

    for seconds in (0.0, 0.02):
        asyncio.run(cancel(seconds))


RULES: tuple[tuple[str, Callable[[Enhanced], None]], ...] = (
    ("enhancer-registered", registered),
    ("enhancer-availability", availability),
    ("enhancer-prompts", prompts),
    ("enhancer-streaming", streaming),
    ("enhancer-seed", seed),
    ("enhancer-event-loop", event_loop),
    ("enhancer-cancelling", cancelling),
)
