"""Service: everything that an HTTP route or a command may use, in one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagine_core.engine import Engine
    from imagine_core.plugins import Plugins
    from imagine_core.settings import ServerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A server's parts, as plugins see them."""

    engine: Engine
    plugins: Plugins
    settings: ServerSettings
