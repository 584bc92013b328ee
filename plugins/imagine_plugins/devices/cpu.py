"""The CPU: always there; bfloat16 where the processor computes it, else float32."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from imagine_core import Device, hookimpl

if TYPE_CHECKING:
    import torch


class Cpu(Device):
    """The processor. float16 is never used: without hardware for it, it is 400 times slower."""

    name = "cpu"
    label = "CPU"
    priority = 0

    def unavailable(self) -> str | None:
        """Never."""
        return None

    def dtype(self) -> torch.dtype:
        """bfloat16 with AVX512-BF16 or AMX, which halve a step's time; float32 elsewhere."""
        import torch

        return torch.bfloat16 if _computes_bfloat16() else torch.float32

    def free_memory(self) -> int | None:
        """Memory that the system could hand out without swapping."""
        try:
            for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, AttributeError):  # neither Linux nor POSIX
            return None

    def watch_memory(self) -> Callable[[], int | None]:
        """The peak of this process's resident memory, which Linux lets one reset."""
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            before = _status("VmRSS:")
        except (OSError, ValueError):  # not Linux, or not all of it
            return lambda: None
        return lambda: max(0, _status("VmHWM:") - before)


def _status(entry: str) -> int:
    """Bytes of an entry in this process's status."""
    text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    for line in text.splitlines():
        if line.startswith(entry):
            return int(line.split()[1]) * 1024
    raise ValueError(entry)


def _computes_bfloat16() -> bool:
    import torch

    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


@hookimpl
def register_devices(register: Callable[[Device], None]) -> None:
    """Register the CPU."""
    register(Cpu())
