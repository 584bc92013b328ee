"""Gives all tests of loaders no network, and only their own caches."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NoReturn

import pytest

from imagine_core.models import hashing


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a loader went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def _own_hash_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "cache_file", lambda: tmp_path / "cache" / "hashes.json")
