"""Fixtures shared by all tests."""

from __future__ import annotations

import inspect
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imagine_core import network
from imagine_core.engine import Engine
from imagine_core.settings.file import VARIABLE
from imagine_core.testing import FakePlugin, build_test_engine

# Threads of torch that wait for work would spin: an idle machine gains little by it, and one that
# is busy loses most of its time. Programs that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell starts background jobs with Ctrl-C ignored, and the programs that tests interrupt would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _nothing_but_this_machine() -> Iterator[None]:
    """Keep tests and the programs that they start offline."""
    resolve = socket.getaddrinfo

    def resolve_here(host: Any, *arguments: Any, **options: Any) -> Any:
        assert _is_here(host), f"a test looked up {host}"
        return resolve(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(network.VARIABLE, "1")
        patch.setenv(VARIABLE, os.devnull)  # not the developer's settings
        patch.setattr(socket, "getaddrinfo", resolve_here)
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, _only_here(getattr(socket.socket, name)))
        yield


def _only_here(method: Any) -> Any:
    def connect(sock: socket.socket, *arguments: Any) -> Any:
        address = arguments[-1]
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            assert _is_here(address[0]), f"a test went online: {address}"
        return method(sock, *arguments)

    return connect


def _is_here(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host or ""
    known = ("", "0.0.0.0", "::", socket.gethostname())  # noqa: S104 - names, not to bind to
    return name in known or network.is_loopback(name)


@pytest.fixture(scope="session", autouse=True)
def _patience() -> Iterator[None]:
    """Clients that say no time of their own wait as long as a busy machine may need."""
    import httpx

    default = inspect.signature(httpx.get).parameters["timeout"].default
    with pytest.MonkeyPatch.context() as patch:
        for phase in ("connect", "read", "write", "pool"):
            patch.setattr(default, phase, 60.0)
        yield


@pytest.fixture
def fake() -> FakePlugin:
    """The plugin behind `engine`: its loader, and through it every model that was loaded."""
    return FakePlugin()


@pytest.fixture
def engine(tmp_path: Path, fake: FakePlugin) -> Iterator[Engine]:
    """An engine with one fake model, closed after the test."""
    engine = build_test_engine(tmp_path / "models", fake)
    yield engine
    engine.close(grace=0)
