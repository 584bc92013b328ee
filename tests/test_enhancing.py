"""Choosing and running enhancers, third-party ones at their worst."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from imagine_core import Enhancement, Enhancer, EnhanceTask, hookimpl
from imagine_core.enhancing import MOST_MORE, choose_enhancer, enhance, enhanced
from imagine_core.errors import EnhancerFailed, RequestError, UnknownName
from imagine_core.plugins import Plugins, build_plugins

TASK = EnhanceTask(prompt="a fox", seed=1)


class Yields(Enhancer):
    """Yields what it was built with; exceptions it raises, functions it calls."""

    label = "Yields"

    def __init__(self, *events: Any, name: str = "yields", problem: str | None = None) -> None:
        self.name = name
        self.events = events
        self.problem = problem
        self.closed = False

    def unavailable(self, address: str | None = None) -> str | None:
        return self.problem

    async def enhance(self, task: EnhanceTask) -> AsyncIterator[str | Enhancement]:
        try:
            for event in self.events:
                await asyncio.sleep(0)
                if isinstance(event, Exception):
                    raise event
                yield event(task) if callable(event) else event
        finally:
            self.closed = True


class Shouts(Enhancer):
    """The shortest enhancer there is."""

    name, label = "shouts", "Shouts"

    async def enhance(self, task: EnhanceTask) -> AsyncIterator[str | Enhancement]:
        yield Enhancement(prompt=task.prompt.upper(), negative_prompt="silence")


class Brings:
    """A plugin that registers `enhancers`."""

    def __init__(self, *enhancers: object) -> None:
        self.enhancers = enhancers

    @hookimpl
    def register_enhancers(self, register: Callable[[object], None]) -> None:
        for enhancer in self.enhancers:
            register(enhancer)


def plugins_with(*enhancers: object) -> Plugins:
    return build_plugins(found=[], extra=[("brings", Brings(*enhancers))])


def failure(enhancer: Enhancer, task: EnhanceTask = TASK) -> str:
    with pytest.raises(EnhancerFailed) as caught:
        asyncio.run(enhanced(enhancer, task))
    assert caught.value.name == enhancer.name
    return caught.value.problem


# ------------------------------------------------------------------------------------------ hook


def test_hook_register_enhancers() -> None:
    plugins = plugins_with(Shouts())
    assert plugins.enhancers.names() == ["shouts"]
    assert plugins.enhancers.plugin_of("SHOUTS") == "brings"


def test_what_is_no_enhancer_is_blamed_on_its_plugin() -> None:
    (report,) = plugins_with("nonsense").reports()
    assert "must be a Enhancer" in str(report.problem)


def test_the_built_in_enhancers_are_ollama_and_table() -> None:
    assert sorted(build_plugins().enhancers.names()) == ["ollama", "table"]


# ---------------------------------------------------------------------------------------- choosing


def ranked(name: str, priority: int, problem: str | None = None, *, model: bool = False) -> Yields:
    enhancer = Yields(name=name, problem=problem)
    enhancer.priority, enhancer.language_model = priority, model
    return enhancer


def test_the_available_one_with_the_highest_priority_is_chosen() -> None:
    known = plugins_with(ranked("low", 1), ranked("high", 9, "asleep"), ranked("middle", 5))
    choice = choose_enhancer(known.enhancers)
    assert (choice.enhancer.name, choice.passed_over) == ("middle", ("asleep",))


def test_a_named_one_is_chosen_whatever_it_says_of_itself() -> None:
    known = plugins_with(ranked("low", 1), ranked("high", 9, "asleep"))
    assert choose_enhancer(known.enhancers, "HIGH").enhancer.name == "high"


def test_an_unknown_one_is_an_error_with_the_nearest_names() -> None:
    with pytest.raises(UnknownName, match="did you mean 'shouts'"):
        choose_enhancer(plugins_with(Shouts()).enhancers, "shout")


@pytest.mark.parametrize("wish", [{"model": "m"}, {"address": "somewhere"}])
def test_a_model_or_an_address_asks_for_an_enhancer_with_a_use_for_it(wish: Any) -> None:
    known = plugins_with(ranked("plain", 9), ranked("clever", 1, model=True)).enhancers
    assert choose_enhancer(known, **wish).enhancer.name == "clever"
    with pytest.raises(RequestError) as caught:
        choose_enhancer(known, "plain", **wish)
    assert [error.field for error in caught.value.fields] == list(wish)


def test_none_that_is_available_is_an_error_with_every_reason() -> None:
    known = plugins_with(ranked("a", 2, "it is asleep"), ranked("b", 1, "it is away"))
    with pytest.raises(EnhancerFailed, match="it is asleep; it is away"):
        choose_enhancer(known.enhancers)


def test_none_at_all_is_an_error() -> None:
    with pytest.raises(EnhancerFailed, match="no plugin brings one"):
        choose_enhancer(plugins_with().enhancers)


def test_one_that_raises_when_asked_is_unavailable() -> None:
    class Rude(Yields):
        def unavailable(self, address: str | None = None) -> str | None:
            raise ZeroDivisionError("oh")

    rude = Rude(name="rude")
    rude.priority = 5
    choice = choose_enhancer(plugins_with(rude, Shouts()).enhancers)
    assert choice.enhancer.name == "shouts"
    assert choice.passed_over == ("it raised ZeroDivisionError: oh",)


# ----------------------------------------------------------------------------------------- running


def test_the_prompt_comes_in_pieces_and_then_whole() -> None:
    async def watch() -> list[str | Enhancement]:
        enhancer = Yields("a ", "fox", Enhancement(prompt="a fox"), "too late")
        return [event async for event in enhance(enhancer, TASK)]

    assert asyncio.run(watch()) == ["a ", "fox", Enhancement(prompt="a fox")]


def test_a_negative_prompt_that_nobody_asked_for_is_dropped() -> None:
    assert asyncio.run(enhanced(Shouts(), TASK)) == Enhancement(prompt="A FOX")


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([], "ended without a prompt"),
        (["a"], "ended without a prompt"),
        ([Enhancement(prompt="  ")], "empty prompt"),
        ([Enhancement(prompt=None)], "made no prompt, but None"),  # type: ignore[arg-type]
        ([Enhancement(prompt="\ud83e")], "made no prompt"),
        ([Enhancement(prompt="x" * (MOST_MORE + 6))], "made no prompt"),
        (["x" * (MOST_MORE + 5), "y"], "does not come to an end"),
        (["a cat", Enhancement(prompt="a fox")], "not what it had yielded"),
        ([5], "it yielded 5"),
        ([ZeroDivisionError("oh")], "it raised ZeroDivisionError: oh"),
        ([TimeoutError()], "it raised TimeoutError"),
        (["a", EnhancerFailed("yields", "no luck")], "no luck"),
    ],
)
def test_nonsense_is_an_error_that_names_the_enhancer(events: list[Any], complaint: str) -> None:
    enhancer = Yields(*events)
    assert complaint in failure(enhancer)
    assert enhancer.closed


def test_a_missing_negative_prompt_is_an_error() -> None:
    task = EnhanceTask(prompt="a fox", seed=1, negative=True)
    assert "no negative prompt" in failure(Yields(Enhancement(prompt="a fox")), task)


def test_an_enhancer_that_is_no_generator_is_an_error() -> None:
    class Returns(Yields):
        async def enhance(self, task: EnhanceTask) -> Any:  # type: ignore[override]
            return Enhancement(prompt="a fox")

    class Plain(Yields):
        def enhance(self, task: EnhanceTask) -> Any:
            return "a fox"

    assert "no asynchronous generator" in failure(Returns())
    assert "no asynchronous generator" in failure(Plain())


def test_closing_closes_the_enhancer() -> None:
    enhancer = Yields("a", "b", Enhancement(prompt="ab"))

    async def leave() -> None:
        events = enhance(enhancer, TASK)
        assert await anext(events) == "a"
        await events.aclose()

    asyncio.run(leave())
    assert enhancer.closed
