"""Tests of imagine_core.models.memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from imagine_core.interfaces import ModelInfo
from imagine_core.models.memory import Memory, Work, Workspace, out_of_memory, weight_bytes
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
    bound = workspace.expect(Work(A, 512, 512), 2)
    assert bound > 10**8
    workspace.record(Work(A, 512, 512), "denoising", 2, 3000)
    workspace.record(Work(A, 512, 512), "decoding", 1, 2000)
    workspace.record(Work(A, 512, 512), "encoding", 1, None)
    assert workspace.expect(Work(A, 512, 512), 2) == 3000
    assert workspace.expect(Work(B, 512, 512), 2) == bound


def test_only_more_rows_than_before_are_measured_again() -> None:
    workspace = Workspace()
    assert workspace.is_new(Work(A, 512, 512), "denoising", 2)
    workspace.record(Work(A, 512, 512), "denoising", 2, 3000)
    assert not workspace.is_new(Work(A, 512, 512), "denoising", 2)
    assert workspace.is_new(Work(A, 512, 512), "denoising", 3)
    assert workspace.is_new(Work(A, 512, 512), "decoding", 1)
    assert workspace.is_new(Work(A, 512, 256), "denoising", 2)


def test_larger_pictures_are_expected_to_take_more_and_smaller_ones_no_less() -> None:
    workspace = Workspace()
    workspace.record(Work(A, 512, 512), "denoising", 2, 3000)
    assert workspace.expect(Work(A, 1024, 512), 2) == 6000
    assert workspace.expect(Work(A, 256, 256), 2) == 3000


def test_what_should_fit_has_the_same_shape_and_the_memory_that_is_free() -> None:
    workspace = Workspace()
    workspace.record(Work(A, 1024, 512), "decoding", 1, 8000)
    assert workspace.smaller(Work(A, 1024, 512), 2, free=4100) == (704, 320)
    assert workspace.smaller(Work(A, 2048, 1024), 2, free=2000) == (512, 256)
    assert workspace.smaller(Work(A, 64, 64), 2, free=2000) is None


@pytest.mark.parametrize("free", [None, 9000])
def test_what_did_not_fit_though_it_seemed_to_is_halved(free: int | None) -> None:
    workspace = Workspace()
    workspace.record(Work(A, 1024, 1024), "decoding", 1, 8000)
    assert workspace.smaller(Work(A, 1024, 1024), 2, free=free) == (704, 704)


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


FAULTS = """
import resource, sys
import torch
from imagine_core.models.memory import Work, keep_freed, trim

def faults():
    for number in range(20):
        if number == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(12_000_000)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

default = faults()
keep_freed()
kept = faults()
before = resident()
trim()
print(default, kept, before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")
def test_freed_memory_is_kept_without_page_faults_until_it_is_given_back() -> None:
    output = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    default, kept, returned = map(float, output.split())
    assert default > 100  # what is mended here
    assert kept < default / 10
    assert returned > 40_000_000
