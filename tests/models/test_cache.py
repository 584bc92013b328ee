"""Tests of imagine_core.models."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagine_core.errors import OutOfMemory, UnusableModel
from imagine_core.interfaces import ModelInfo
from imagine_core.models.cache import ModelCache
from imagine_core.models.memory import Memory
from imagine_core.testing import FakeClock, FakeModel


def info(folder: Path, name: str, *, size: int = 100) -> ModelInfo:
    path = folder / f"{name}.fake"
    path.write_bytes(b"x")
    return ModelInfo(name=name, path=path, loader="fake", family="fake", size=size)


class Loads:
    """Loads fake models and remembers them."""

    def __init__(self) -> None:
        self.models: dict[str, list[FakeModel]] = {}
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, info: ModelInfo) -> FakeModel:
        self.begun.set()
        assert self.may_end.wait(60)
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
    loads = Loads()
    loads.may_end.clear()
    cache = ModelCache(loads, keep_alive=-1)
    a, seen = info(tmp_path, "a"), []

    def use() -> None:
        with cache.lease(a) as model:
            seen.append(model)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert loads.begun.wait(60)
    loads.may_end.set()
    for thread in threads:
        thread.join()
    assert len(loads.models["a"]) == 1
    assert len(set(map(id, seen))) == 1


def test_the_model_idle_longest_makes_room_and_one_in_use_never_does(tmp_path: Path) -> None:
    clock, loads = FakeClock(), Loads()
    room = 1000

    def free() -> int:
        return room - sum(row.size for row in cache.loaded())

    cache = ModelCache(loads, keep_alive=-1, memory=Memory(free=free), clock=clock)
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


def test_a_file_that_is_replaced_while_it_is_loaded_is_loaded_again(tmp_path: Path) -> None:
    a = info(tmp_path, "a")
    made: list[FakeModel] = []

    def load(info: ModelInfo) -> FakeModel:
        made.append(FakeModel())
        if len(made) == 1:
            info.path.write_bytes(b"another file")
        return made[-1]

    with ModelCache(load, keep_alive=-1).lease(a) as model:
        assert model is made[1]
    assert [each.closed for each in made] == [True, False]


def test_a_load_that_fails_since_its_file_was_replaced_is_tried_again(tmp_path: Path) -> None:
    a = info(tmp_path, "a")

    def load(info: ModelInfo) -> FakeModel:
        if info.path.read_bytes() == b"x":
            info.path.write_bytes(b"another file")
            raise UnusableModel(info.name, "half of it is missing")
        return FakeModel()

    with ModelCache(load, keep_alive=-1).lease(a):
        pass


def test_a_file_that_is_being_written_is_no_model_yet(tmp_path: Path) -> None:
    made: list[FakeModel] = []

    def load(info: ModelInfo) -> FakeModel:
        info.path.write_bytes(info.path.read_bytes() + b"x")
        made.append(FakeModel())
        return made[-1]

    cache = ModelCache(load, keep_alive=-1)
    with pytest.raises(UnusableModel, match="its file is being written"):
        cache.lease(info(tmp_path, "a")).__enter__()
    assert [each.closed for each in made] == [True, True]
    assert cache.loaded() == []


def test_a_file_that_was_removed_still_serves_from_memory(tmp_path: Path) -> None:
    cache = ModelCache(Loads(), keep_alive=-1)
    a = info(tmp_path, "a")
    with cache.lease(a) as before:
        pass
    a.path.unlink()
    with cache.lease(a) as after:
        assert after is before


def test_a_file_that_is_removed_before_it_is_loaded_makes_its_model_unusable(
    tmp_path: Path,
) -> None:
    def vanish(info: ModelInfo) -> FakeModel:
        info.path.unlink()
        raise FileNotFoundError(info.path)

    cache = ModelCache(vanish, keep_alive=-1)
    a = info(tmp_path, "a")
    for _ in range(2):  # while it is loaded, and before
        with pytest.raises(UnusableModel, match="'a' cannot be used: its file was removed"):
            cache.lease(a).__enter__()


def test_another_file_that_a_loader_misses_is_its_own_fault(tmp_path: Path) -> None:
    def miss(info: ModelInfo) -> FakeModel:
        raise FileNotFoundError("vocabulary.json")

    with pytest.raises(FileNotFoundError, match="vocabulary"):
        ModelCache(miss, keep_alive=-1).lease(info(tmp_path, "a")).__enter__()


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
        assert cache.unload("a") == "when idle"
        assert [row.name for row in cache.loaded()] == ["a"]
    assert cache.loaded() == []
    assert cache.unload("a") == "not loaded"


def test_unload_of_a_model_that_loads_lets_it_go_after_its_first_use(tmp_path: Path) -> None:
    said: list[str] = []

    def load(info: ModelInfo) -> FakeModel:
        said.append(cache.unload(info.name.upper()))
        return FakeModel()

    cache = ModelCache(load, keep_alive=-1)
    a = info(tmp_path, "a")
    with cache.lease(a):
        assert [row.name for row in cache.loaded()] == ["a"]
    assert (said, cache.loaded(), cache.unload("a")) == (["when idle"], [], "not loaded")


def test_unload_lets_an_idle_model_go_at_once(tmp_path: Path) -> None:
    loads = Loads()
    cache = ModelCache(loads, keep_alive=-1)
    with cache.lease(info(tmp_path, "a")):
        pass
    assert cache.unload("A") == "unloaded"
    assert loads.models["a"][0].closed


def test_a_lease_of_a_loaded_model_does_not_wait_for_another_to_load(tmp_path: Path) -> None:
    loads = Loads()
    cache = ModelCache(loads, keep_alive=-1)
    warm, cold = info(tmp_path, "warm"), info(tmp_path, "cold")
    with cache.lease(warm):
        pass
    loads.begun.clear()
    loads.may_end.clear()
    loading = threading.Thread(target=lambda: cache.lease(cold).__enter__())
    loading.start()
    assert loads.begun.wait(60)
    with cache.lease(warm):
        assert loading.is_alive()
    loads.may_end.set()
    loading.join()
    assert [row.name for row in cache.loaded()] == ["cold", "warm"]


# -- memory ----------------------------------------------------------------------------------


class Room:
    """A device with so many bytes, of which each loaded model takes what its file has.

    `kept` of them are held by the allocator until they are asked back.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept = 0
        self.returned = 0
        self.cache: ModelCache | None = None

    def free(self) -> int:
        if self.cache is None:
            return 0
        return self.size - self.kept - sum(row.size for row in self.cache.loaded())

    def give_back(self) -> None:
        self.kept = 0
        self.returned += 1

    def build(self, loads: Callable[[ModelInfo], FakeModel], **options: Any) -> ModelCache:
        memory = Memory(free=self.free, weigh=lambda info: info.size, give_back=self.give_back)
        self.cache = ModelCache(loads, keep_alive=-1, memory=memory, **options)
        return self.cache


def names(cache: ModelCache) -> list[str]:
    return [row.name for row in cache.loaded()]


def test_what_is_in_use_stays_and_what_needs_its_room_waits(tmp_path: Path) -> None:
    cache = Room(1000).build(Loads())
    a, b = info(tmp_path, "a", size=700), info(tmp_path, "b", size=600)
    with cache.lease(a):
        assert not cache.make_room(b)
        assert names(cache) == ["a"]
    assert cache.make_room(b)
    assert names(cache) == []


def test_only_as_many_leave_as_must(tmp_path: Path) -> None:
    clock = FakeClock()
    cache = Room(1000).build(Loads(), clock=clock)
    for name in ("a", "b", "c"):
        clock.advance(1)
        with cache.lease(info(tmp_path, name, size=300)):
            pass
    assert cache.make_room(info(tmp_path, "d", size=300), work=50)
    assert names(cache) == ["b", "c"]


def test_pictures_of_a_loaded_model_make_room_as_well(tmp_path: Path) -> None:
    cache = Room(1000).build(Loads())
    a, b = info(tmp_path, "a", size=400), info(tmp_path, "b", size=400)
    for each in (a, b):
        with cache.lease(each):
            pass
    assert cache.make_room(b, work=200)
    assert names(cache) == ["a", "b"]
    assert cache.make_room(b, work=300)
    assert names(cache) == ["b"]
    assert cache.make_room(b, work=5000)  # a guess, and there is nobody left to go
    assert names(cache) == ["b"]


def test_a_model_that_can_never_fit_is_refused_and_drives_nobody_out(tmp_path: Path) -> None:
    room = Room(1000)
    cache = room.build(Loads())
    with cache.lease(info(tmp_path, "a", size=400)):
        pass
    with pytest.raises(OutOfMemory, match=r"'huge' needs about .* take a smaller model"):
        cache.make_room(info(tmp_path, "huge", size=1001))
    assert names(cache) == ["a"]
    assert room.returned == 1  # what the allocator kept might have been enough


def test_a_load_that_runs_out_of_memory_is_tried_again_without_the_idle(tmp_path: Path) -> None:
    tries = []

    def load(info: ModelInfo) -> FakeModel:
        tries.append(info.name)
        if tries == ["a", "b"]:
            raise MemoryError
        return FakeModel()

    cache = ModelCache(load, keep_alive=-1)
    for name in ("a", "b"):
        with cache.lease(info(tmp_path, name)):
            pass
    assert tries == ["a", "b", "b"]
    assert names(cache) == ["b"]


def test_a_load_that_runs_out_of_memory_by_itself_fails(tmp_path: Path) -> None:
    def load(info: ModelInfo) -> FakeModel:
        raise MemoryError

    with pytest.raises(MemoryError), ModelCache(load, keep_alive=-1).lease(info(tmp_path, "a")):
        pass


def test_memory_goes_back_to_the_system_with_every_model_that_leaves(tmp_path: Path) -> None:
    room = Room(1000)
    cache = room.build(Loads())
    for name in ("a", "b", "c"):
        with cache.lease(info(tmp_path, name, size=400)):
            pass
    before = room.returned
    assert cache.unload("c") == "unloaded"
    assert room.returned == before + 1


def test_what_the_allocator_keeps_goes_back_before_a_model_has_to_leave(tmp_path: Path) -> None:
    room = Room(1000)
    cache = room.build(Loads())
    with cache.lease(info(tmp_path, "a", size=400)):
        pass
    room.kept = 300
    assert cache.make_room(info(tmp_path, "b", size=400))
    assert names(cache) == ["a"]


def test_a_row_says_how_long_a_model_stays(tmp_path: Path) -> None:
    clock = FakeClock()
    cache = ModelCache(Loads(), keep_alive=300, clock=clock)
    with cache.lease(info(tmp_path, "a", size=100)):
        assert [(row.in_use, row.expires_in) for row in cache.loaded()] == [(1, None)]
    clock.advance(100)
    assert [(row.in_use, row.expires_in) for row in cache.loaded()] == [(0, 200)]
    assert [row.memory for row in cache.loaded()] == [150]
