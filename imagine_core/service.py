"""Service: everything that an HTTP route or a command may use, in one object."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagine_core.executor import Executor
    from imagine_core.plugins import Plugins
    from imagine_core.settings import ServerSettings

__all__ = [
    "Service",
]


class Service:
    """A server's parts, as plugins see them.

    Attributes:
        engine: Makes the pictures.
        plugins: What is registered.
        settings: What the server is built with.
        jobs: The orders in progress or kept, of all dialects.
        enhancing: The enhancers, at most as many requests at once as may be queued.
    """

    def __init__(self, *, engine: Executor, plugins: Plugins, settings: ServerSettings) -> None:
        from imagine_core.web.enhancing import Enhancing
        from imagine_core.web.jobs import Jobs

        self.engine = engine
        self.plugins = plugins
        self.settings = settings
        self.jobs = Jobs(keep=settings.keep_results)
        self.enhancing = Enhancing(plugins.enhancers, engine)
