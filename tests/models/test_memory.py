"""Tests of imagine_core.models.memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagine_core.interfaces import ModelInfo
from imagine_core.models.memory import Memory, Workspace, out_of_memory, weight_bytes
from imagine_plugins.devices.cpu import Cpu

A, B = Path("a"), Path("b")


def info(**known: int) -> ModelInfo:
    return ModelInfo(
        **{"name": "a", "path": A, "loader": "", "family": "", "size": 1000, **known}  # type: ignore[arg-type]
    )


def test_weights_are_counted_in_the_precision_that_they_will_have() -> None:
    assert weight_bytes(info(parameters=1000), 2) == pytest.approx(2000, rel=0.2)
    assert weight_bytes(info(parameters=1000), 4) == 2 * weight_bytes(info(parameters=1000), 2)


def test_without_a_count_the_file_stands_for_the_weights() -> None:
    assert weight_bytes(info(), 2) == weight_bytes(info(), 4) == 1500


def test_what_was_measured_replaces_the_bound() -> None:
    workspace = Workspace()
    bound = workspace.expect((A, 512, 512), 2)
    assert bound > 10**8
    workspace.record((A, 512, 512), 3000)
    workspace.record((A, 512, 512), 2000)
    workspace.record((A, 512, 512), None)
    assert workspace.expect((A, 512, 512), 2) == 3000
    assert workspace.expect((B, 512, 512), 2) == bound


def test_larger_pictures_are_expected_to_take_more_and_smaller_ones_no_less() -> None:
    workspace = Workspace()
    workspace.record((A, 512, 512), 3000)
    assert workspace.expect((A, 1024, 512), 2) == 6000
    assert workspace.expect((A, 256, 256), 2) == 3000


def test_a_device_that_cannot_tell_has_room_for_everything() -> None:
    assert Memory().has(10**18)
    assert not Memory(free=lambda: 99).has(100)
    assert Memory(free=lambda: 100).has(100)


def test_out_of_memory_is_known_in_all_its_shapes() -> None:
    import torch

    for error in (MemoryError(), torch.OutOfMemoryError(), RuntimeError("can't allocate memory:")):
        assert out_of_memory(error)
    assert not out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="not Linux")
def test_the_processor_measures_the_peak_of_what_was_taken() -> None:
    import torch

    taken = Cpu().watch_memory()
    tensor = torch.ones(50_000_000)
    del tensor
    peak = taken()
    assert peak is not None
    assert 180 * 10**6 < peak < 400 * 10**6
    again = Cpu().watch_memory()()
    assert again is not None
    assert again < 50 * 10**6
