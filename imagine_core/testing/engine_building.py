"""Engines and applications over the fake model, and their results."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagine_core.engine import Engine, build_engine
from imagine_core.plugins import Plugins, build_plugins
from imagine_core.settings import ServerSettings, Settings
from imagine_core.testing.fakes import FakePlugin
from imagine_core.types import GenerationEvent, GenerationRequest, GenerationResult

if TYPE_CHECKING:
    from starlette.applications import Starlette


def build_test_plugins(
    fake: FakePlugin | None = None, *, extra: Sequence[tuple[str, object]] = ()
) -> Plugins:
    """The installed plugins and the fake one, which `--device auto` prefers."""
    return build_plugins(extra=[("fake", fake or FakePlugin()), *extra])


def build_test_engine(
    folder: Path,
    fake: FakePlugin | None = None,
    *,
    settings: Settings | None = None,
    extra: Sequence[tuple[str, object]] = (),
) -> Engine:
    """An engine over the models in `folder`; writes `tiny.fake` into it if it is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        (folder / "tiny.fake").write_bytes(b"fake")
    plugins = build_test_plugins(fake, extra=extra)
    return build_engine(settings or Settings(models=folder), plugins)


def build_test_app(
    folder: Path,
    fake: FakePlugin | None = None,
    *,
    settings: ServerSettings | None = None,
    extra: Sequence[tuple[str, object]] = (),
) -> Starlette:
    """The HTTP application over such an engine."""
    from imagine_core.service import Service
    from imagine_core.web.app import build_app

    engine = build_test_engine(folder, fake, extra=extra)
    settings = settings or ServerSettings(host="127.0.0.1")
    return build_app(Service(engine=engine, plugins=engine.plugins, settings=settings))


async def collect(engine: Engine, request: GenerationRequest) -> list[GenerationEvent]:
    """Every event of one request."""
    return [event async for event in engine.generate(request)]


def draw_one(engine: Engine, request: GenerationRequest) -> GenerationResult:
    """The result of one request."""
    result = asyncio.run(collect(engine, request))[-1]
    assert isinstance(result, GenerationResult)
    return result
