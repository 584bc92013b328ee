"""AMD GPUs through ROCm."""

from __future__ import annotations

from collections.abc import Callable

from imagine_core import Device, hookimpl
from imagine_plugins.devices.cuda import Cuda


class Rocm(Cuda):
    """An AMD GPU. Only `torch.version.hip` tells a ROCm build of torch from a CUDA one."""

    name = "rocm"
    label = "AMD GPU (ROCm)"
    priority = 30

    def unavailable(self) -> str | None:
        """Why ROCm cannot be used, or None."""
        import torch

        if torch.version.hip is None:
            return "this torch is built without ROCm; see pytorch.org for one with it"
        if not torch.cuda.is_available():
            return "torch finds no AMD GPU or driver"
        return None


@hookimpl
def register_devices(register: Callable[[Device], None]) -> None:
    """Register ROCm."""
    register(Rocm())
