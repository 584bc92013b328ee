"""Enhances a prompt for a command, and names the enhancer on stderr."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from imagine_core import Enhancement, Enhancer, EnhanceTask, GenerationRequest
from imagine_core.enhancing import choose_enhancer, enhanced
from imagine_core.kinds import draw_seed
from imagine_plugins.commands.shared.output import note
from imagine_plugins.commands.shared.source import in_flags

if TYPE_CHECKING:
    from imagine_core.plugins import Plugins


def pick(
    plugins: Plugins,
    name: str | None,
    *,
    model: str | None = None,
    address: str | None = None,
    quiet: bool = False,
) -> Enhancer:
    """The enhancer called `name`, else the best available one; prints which one and why."""
    with in_flags():
        choice = choose_enhancer(plugins.enhancers, name, model=model, address=address)
    if not quiet:
        why = "; ".join(choice.passed_over)
        note(f"enhancing with {choice.enhancer.name}" + (f" ({why})" if why else ""))
    return choice.enhancer


def run_enhancer(
    enhancer: Enhancer, task: EnhanceTask, show: Callable[[str], object] = str
) -> Enhancement:
    """The enhancement of `task`; `show` receives the prompt piece by piece."""
    import asyncio

    return asyncio.run(enhanced(enhancer, task, show))


def with_better_prompt(
    request: GenerationRequest, plugins: Plugins, name: str | None, *, quiet: bool
) -> GenerationRequest:
    """`request` with an enhanced prompt, and the seed of both; the negative prompt stays."""
    enhancer = pick(plugins, name, quiet=quiet)
    seed = draw_seed() if request.seed is None else request.seed
    made = run_enhancer(enhancer, EnhanceTask(prompt=request.prompt, seed=seed))
    if not quiet:
        note(f"prompt: {made.prompt}")
    return replace(request, prompt=made.prompt, original_prompt=request.prompt, seed=seed)
