"""Weights for each block of a model, as the extension LoRA Block Weight writes them for A1111.

`<lora:name:1:lbw=1,0,0,0,1,1,1,1,1,1,1,1>`: one number for the text encoders, then one for each
block of the UNet, in the order in which it computes. A list of a length has its own blocks; those
that it leaves out are 0, and what is in no block (the embedding of the time, the last convolution)
is 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from imagine_core.lora_tags import WEIGHT_LIMIT
from imagine_plugins.loaders.adapters.modules import TEXT, Module


def _blocks(names: str) -> tuple[str, ...]:
    return (TEXT, *names.split())


_INS = " ".join(f"IN{number:02}" for number in range(12))
_OUTS = " ".join(f"OUT{number:02}" for number in range(12))
_XL_INS = " ".join(_INS.split()[:9])
_XL_OUTS = " ".join(_OUTS.split()[:9])
LISTS = {
    len(blocks): blocks
    for blocks in (
        _blocks("IN04 IN05 IN07 IN08 M00 OUT00 OUT01 OUT02 OUT03 OUT04 OUT05"),
        _blocks(
            "IN01 IN02 IN04 IN05 IN07 IN08 M00 "
            "OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11"
        ),
        _blocks(f"{_XL_INS} M00 {_XL_OUTS}"),
        _blocks(f"{_INS} M00 {_OUTS}"),
    )
}
"""The blocks of lists by their lengths: 12 and 20 for SDXL, 17 and 26 for SD1 and SD2."""

NAMED = {
    "NONE": "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0",
    "ALL": "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
    "INS": "1,1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0",
    "IND": "1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "INALL": "1,1,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "MIDD": "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0",
    "OUTD": "1,0,0,0,0,0,0,0,1,1,1,1,0,0,0,0,0",
    "OUTS": "1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1",
    "OUTALL": "1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1",
    "ALL0.5": ",".join(["0.5"] * 17),
}
"""The lists that the extension comes with; users add their own to its file."""


class BlocksError(ValueError):
    """A list that cannot be read; the text says why, and what can."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Weights by block."""

    weights: Mapping[str, float]

    def factor(self, module: Module) -> float:
        """What a module's change is multiplied by."""
        return 1.0 if module.block is None else self.weights.get(module.block, 0.0)


def blocks(text: str) -> Blocks:
    """Read a list of weights, or the name of one; raises `BlocksError`."""
    given = [each.strip() for each in NAMED.get(text.strip(), text).split(",")]
    names = LISTS.get(len(given))
    if names is None:
        lengths = ", ".join(map(str, LISTS))
        known = ", ".join(NAMED)
        raise BlocksError(
            f"weights of blocks are {lengths} numbers with commas between, or one of {known}; "
            f"not {text[:80]!r}"
        )
    return Blocks(dict(zip(names, map(_number, given), strict=True)))


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not -WEIGHT_LIMIT <= number <= WEIGHT_LIMIT:
        limits = f"from {-WEIGHT_LIMIT:g} to {WEIGHT_LIMIT:g}"
        raise BlocksError(f"the weight of a block is a number {limits}, not {text[:40]!r}")
    return number
