"""NVIDIA GPUs through CUDA."""

from __future__ import annotations

from collections.abc import Callable

from imagine_core import Device, hookimpl


class Cuda(Device):
    """An NVIDIA GPU; ROCm, whose builds of torch answer to the same name, derives from it."""

    name = "cuda"
    label = "NVIDIA GPU (CUDA)"
    priority = 40

    def unavailable(self) -> str | None:
        """Why CUDA cannot be used, or None."""
        import torch

        if torch.version.hip is not None:
            return "this torch is built for ROCm; use -d rocm"
        if torch.version.cuda is None:
            return "this torch is built without CUDA; see pytorch.org for one with it"
        if not torch.cuda.is_available():
            return "torch finds no NVIDIA GPU or driver"
        return None

    def torch_device(self) -> str:
        """Both CUDA and ROCm are "cuda" to torch."""
        return "cuda"

    def fence(self) -> Callable[[], None]:
        """An event behind everything queued so far."""
        import torch

        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event.synchronize

    def free_memory(self) -> int | None:
        """Free on the card, and cached by torch but not in use."""
        import torch

        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()

    def watch_memory(self) -> Callable[[], int | None]:
        """The peak of what torch's allocator has handed out."""
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return lambda: torch.cuda.max_memory_allocated() - before

    def empty_cache(self) -> None:
        """Give cached blocks back to the driver."""
        import torch

        torch.cuda.empty_cache()


@hookimpl
def register_devices(register: Callable[[Device], None]) -> None:
    """Register CUDA."""
    register(Cuda())
