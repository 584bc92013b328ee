"""Tests of imagine_core.models."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from imagine_core.interfaces import ModelInfo
from imagine_core.models import ModelCache
from imagine_core.testing import FakeClock, FakeModel


def info(folder: Path, name: str, *, size: int = 100) -> ModelInfo:
    path = folder / f"{name}.fake"
    path.write_bytes(b"x")
    return ModelInfo(name=name, path=path, loader="fake", family="fake", size=size)


class Loads:
    """Loads fake models and remembers them."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.models: dict[str, list[FakeModel]] = {}
        self.seconds = seconds

    def __call__(self, info: ModelInfo) -> FakeModel:
        time.sleep(self.seconds)
        model = FakeModel()
        self.models.setdefault(info.name, []).append(model)
        return model


def test_idle_model_is_unloaded_after_keep_alive(tmp_path: Path) -> None:
    clock, loads = FakeClock(), Loads()
    cache = ModelCache(loads, keep_alive=300, clock=clock)
    with cache.lease(info(tmp_path, "a")):
        clock.advance(1000)
        cache.sweep()
        assert [row.name for row in cache.loaded()] == ["a"]
    clock.advance(299)
    cache.sweep()
    assert [row.idle_seconds for row in cache.loaded()] == [299]
    clock.advance(1)
    cache.sweep()
    assert cache.loaded() == []
    assert loads.models["a"][0].closed


def test_keep_alive_of_zero_unloads_with_the_last_lease(tmp_path: Path) -> None:
    cache = ModelCache(Loads(), keep_alive=0)
    a = info(tmp_path, "a")
    with cache.lease(a), cache.lease(a):
        pass
    assert cache.loaded() == []


def test_keep_alive_of_minus_one_never_unloads(tmp_path: Path) -> None:
    clock = FakeClock()
    cache = ModelCache(Loads(), keep_alive=-1, clock=clock)
    with cache.lease(info(tmp_path, "a")):
        pass
    clock.advance(10**9)
    cache.sweep()
    assert len(cache.loaded()) == 1


def test_concurrent_leases_of_a_cold_model_load_it_once(tmp_path: Path) -> None:
    loads = Loads(seconds=0.05)
    cache = ModelCache(loads, keep_alive=-1)
    a, seen = info(tmp_path, "a"), []

    def use() -> None:
        with cache.lease(a) as model:
            seen.append(model)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads.models["a"]) == 1
    assert len(set(map(id, seen))) == 1


def test_the_model_idle_longest_makes_room_and_one_in_use_never_does(tmp_path: Path) -> None:
    clock, loads = FakeClock(), Loads()
    room = 1000

    def free() -> int:
        return room - sum(row.size for row in cache.loaded())

    cache = ModelCache(loads, keep_alive=-1, free_memory=free, clock=clock)
    with cache.lease(info(tmp_path, "used", size=400)):
        for name in ("old", "new"):
            clock.advance(1)
            with cache.lease(info(tmp_path, name, size=200)):
                pass
        with cache.lease(info(tmp_path, "next", size=200)):
            assert [row.name for row in cache.loaded()] == ["new", "next", "used"]


def test_a_file_that_changed_is_loaded_anew_while_old_leases_go_on(tmp_path: Path) -> None:
    loads = Loads()
    cache = ModelCache(loads, keep_alive=-1)
    a = info(tmp_path, "a")
    with cache.lease(a) as old:
        a.path.write_bytes(b"another file")
        os.utime(a.path, ns=(1, 1))
        with cache.lease(a) as new:
            assert new is not old
            assert [model.closed for model in loads.models["a"]] == [False, False]
    assert [model.closed for model in loads.models["a"]] == [True, False]
    assert len(cache.loaded()) == 1


def test_a_file_that_was_removed_still_serves_from_memory(tmp_path: Path) -> None:
    cache = ModelCache(Loads(), keep_alive=-1)
    a = info(tmp_path, "a")
    with cache.lease(a) as before:
        pass
    a.path.unlink()
    with cache.lease(a) as after:
        assert after is before


def test_a_load_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(info: ModelInfo) -> FakeModel:
        raise OSError("unreadable")

    cache = ModelCache(fail, keep_alive=-1)
    with pytest.raises(OSError, match="unreadable"), cache.lease(info(tmp_path, "a")):
        pass
    assert cache.loaded() == []


def test_unload_spares_a_model_in_use(tmp_path: Path) -> None:
    cache = ModelCache(Loads(), keep_alive=-1)
    with cache.lease(info(tmp_path, "a")):
        assert not cache.unload("a")
    assert cache.unload("a")
    assert not cache.unload("a")


def test_a_lease_of_a_loaded_model_does_not_wait_for_another_to_load(tmp_path: Path) -> None:
    loads = Loads()
    cache = ModelCache(loads, keep_alive=-1)
    warm, cold = info(tmp_path, "warm"), info(tmp_path, "cold")
    with cache.lease(warm):
        pass
    loads.seconds = 0.5
    loading = threading.Thread(target=lambda: cache.lease(cold).__enter__())
    loading.start()
    started = time.monotonic()
    with cache.lease(warm):
        assert time.monotonic() - started < 0.3
    loading.join()
