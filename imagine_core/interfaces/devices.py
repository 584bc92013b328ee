"""Devices: what computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = [
    "Device",
]


class Device:
    """A kind of compute device. Subclass it, set the class attributes, and register an instance.

    Attributes:
        name: What `--device` takes.
        label: What people read.
        priority: `--device auto` takes the available device with the highest priority.
    """

    name: str
    label: str
    priority: int = 0

    def unavailable(self) -> str | None:
        """Why this device cannot be used on this machine, or None if it can. May import torch."""
        raise NotImplementedError

    def torch_device(self) -> str:
        """The device string that torch understands; ROCm builds of torch answer to "cuda"."""
        return self.name

    def dtype(self) -> torch.dtype:
        """The dtype that models compute in unless full precision is asked for."""
        import torch

        return torch.float16

    def vae_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype for an autoencoder beside a UNet in `dtype`."""
        return dtype

    def fence(self) -> Callable[[], None]:
        """Mark this point of the device's work; calling the result waits until it is reached."""
        return lambda: None

    def free_memory(self) -> int | None:
        """Bytes that a model could still take, or None where the device cannot tell."""
        return None

    def watch_memory(self) -> Callable[[], int | None]:
        """Begin to watch; calling the result gives the most bytes that were taken meanwhile.

        Beyond what was taken at the beginning; None where the device cannot tell.
        """
        return lambda: None

    def empty_cache(self) -> None:
        """Give cached memory back to the device, after a model left or memory ran out."""
