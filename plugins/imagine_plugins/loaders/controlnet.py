"""ControlNets and T2I-Adapters from files of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagine_core.models.hashing import FileHash


class LoadedControl:
    """A ControlNet or a T2I-Adapter, which models of its family share.

    Args:
        network: A diffusers ControlNetModel or T2IAdapter on the device.
        file_hash: Its file's hash, once it is known; None for several files.
    """

    def __init__(self, network: Any, file_hash: FileHash | None = None) -> None:
        self.network = network
        self._hash = file_hash

    @property
    def hash(self) -> str | None:
        """First 8 hex digits of the file's sha256, once they are known."""
        known = None if self._hash is None else self._hash.value
        return None if known is None else known[:8]

    @property
    def is_adapter(self) -> bool:
        """Whether it is a T2I-Adapter, which reads nothing but the hint."""
        return type(self.network).__name__ == "T2IAdapter"

    @property
    def is_conditional(self) -> bool:
        """Whether it acts in the row of the prompt alone, as those that pool their output do."""
        return bool(self.network.config.get("global_pool_conditions"))

    def close(self) -> None:
        """Release the weights and stop computing the hash."""
        if self._hash is not None:
            self._hash.stop()
        self.network = None
