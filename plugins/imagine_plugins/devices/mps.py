"""Apple silicon through Metal Performance Shaders."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from imagine_core import Device, hookimpl

if TYPE_CHECKING:
    import torch


class Mps(Device):
    """The GPU of an Apple silicon Mac."""

    name = "mps"
    label = "Apple GPU (Metal)"
    priority = 20

    def unavailable(self) -> str | None:
        """Why Metal cannot be used, or None."""
        import torch

        if not torch.backends.mps.is_built():
            return "this torch is built without Metal"
        if not torch.backends.mps.is_available():
            return "this machine has no Apple GPU, or macOS is older than 12.3"
        return None

    def vae_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """float32: autoencoders lose pictures to black in float16 on Metal."""
        import torch

        del dtype
        return torch.float32

    def fence(self) -> Callable[[], None]:
        """Metal's events need no device argument; there is one GPU."""
        import torch

        event = torch.mps.event.Event()
        event.record()
        return event.synchronize

    def free_memory(self) -> int | None:
        """What the system recommends for the GPU, less what torch has taken."""
        import torch

        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()

    def empty_cache(self) -> None:
        """Give cached blocks back to the system."""
        import torch

        torch.mps.empty_cache()


@hookimpl
def register_devices(register: Callable[[Device], None]) -> None:
    """Register Metal."""
    register(Mps())
