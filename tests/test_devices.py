"""Tests of the built-in devices."""

from __future__ import annotations

import pytest
import torch

from imagine_core import Device
from imagine_core.engine import build_engine
from imagine_core.errors import SettingsError, UnknownName
from imagine_core.plugins import build_plugins
from imagine_core.settings import Settings
from imagine_plugins.devices.cpu import Cpu
from imagine_plugins.devices.cuda import Cuda
from imagine_plugins.devices.mps import Mps
from imagine_plugins.devices.rocm import Rocm

ACCELERATORS = [Cuda(), Rocm(), Mps()]


def test_auto_prefers_cuda_then_rocm_then_mps_then_cpu() -> None:
    devices = sorted(build_plugins().devices, key=lambda device: -device.priority)
    assert [device.name for device in devices] == ["cuda", "rocm", "mps", "cpu"]


@pytest.mark.parametrize(
    ("features", "dtype"),
    [
        ((), torch.float32),
        (("_is_avx512_bf16_supported",), torch.bfloat16),
        (("_is_amx_tile_supported",), torch.bfloat16),
    ],
)
def test_a_cpu_computes_in_bfloat16_where_it_can_and_never_in_float16(
    monkeypatch: pytest.MonkeyPatch, features: tuple[str, ...], dtype: torch.dtype
) -> None:
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda known=probe in features: known)
    assert Cpu().dtype() == dtype


def test_a_cpu_is_always_there_and_knows_its_memory() -> None:
    assert Cpu().unavailable() is None
    free = Cpu().free_memory()
    assert free is not None
    assert free > 2**20


@pytest.mark.parametrize("device", ACCELERATORS, ids=lambda device: device.name)
def test_an_accelerator_computes_in_float16(device: Device) -> None:
    assert device.dtype() == torch.float16


def test_metal_decodes_in_float32() -> None:
    assert Mps().vae_dtype(torch.float16) == torch.float32
    assert Cuda().vae_dtype(torch.float16) == torch.float16


def test_rocm_and_cuda_are_told_apart_by_the_build_of_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert Rocm().unavailable() is None
    assert "ROCm" in str(Cuda().unavailable())
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert Cuda().unavailable() is None
    assert "without ROCm" in str(Rocm().unavailable())


def test_both_are_cuda_to_torch() -> None:
    assert Cuda().torch_device() == Rocm().torch_device() == "cuda"


@pytest.mark.parametrize("device", ACCELERATORS, ids=lambda device: device.name)
def test_a_device_that_is_not_there_says_why(
    monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device.unavailable()


def test_auto_takes_the_cpu_where_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    engine = build_engine(Settings(), build_plugins())
    assert engine._choose_device().name == "cpu"


def test_a_device_that_nobody_registered_is_refused_with_the_nearest() -> None:
    engine = build_engine(Settings(device="cpuu"), build_plugins())
    with pytest.raises(UnknownName, match="'cpu'"):
        engine._choose_device()


def test_the_cpu_alone_is_not_enough_for_a_device_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: False)
    engine = build_engine(Settings(device="mps"), build_plugins())
    with pytest.raises(SettingsError, match="without Metal"):
        engine._choose_device()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA or AMD GPU")
def test_a_fence_waits_for_the_gpu() -> None:
    device = Cuda()
    total = torch.ones(4096, 4096, device="cuda") @ torch.ones(4096, 4096, device="cuda")
    device.fence()()
    assert float(total[0, 0]) == 4096.0
