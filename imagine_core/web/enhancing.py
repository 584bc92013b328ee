"""Enhances prompts for HTTP clients, at most as many at once as the queue may hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from imagine_core.enhancing import choose_enhancer, enhanced
from imagine_core.errors import Busy, EnhancerFailed, ShuttingDown
from imagine_core.interfaces import EnhanceTask

if TYPE_CHECKING:
    from imagine_core.engine.admission import Admitted
    from imagine_core.executor import Executor
    from imagine_core.interfaces import Enhancer
    from imagine_core.registry import Registry

__all__ = [
    "Enhancing",
]

log = logging.getLogger("imagine")


class Enhancing:
    """The enhancers of a server, and the number of requests that they work for.

    Args:
        enhancers: What plugins registered.
        engine: The engine whose limits hold for enhancers as well.
    """

    def __init__(self, enhancers: Registry[Enhancer], engine: Executor) -> None:
        self.enhancers = enhancers
        self._engine = engine
        self._busy = 0

    def require(self, name: str) -> None:
        """Raise `UnknownName` if no enhancer is called `name`; "" stands for any."""
        if name:
            self.enhancers.get(name)

    async def improve(self, admitted: Admitted, name: str) -> tuple[Admitted, str]:
        """`admitted` with a better prompt, and the enhancer that made it.

        The negative prompt stays the client's.

        Args:
            admitted: The request; its seed decides the enhancer's random choices.
            name: The enhancer, "" for the best that is available.

        Raises:
            EnhancerFailed, Busy, ShuttingDown: No prompt could be made.
        """
        asked = admitted.request
        with self.place():
            enhancer = await self.choose(name or None)
            made = await enhanced(enhancer, EnhanceTask(prompt=asked.prompt, seed=asked.seed or 0))
        longest = self._engine.settings.limits.prompt
        if len(made.prompt) > longest:
            problem = f"its prompt is longer than this server's {longest:,} characters"
            raise EnhancerFailed(enhancer.name, problem)
        log.info("%s made a prompt", enhancer.name)
        return admitted.with_prompt(made.prompt), enhancer.name

    async def choose(self, name: str | None, *, model: str | None = None) -> Enhancer:
        """The enhancer called `name`, or the best that is available."""
        choice = await asyncio.to_thread(choose_enhancer, self.enhancers, name, model=model)
        return choice.enhancer

    @contextmanager
    def place(self) -> Iterator[None]:
        """Count a request that an enhancer works for, within the limit."""
        if self._engine.stopping:
            raise ShuttingDown
        if self._busy >= self._engine.settings.limits.queue:
            raise Busy(f"{self._busy} prompts are being made better already; try again later")
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
