"""check_enhancer finds each fault that it looks for, and none in an enhancer that is right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from imagine_core import Enhancement, Enhancer, EnhanceTask
from imagine_core.testing import BrokenRule, check_enhancer
from imagine_core.testing.enhancer_rules import RULES

Make = Callable[[EnhanceTask], Enhancement]


def shout(task: EnhanceTask) -> Enhancement:
    return Enhancement(prompt=task.prompt.upper(), negative_prompt="silence")


class Shouts(Enhancer):
    """The good one, or one that makes something else; other attributes are set as given."""

    name, label = "shouts", "Shouts"

    def __init__(self, make: Make = shout, **attributes: Any) -> None:
        self.make = make
        for name, value in attributes.items():
            setattr(self, name, value)

    async def enhance(self, task: EnhanceTask) -> AsyncIterator[str | Enhancement]:
        yield self.make(task)


class Streams(Shouts):
    async def enhance(self, task: EnhanceTask) -> AsyncIterator[str | Enhancement]:
        yield task.prompt
        yield Enhancement(prompt=task.prompt, negative_prompt="-")


class Stubborn(Shouts):
    """Does not let itself be cancelled."""

    async def enhance(self, task: EnhanceTask) -> AsyncIterator[str | Enhancement]:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            await asyncio.sleep(60)
        yield shout(task)


class Breaks(Shouts):
    """Takes being cancelled for a fault."""

    async def enhance(self, task: EnhanceTask) -> AsyncIterator[str | Enhancement]:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            raise ValueError from None
        yield shout(task)


def sleeps(task: EnhanceTask) -> Enhancement:
    time.sleep(2.5)
    return shout(task)


def forgets(task: EnhanceTask) -> Enhancement:
    return Enhancement(prompt=f"{time.perf_counter()}", negative_prompt="-")


def asleep(*_: object) -> str:
    return "asleep"


BROKEN: list[tuple[str, str, Enhancer]] = [
    ("enhancer-registered", "'Loud' is not in lower case", Shouts(name="Loud")),
    ("enhancer-registered", "its label is empty", Shouts(label="")),
    ("enhancer-availability", "unavailable: 'asleep'", Shouts(unavailable=asleep)),
    ("enhancer-prompts", "empty prompt", Shouts(lambda task: Enhancement(prompt=" "))),
    ("enhancer-prompts", "no negative prompt", Shouts(lambda task: Enhancement(prompt="a"))),
    ("enhancer-prompts", "is no asynchronous generator", Shouts(enhance=shout)),
    ("enhancer-streaming", "did not ask for it", Streams()),
    ("enhancer-seed", "does not repeat", Shouts(forgets)),
    ("enhancer-event-loop", "held up the event loop", Shouts(sleeps)),
    ("enhancer-cancelling", "goes on after it has been cancelled", Stubborn()),
    ("enhancer-cancelling", "being cancelled breaks it", Breaks()),
]


def test_a_right_enhancer_passes() -> None:
    check_enhancer(Shouts(), repeatable=True, patience=60)


@pytest.mark.parametrize(("rule", "words", "enhancer"), BROKEN)
def test_each_fault_is_found_and_named(rule: str, words: str, enhancer: Enhancer) -> None:
    with pytest.raises(BrokenRule) as caught:
        check_enhancer(enhancer, repeatable=True, prompts=("a fox",), patience=2)
    assert caught.value.rule == rule, caught.value
    assert words in str(caught.value)
    assert f"docs/conformance.md#{rule}" in str(caught.value)


def test_an_enhancer_of_chance_passes_where_nobody_wants_it_to_repeat() -> None:
    check_enhancer(Shouts(forgets), prompts=("a fox",), patience=60)


def test_every_rule_has_an_enhancer_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(dict(RULES))
