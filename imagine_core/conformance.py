"""What every plugin of a kind must do: checks for the tests of plugins.

    def test_my_enhancer_does_what_enhancers_do():
        check_enhancer(MyEnhancer())

They raise `AssertionError`, which says what is wrong.
"""

from __future__ import annotations

import asyncio
import time

from imagine_core.enhancing import enhance
from imagine_core.interfaces import Enhancement, Enhancer, EnhanceTask
from imagine_core.registry import Registry

PROMPTS = (
    "a fox",
    "ein Fuchs im Schnee, 狐狸 🦊",
    'a (red:1.3) fox says "no\\n", {braces} BREAK\nand a second line',
    "a very long walk, " * 200,
)
"""Prompts that plugins have stumbled over."""


def check_enhancer(
    enhancer: Enhancer,
    *,
    repeatable: bool = False,
    prompts: tuple[str, ...] = PROMPTS,
    patience: float = 1.0,
) -> None:
    """Check a prompt enhancer. Whatever service it asks must be there, if only a fake one.

    Args:
        enhancer: The enhancer.
        repeatable: Whether the same seed must give the same prompt.
        prompts: What it is given.
        patience: Seconds that it may hold up the event loop, and take to stop when cancelled.
    """
    Registry[Enhancer]("enhancer", Enhancer).register(enhancer, plugin="this test")
    assert enhancer.name == enhancer.name.strip().lower(), "its name is not in lower case"
    assert isinstance(enhancer.label, str), "it has no label"
    assert enhancer.label, "its label is empty"
    problem = enhancer.unavailable()
    assert problem is None, f"it says that it is unavailable: {problem!r}"
    asyncio.run(_check_prompts(enhancer, prompts, repeatable=repeatable))
    asyncio.run(_check_event_loop(enhancer, prompts[0], patience))
    for seconds in (0.0, 0.02):
        asyncio.run(_check_cancelling(enhancer, prompts[0], patience, after=seconds))


async def _check_prompts(enhancer: Enhancer, prompts: tuple[str, ...], *, repeatable: bool) -> None:
    """All prompts at once, with and without a negative prompt and streaming, then alone again."""
    tasks = [
        EnhanceTask(prompt=prompt, seed=2**64 - 1, negative=negative, stream=stream)
        for prompt in prompts
        for negative in (False, True)
        for stream in (False, True)
    ]
    together = await asyncio.gather(*(_run(enhancer, task) for task in tasks))
    alone = [await _run(enhancer, task) for task in tasks if repeatable]
    for task, first, second in zip(tasks, together, alone, strict=False):
        assert first == second, f"seed {task.seed} does not repeat what it made of {task.prompt!r}"


async def _run(enhancer: Enhancer, task: EnhanceTask) -> Enhancement:
    """What it makes of `task`; `enhance` itself checks that this makes sense."""
    *pieces, last = [event async for event in enhance(enhancer, task)]
    assert isinstance(last, Enhancement)
    assert task.stream or not pieces, "it streams to somebody who did not ask for it"
    return last


async def _check_cancelling(
    enhancer: Enhancer, prompt: str, patience: float, *, after: float
) -> None:
    task = EnhanceTask(prompt=prompt, seed=1, stream=True)
    work = asyncio.ensure_future(_run(enhancer, task))
    await asyncio.sleep(after)
    work.cancel()
    done, _ = await asyncio.wait({work}, timeout=patience)
    assert done, "it goes on after it has been cancelled"
    assert work.cancelled() or work.exception() is None, "being cancelled breaks it"


async def _check_event_loop(enhancer: Enhancer, prompt: str, patience: float) -> None:
    work = asyncio.ensure_future(_run(enhancer, EnhanceTask(prompt=prompt, seed=1)))
    longest = 0.0
    while not work.done():
        before = time.perf_counter()
        await asyncio.sleep(0.01)
        longest = max(longest, time.perf_counter() - before)
    await work
    assert longest < patience, f"it held up the event loop for {longest:.1f} s"
