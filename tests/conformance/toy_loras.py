"""A format of LoRAs for tests of check_lora, and a loader of it that is right.

A file is "TOY1", eight bytes with the length of the rest, and the rest: `VALUES` numbers in
float32, one after the other what changes the layers of `LAYERS`.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from conformance.toys import MAGIC, Toys
from imagine_core import Device, ModelInfo
from imagine_core.errors import UnusableModel
from imagine_core.parts import Change, FittedLora, Layers, LowRank, Magnitude

if TYPE_CHECKING:
    import torch

LAYERS = Layers(
    family="toy",
    shapes={
        "unet.out": (8, 6),
        "unet.conv": (4, 8, 3, 3),
        "unet.norm": (8,),
        "unet.table": (16, 6),
        "unet.other": (2, 2),
    },
)
RANK = 2
WORD = 6
VALUES = RANK * (8 + 6 + 4 + 72) + 8 + 8 + 16 * 6 + 8 + 2 * WORD


def write(path: Path) -> Path:
    """A toy LoRA."""
    chance = random.Random(4)
    numbers = struct.pack(f"<{VALUES}f", *(chance.uniform(0.5, 1) for _ in range(VALUES)))
    path.write_bytes(MAGIC + len(numbers).to_bytes(8, "little") + numbers)
    return path


@dataclass(eq=False)
class Product:
    """A change of low rank."""

    down: torch.Tensor
    up: torch.Tensor

    def low_rank(self, dtype: torch.dtype) -> LowRank | None:
        return LowRank(self.down.to(dtype), self.up.to(dtype))

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        product = self.up @ self.down.flatten(1)
        return product.view(len(self.up), *self.down.shape[1:]).to(dtype)

    def to(self, device: torch.device) -> Product:
        return type(self)(self.down.to(device), self.up.to(device))


@dataclass(eq=False)
class Full:
    """A change that is whole."""

    difference: torch.Tensor

    def low_rank(self, dtype: torch.dtype) -> LowRank | None:
        return None

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        return self.difference.to(dtype)

    def to(self, device: torch.device) -> Full:
        return type(self)(self.difference.to(device))


class ToyLora:
    """The LoRA without a fault, of each form that there is."""

    product: type[Product] = Product
    full: type[Full] = Full
    hash: str | None = "0123456789ab"

    def __init__(self, info: ModelInfo) -> None:
        import torch

        data = bytearray(info.path.read_bytes()[12:])
        self.name = info.name
        self.numbers: torch.Tensor | None = torch.frombuffer(data, dtype=torch.float32)

    @cached_property
    def changes(self) -> dict[str, Change]:
        """All that it changes, as views of its numbers."""
        import torch

        assert self.numbers is not None
        sizes = [RANK * 6, 8 * RANK, RANK * 72, 4 * RANK, 8, 8, 16 * 6, 8, 2 * WORD]
        down, up, kernel, mixed, bias, length, table, norm, _ = torch.split(self.numbers, sizes)
        return {
            "unet.out": Change(
                updates=(self.product(down.view(RANK, 6), up.view(8, RANK)),),
                bias=bias,
                magnitude=Magnitude(length, "out"),
            ),
            "unet.conv": Change(
                updates=(self.product(kernel.view(RANK, 8, 3, 3), mixed.view(4, RANK)),)
            ),
            "unet.norm": Change(updates=(self.full(norm),)),
            "unet.table": Change(updates=(self.full(table.view(16, 6)),)),
        }

    def fit(self, layers: Layers) -> FittedLora:
        found, warnings = {}, []
        for name, change in self.changes.items():
            if layers.shapes.get(name) == LAYERS.shapes[name]:
                found[name] = change
            else:
                warnings.append(f"{name} left out: this model has no such layer")
        if not found:
            raise UnusableModel(self.name, "nothing in it fits this model")
        return FittedLora(changes=found, warnings=tuple(warnings))

    def close(self) -> None:
        self.numbers = None
        self.__dict__.pop("changes", None)


class ToyLoras(Toys):
    """The loader without a fault."""

    name = "toy-loras"
    lora: type[ToyLora] = ToyLora
    said: ClassVar[dict[str, Any]] = {}

    def recognise(self, path: Path) -> ModelInfo | None:
        info = super().recognise(path)
        if info is None:
            return None
        told = {"details": {"triggers": ["boat"]}, **self.said}
        return replace(info, **{"kind": "lora", "fits": ("toy",), **told})

    def load(  # type: ignore[override]
        self,
        info: ModelInfo,
        *,
        device: Device,
        full_precision: bool,
        progress: Callable[[float], object] = id,
    ) -> ToyLora:
        super().load(info, device=device, full_precision=full_precision, progress=progress)
        return self.lora(info)
