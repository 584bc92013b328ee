"""What decoding in tiles takes: SDXL's autoencoder with random weights, each way in a process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measure import row

SIZES = (1024, 2048)
DTYPES = ("bfloat16", "float32")
WAYS = ("whole", "tiles", "diffusers")
MOST = {("whole", "float32"): 1024}  # pixels a side; more takes more than 16 GB


def tiles() -> None:
    """Seconds of processor time and memory beside the weights, and how near the results are."""
    row("picture", "dtype", "way", "CPU seconds", "GB", "numbers a pixel")
    row("---", "---", "---", "---", "---", "---")
    for size in SIZES:
        for dtype in DTYPES:
            for way in WAYS:
                if size <= MOST.get((way, dtype), size):
                    _row(size, dtype, way)


def _row(size: int, dtype: str, way: str) -> None:
    command = [sys.executable, __file__, str(size), dtype, way]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, taken = json.loads(output.splitlines()[-1])
    each = taken / size**2 / (2 if dtype == "bfloat16" else 4)
    row(f"{size} x {size}", dtype, way, f"{seconds:.0f}", f"{taken / 1e9:.1f}", f"{each:.0f}")


def _decoding(size: int, dtype: str, way: str) -> Callable[[], Any]:
    import torch
    from diffusers import AutoencoderKL

    from imagine_plugins.loaders import strips

    torch.manual_seed(0)
    model = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,  # of diffusers' tiles
    )
    model = model.eval().to(getattr(torch, dtype), memory_format=torch.channels_last)
    latent = torch.randn(1, 4, size // 8, size // 8).to(model.dtype)
    if way == "tiles":
        return partial(strips.decode, model, latent, "")
    if way == "diffusers":
        model.enable_tiling()
    return partial(model.decode, latent)


def _measured(work: Callable[[], Any]) -> tuple[float, int]:
    """Seconds of processor time of `work`, and the bytes that it takes at most."""
    import torch

    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before, started = _status("VmRSS:"), time.process_time()
    with torch.no_grad():
        work()
    return time.process_time() - started, _status("VmHWM:") - before


def _status(entry: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(entry))


if __name__ == "__main__":
    pixels, kind, how = sys.argv[1:]
    print(json.dumps(_measured(_decoding(int(pixels), kind, how))))
