"""Engines over the fake model, and their results."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from imagine_core.engine import Engine, build_engine
from imagine_core.plugins import Plugins, build_plugins
from imagine_core.settings import Settings
from imagine_core.testing.fakes import FakePlugin
from imagine_core.types import GenerationEvent, GenerationRequest, GenerationResult


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


async def collect(engine: Engine, request: GenerationRequest) -> list[GenerationEvent]:
    """Every event of one request."""
    return [event async for event in engine.generate(request)]


def draw_one(engine: Engine, request: GenerationRequest) -> GenerationResult:
    """The result of one request."""
    result = asyncio.run(collect(engine, request))[-1]
    assert isinstance(result, GenerationResult)
    return result
